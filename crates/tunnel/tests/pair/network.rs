//! The network: latency, loss, address translation, walls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// How datagrams travel.
pub(crate) struct Network {
    pub(crate) latency: Duration,
    /// In percent.
    pub(crate) loss: u32,
    /// Only datagrams to or from the relay get through.
    pub(crate) is_direct_blocked: bool,
    pub(crate) relay: Vec<IpAddr>,
    /// Inner to outer address. Mapping is the same for all destinations, filtering is by address and port.
    nats: BTreeMap<SocketAddr, SocketAddr>,
    opened: BTreeSet<(SocketAddr, SocketAddr)>,
    random: ChaCha20Rng,
}

impl Network {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            latency: Duration::from_millis(20),
            loss: 0,
            is_direct_blocked: false,
            relay: Vec::new(),
            nats: BTreeMap::new(),
            opened: BTreeSet::new(),
            random: ChaCha20Rng::from_seed([seed; 32]),
        }
    }

    pub(crate) fn add_nat(&mut self, inner: SocketAddr, outer: SocketAddr) {
        self.nats.insert(inner, outer);
    }

    /// Puts a datagram on the wire: when it arrives, from whom it seems to be.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<(Instant, SocketAddr)> {
        if self.loss > 0 && self.random.random_range(0..100) < self.loss {
            return None;
        }
        let is_relayed = self.relay.contains(&to.ip()) || self.relay.contains(&from.ip());
        if self.is_direct_blocked && !is_relayed {
            return None;
        }
        let outer = self.nats.get(&from).copied().unwrap_or(from);
        if outer != from {
            self.opened.insert((outer, to));
        }
        Some((now + self.latency, outer))
    }

    /// Where a datagram ends up that arrives at `to`; nowhere if a NAT does not let it in.
    pub(crate) fn deliver(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        match self.nats.iter().find(|(_, outer)| **outer == to) {
            Some((inner, _)) => self.opened.contains(&(to, from)).then_some(*inner),
            // An inner address means nothing outside.
            None => (!self.nats.contains_key(&to)).then_some(to),
        }
    }
}
