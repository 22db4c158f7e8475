//! Addresses: our own sockets, and pairs of ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use adit_turn::Family;

/// Local addresses beyond this many are ignored.
const MAX_LOCAL: usize = 16;

/// Two ends of a possible path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// A socket address of ours, or an address that one of our relays lends us.
    pub(crate) local: SocketAddr,
    /// The peer's end as we see it.
    pub(crate) remote: SocketAddr,
}

/// The family of an address.
pub(crate) fn family(address: SocketAddr) -> Family {
    Family::of(address.ip())
}

/// Takes away what does not belong to a transport address: IPv6 flow labels and scopes, and
/// IPv4 written as IPv6.
pub(crate) fn normalized(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0)),
        },
    }
}

/// Whether a datagram can sensibly be sent to or from an address.
///
/// Loopback is refused so that nobody can make us talk to services of our own host.
pub(crate) fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let wrong_family_rules = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !wrong_family_rules
}

/// Our own socket addresses, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalAddresses(Vec<SocketAddr>);

impl LocalAddresses {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let mut kept = Vec::new();
        for address in addresses.iter().copied().map(normalized).filter(|address| is_usable(*address)) {
            if kept.len() < MAX_LOCAL && !kept.contains(&address) {
                kept.push(address);
            }
        }
        Self(kept)
    }

    pub(crate) fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }

    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.0.contains(&address)
    }

    /// The best address of a family.
    pub(crate) fn first(&self, of: Family) -> Option<SocketAddr> {
        self.0.iter().copied().find(|address| family(*address) == of)
    }

    /// The source for datagrams whose address the kernel shall pick.
    pub(crate) fn any(&self, of: Family) -> SocketAddr {
        let ip = match of {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let port = self.first(of).or_else(|| self.0.first().copied()).map_or(0, |address| address.port());
        SocketAddr::new(ip, port)
    }

    /// What the network layer says a datagram came in on, as one of our addresses: an answer
    /// must have a source that we may use.
    pub(crate) fn resolve(&self, local: SocketAddr) -> SocketAddr {
        let local = normalized(local);
        if self.contains(local) { local } else { self.first(family(local)).unwrap_or(local) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn useless_addresses_are_dropped_and_the_order_is_kept() {
        let given = [
            "127.0.0.1:1",
            "192.0.2.1:7",
            "[fe80::1]:7",
            "192.0.2.1:7",
            "[::ffff:192.0.2.2]:7",
            "0.0.0.0:7",
            "[2001:db8::1]:7",
            "192.0.2.3:0",
        ]
        .map(address);
        let local = LocalAddresses::new(&given);
        assert_eq!(local.as_slice(), ["192.0.2.1:7", "192.0.2.2:7", "[2001:db8::1]:7"].map(address));
        assert_eq!(local.resolve(address("[::]:7")), address("[2001:db8::1]:7"));
        assert_eq!(local.resolve(address("192.0.2.2:7")), address("192.0.2.2:7"));
        assert_eq!(local.resolve(address("192.0.2.99:7")), address("192.0.2.1:7"));
        assert_eq!(local.any(Family::V4), address("0.0.0.0:7"));
    }
}
