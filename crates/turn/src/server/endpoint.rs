//! Addresses as the tables hold them: 24 bytes, compared and hashed by the word.

use super::{Client, StreamId, Transport};
use crate::Family;
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A secret key for hashing: nobody outside can aim at a bucket of a table.
#[derive(Copy, Clone)]
pub(super) struct HashKey(u64, u64);

impl HashKey {
    pub(super) fn new((first, second): (u64, u64)) -> Self {
        Self(first, second)
    }

    pub(super) fn hasher(self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HashKey(..)")
    }
}

/// An IP address.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Host {
    words: [u64; 2],
    is_v6: bool,
}

impl Host {
    /// Hashes the address together with the number of an allocation's slot.
    pub(super) fn hash(self, key: HashKey, slot: u32) -> u64 {
        let mut hasher = key.hasher();
        hasher.write_u64(u64::from(slot) << 1 | u64::from(self.is_v6));
        hasher.write_u64(self.words[0]);
        if self.is_v6 {
            hasher.write_u64(self.words[1]);
        }
        hasher.finish()
    }

    pub(super) fn family(self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self { words: [u64::from(u32::from(ip)), 0], is_v6: false },
            IpAddr::V6(ip) => {
                let bits = u128::from(ip);
                Self { words: [(bits >> 64) as u64, bits as u64], is_v6: true }
            }
        }
    }
}

/// A transport address: host and port, and for link-local ones the interface.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    words: [u64; 2],
    scope: u32,
    pub(super) port: u16,
    is_v6: bool,
}

impl Endpoint {
    /// No address of anybody.
    pub(super) const NONE: Self = Self { words: [0; 2], scope: 0, port: 0, is_v6: false };

    pub(super) fn family(self) -> Family {
        if self.is_v6 { Family::V6 } else { Family::V4 }
    }

    pub(super) fn host(self) -> Host {
        Host { words: self.words, is_v6: self.is_v6 }
    }

    /// The address without its interface: what a peer is known by.
    pub(super) fn of_peer(address: SocketAddr) -> Self {
        Self { scope: 0, ..Self::from(address) }
    }

    /// Hashes the address together with a number that goes with it, such as a channel's, and the
    /// connection it comes by.
    pub(super) fn hash(self, key: HashKey, number: u16, stream: Option<StreamId>) -> u64 {
        let mut hasher = key.hasher();
        let numbers = u64::from(self.port) << 16 | u64::from(number);
        if self.is_v6 {
            hasher.write_u64(self.words[0]);
            hasher.write_u64(self.words[1]);
            hasher.write_u64(u64::from(self.scope) << 32 | numbers);
        } else {
            hasher.write_u64(self.words[0] << 32 | numbers);
        }
        if let Some(StreamId(id)) = stream {
            hasher.write_u64(1 << 32 | u64::from(id));
        }
        hasher.finish()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let Host { words, is_v6 } = Host::from(address.ip());
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self { words, scope, port: address.port(), is_v6 }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        let [high, low] = endpoint.words;
        if endpoint.is_v6 {
            let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
            SocketAddrV6::new(ip, endpoint.port, 0, endpoint.scope).into()
        } else {
            Self::from((Ipv4Addr::from(high as u32), endpoint.port))
        }
    }
}

/// A client as the tables know it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct ClientKey {
    pub(super) endpoint: Endpoint,
    pub(super) stream: Option<StreamId>,
}

impl ClientKey {
    pub(super) fn hash(self, key: HashKey, number: u16) -> u64 {
        self.endpoint.hash(key, number, self.stream)
    }
}

impl From<Client> for ClientKey {
    fn from(client: Client) -> Self {
        let stream = match client.transport {
            Transport::Udp => None,
            Transport::Stream(id) => Some(id),
        };
        Self { endpoint: client.address.into(), stream }
    }
}

impl From<ClientKey> for Client {
    fn from(key: ClientKey) -> Self {
        let transport = key.stream.map_or(Transport::Udp, Transport::Stream);
        Self { transport, address: key.endpoint.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_survive_the_round_trip() {
        assert_eq!(size_of::<Endpoint>(), 24);
        let scoped = SocketAddrV6::new("fe80::1".parse().expect("address"), 9, 0, 3).into();
        let addresses: [SocketAddr; 4] = [
            "192.0.2.1:1".parse().expect("address"),
            "[2001:db8::1]:65535".parse().expect("address"),
            "[::ffff:192.0.2.1]:1".parse().expect("address"),
            scoped,
        ];
        let key = HashKey::new((1, 2));
        let mut hashes = HashSet::new();
        for address in addresses {
            let endpoint = Endpoint::from(address);
            assert_eq!(SocketAddr::from(endpoint), address);
            for (number, stream) in [(0, None), (1, None), (0, Some(StreamId(0))), (0, Some(StreamId(1)))] {
                assert!(hashes.insert(endpoint.hash(key, number, stream)));
            }
        }
        assert_ne!(Endpoint::from(addresses[0]), Endpoint::from(addresses[2]), "v4-mapped is IPv6");
        assert_eq!(Endpoint::of_peer(scoped), Endpoint::of_peer("[fe80::1]:9".parse().expect("address")));
    }
}
