//! Address translation as RFC 4787 describes it: a mapping behaviour, a filtering behaviour, and bindings that expire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A binding that no outbound datagram has refreshed for so long is gone (RFC 4787, section 4.3: at least two minutes).
const BINDING: Duration = Duration::from_secs(120);

/// What a binding is reused for (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Every destination.
    EndpointIndependent,
    /// Every port of one destination address.
    AddressDependent,
    /// One destination address and port.
    AddressAndPortDependent,
}

/// Whose datagrams a binding lets in (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody's.
    EndpointIndependent,
    /// Those of addresses that were sent to.
    AddressDependent,
    /// Those of addresses and ports that were sent to.
    AddressAndPortDependent,
}

/// The part of a destination that matters; `None` where it does not.
type Key = (SocketAddr, Option<IpAddr>, Option<u16>);

#[derive(Debug)]
struct Binding {
    key: Key,
    refreshed: Instant,
    sent_to: BTreeSet<SocketAddr>,
}

/// One NAT with one public address.
#[derive(Debug)]
pub(crate) struct Nat {
    public: IpAddr,
    mapping: Mapping,
    filtering: Filtering,
    ports: BTreeMap<Key, u16>,
    bindings: BTreeMap<u16, Binding>,
    next_port: u16,
}

impl Nat {
    pub(crate) fn new(public: IpAddr, mapping: Mapping, filtering: Filtering, first_port: u16) -> Self {
        let (ports, bindings) = (BTreeMap::new(), BTreeMap::new());
        Self { public, mapping, filtering, ports, bindings, next_port: first_port }
    }

    pub(crate) const fn public(&self) -> IpAddr {
        self.public
    }

    /// Whether peers cannot know the binding that will be used towards them.
    pub(crate) fn is_unpredictable(&self) -> bool {
        self.mapping != Mapping::EndpointIndependent
    }

    fn key(&self, inner: SocketAddr, to: SocketAddr) -> Key {
        match self.mapping {
            Mapping::EndpointIndependent => (inner, None, None),
            Mapping::AddressDependent => (inner, Some(to.ip()), None),
            Mapping::AddressAndPortDependent => (inner, Some(to.ip()), Some(to.port())),
        }
    }

    /// The source that a datagram from `inner` to `to` has outside.
    pub(crate) fn outbound(&mut self, now: Instant, inner: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = self.key(inner, to);
        let known = self.ports.get(&key).copied().filter(|port| self.is_alive(now, *port));
        let port = known.unwrap_or_else(|| self.bind(now, key));
        if let Some(binding) = self.bindings.get_mut(&port) {
            binding.refreshed = now;
            binding.sent_to.insert(to);
        }
        SocketAddr::new(self.public, port)
    }

    fn bind(&mut self, now: Instant, key: Key) -> u16 {
        if let Some(old) = self.ports.remove(&key) {
            self.bindings.remove(&old);
        }
        while self.bindings.contains_key(&self.next_port) {
            self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
        }
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
        self.ports.insert(key, port);
        self.bindings.insert(port, Binding { key, refreshed: now, sent_to: BTreeSet::new() });
        port
    }

    fn is_alive(&self, now: Instant, port: u16) -> bool {
        self.bindings.get(&port).is_some_and(|binding| now < binding.refreshed + BINDING)
    }

    /// Whom a datagram from `from` to our `port` is for.
    pub(crate) fn inbound(&self, now: Instant, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        if !self.is_alive(now, port) {
            return None;
        }
        let binding = self.bindings.get(&port)?;
        let is_let_in = match self.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.sent_to.iter().any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => binding.sent_to.contains(&from),
        };
        is_let_in.then_some(binding.key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const INNER: &str = "192.168.0.2:5000";

    #[test]
    fn mapping_decides_what_shares_a_port() {
        let now = Instant::now();
        for (mapping, different) in [
            (Mapping::EndpointIndependent, 1),
            (Mapping::AddressDependent, 2),
            (Mapping::AddressAndPortDependent, 3),
        ] {
            let mut nat = Nat::new([1, 2, 3, 4].into(), mapping, Filtering::EndpointIndependent, 4000);
            let to = ["9.9.9.9:1", "9.9.9.9:2", "8.8.8.8:1"].map(socket);
            let outer: BTreeSet<_> = to.iter().map(|to| nat.outbound(now, socket(INNER), *to)).collect();
            assert_eq!(outer.len(), different, "{mapping:?}");
        }
    }

    #[test]
    fn filtering_decides_who_gets_in_and_bindings_expire() {
        let now = Instant::now();
        let strangers = ["9.9.9.9:1", "9.9.9.9:2", "8.8.8.8:1"].map(socket);
        for (filtering, admitted) in [
            (Filtering::EndpointIndependent, 3),
            (Filtering::AddressDependent, 2),
            (Filtering::AddressAndPortDependent, 1),
        ] {
            let mut nat = Nat::new([1, 2, 3, 4].into(), Mapping::EndpointIndependent, filtering, 4000);
            let outer = nat.outbound(now, socket(INNER), strangers[0]);
            let count =
                |at| strangers.iter().filter(|from| nat.inbound(at, **from, outer.port()).is_some()).count();
            assert_eq!(count(now), admitted, "{filtering:?}");
            assert_eq!(count(now + BINDING), 0);
        }
    }
}
