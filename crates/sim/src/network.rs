//! Where datagrams go, when they arrive, and which do not.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand_chacha::ChaCha20Rng;

use crate::nat::{Filtering, Mapping, Nat};

/// How the network treats datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Added to the delay of both ends, at random up to this; so datagrams overtake each other.
    pub(crate) jitter: Duration,
    /// Datagrams of a thousand that are lost.
    pub(crate) loss: u32,
    /// Datagrams of a thousand that arrive twice.
    pub(crate) duplication: u32,
    /// Largest UDP payload that is carried.
    pub(crate) largest: usize,
}

/// A place that a computer can be at: behind a NAT or not, near or far.
#[derive(Debug)]
pub(crate) struct Place {
    /// The computer's own socket.
    pub(crate) inner: SocketAddr,
    nat: Option<Nat>,
    delay: Duration,
}

/// All places and the ways between them.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) quality: Quality,
    /// Only datagrams from or to a relay get through.
    pub(crate) is_direct_blocked: bool,
    /// Pairs of places that only a relay connects.
    pub(crate) parted: BTreeSet<(usize, usize)>,
    /// Places that let no datagram out or in; TCP passes.
    pub(crate) udp_blocked: BTreeSet<usize>,
    /// Places that are cut off from everything.
    pub(crate) cut_off: BTreeSet<usize>,
    pub(crate) relays: Vec<IpAddr>,
    places: Vec<Place>,
}

/// A datagram with its arrival.
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) from: SocketAddr,
}

impl Network {
    pub(crate) const fn new(quality: Quality) -> Self {
        Self {
            quality,
            is_direct_blocked: false,
            parted: BTreeSet::new(),
            udp_blocked: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            relays: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds a place; `kind` is its NAT, or `None` for a public address.
    pub(crate) fn add_place(&mut self, kind: Option<(Mapping, Filtering)>, delay: Duration) -> usize {
        let number = self.places.len();
        let [high, low] = u16::try_from(number).expect("few places").to_be_bytes();
        let public = IpAddr::from([198, 51 + high, 100, low]);
        let inner_ip = if kind.is_some() { IpAddr::from([192, 168 + high, low, 2]) } else { public };
        let first_port = 20_000 + 97 * u16::from(low);
        let nat = kind.map(|(mapping, filtering)| Nat::new(public, mapping, filtering, first_port));
        self.places.push(Place { inner: SocketAddr::new(inner_ip, 51_820), nat, delay });
        number
    }

    pub(crate) fn inner(&self, place: usize) -> SocketAddr {
        self.places[place].inner
    }

    /// Whether nobody can predict the address that a peer sees of this place.
    pub(crate) fn is_unpredictable(&self, place: usize) -> bool {
        self.places[place].nat.as_ref().is_some_and(Nat::is_unpredictable)
    }

    fn place_of(&self, address: IpAddr) -> Option<usize> {
        self.places.iter().position(|place| match &place.nat {
            Some(nat) => nat.public() == address,
            None => place.inner.ip() == address,
        })
    }

    fn is_relay(&self, address: IpAddr) -> bool {
        self.relays.contains(&address)
    }

    /// Sends a datagram from a place, or (`None`) from a relay; it may arrive never, once or twice.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        random: &mut ChaCha20Rng,
        origin: Option<usize>,
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
    ) -> Vec<Arrival> {
        let is_blocked = |place| self.cut_off.contains(&place) || self.udp_blocked.contains(&place);
        if origin.is_some_and(is_blocked) || length > self.quality.largest {
            return Vec::new();
        }
        let outer = match origin.and_then(|place| self.places[place].nat.as_mut()) {
            Some(nat) => nat.outbound(now, from, to),
            None => from,
        };
        let is_direct = !self.is_relay(to.ip()) && !self.is_relay(outer.ip());
        // From one port of a relay to another no network is crossed.
        let is_lossless = origin.is_none() && self.is_relay(to.ip());
        let is_lost = !is_lossless && random.random_range(0..1000) < self.quality.loss;
        if is_lost || is_direct && (self.is_direct_blocked || self.are_parted(origin, self.place_of(to.ip())))
        {
            return Vec::new();
        }
        let delay =
            |place: Option<usize>| place.map_or(Duration::from_millis(1), |place| self.places[place].delay);
        let base = delay(origin) + delay(self.place_of(to.ip()));
        let copies = 1 + usize::from(random.random_range(0..1000) < self.quality.duplication);
        let jitter = u64::try_from(self.quality.jitter.as_micros()).unwrap_or(0);
        (0..copies)
            .map(|_| {
                let at = now + base + Duration::from_micros(random.random_range(0..=jitter));
                Arrival { at, from: outer }
            })
            .collect()
    }

    /// One way between a place and a relay.
    pub(crate) fn way_to_relay(&self, place: usize) -> Duration {
        self.places[place].delay + Duration::from_millis(1)
    }

    fn are_parted(&self, one: Option<usize>, other: Option<usize>) -> bool {
        let (Some(one), Some(other)) = (one, other) else { return false };
        self.parted.contains(&(one, other)) || self.parted.contains(&(other, one))
    }

    /// The place and its socket that a datagram to `to` reaches.
    pub(crate) fn deliver(
        &self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<(usize, SocketAddr)> {
        let place = self.place_of(to.ip())?;
        if self.cut_off.contains(&place) || self.udp_blocked.contains(&place) {
            return None;
        }
        let inner = match &self.places[place].nat {
            Some(nat) => nat.inbound(now, from, to.port())?,
            None => to,
        };
        Some((place, inner))
    }
}
