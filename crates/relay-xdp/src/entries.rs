//! What a route becomes in the table: one entry for each direction of its channel.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use crate::layout::{self, Direction, Key, Origin, Settings, Value};
use crate::route::{Addresses, Route, Unroutable};

/// Places for ways to addresses, for each processor; as `NEXT_HOPS` in `program/tables.h`.
const NEXT_HOPS: u64 = 4096;

const PROTOCOL_UDP: u16 = 17;

impl Addresses {
    /// What the program is told once.
    pub(crate) fn settings(&self, ticks_per_second: u16) -> Settings {
        Settings {
            local_v4: self.local_v4,
            local_v6: self.local_v6,
            listener_port: self.listener_port,
            first_port: *self.ports.start(),
            last_port: *self.ports.end(),
            ticks_per_second,
        }
    }

    /// How many places the generations of all ports need: one for each port and family.
    pub(crate) fn places(&self) -> u32 {
        2 * self.ports_of_family()
    }

    /// A port's place among the generations.
    pub(crate) fn place(&self, is_v6: bool, port: u16) -> Option<u32> {
        let distance = u32::from(port).checked_sub((*self.ports.start()).into())?;
        let base = if is_v6 { self.ports_of_family() } else { 0 };
        self.ports.contains(&port).then_some(base + distance)
    }

    fn ports_of_family(&self) -> u32 {
        u32::from(*self.ports.end()) + 1 - u32::from(*self.ports.start())
    }

    fn has_family_of(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.local_v4.is_some() } else { self.local_v6.is_some() }
    }
}

/// Both entries of a route in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries {
    pub(crate) to_client: (Key, Value),
    pub(crate) to_peer: (Key, Value),
}

/// The names of both entries: what the peer sends, what the client sends.
pub(crate) fn keys(route: &Route) -> [Key; 2] {
    [
        layout::key(route.peer, route.port, Origin::Peer),
        layout::key(route.client, route.channel, Origin::Client),
    ]
}

/// The entries of a route whose port has this generation.
pub(crate) fn entries(
    addresses: &Addresses,
    secret: (u64, u64),
    route: &Route,
    generation: u32,
) -> Result<Entries, Unroutable> {
    for ip in [route.client.ip(), route.peer.ip()] {
        if !is_plain(ip) {
            return Err(Unroutable::Address);
        }
        if !addresses.has_family_of(ip) {
            return Err(Unroutable::Family);
        }
    }
    let place = addresses.place(route.peer.is_ipv6(), route.port).ok_or(Unroutable::Port)?;
    let direction = |[old, new]: [&Side; 2]| Direction {
        destination: new.remote,
        source_port: new.local_port,
        channel: new.channel,
        is_within_relay: route.is_within_relay,
        port: (place, generation),
        next_hop: next_hop(secret, new.remote.ip()),
        old_sums: (old.sum_of_addresses(addresses), old.sum_of_numbers()),
        new_sum: fold([new.sum_of_addresses(addresses), new.sum_of_numbers()]),
        name: route.name,
    };
    let client =
        Side { remote: route.client, local_port: addresses.listener_port, channel: Some(route.channel) };
    let peer = Side { remote: route.peer, local_port: route.port, channel: None };
    let [from_peer, from_client] = keys(route);
    let (to_client, to_peer) = (direction([&peer, &client]), direction([&client, &peer]));
    Ok(Entries {
        to_client: (from_peer, layout::value(&to_client)),
        to_peer: (from_client, layout::value(&to_peer)),
    })
}

/// What frames of one side of the relay have in common, in either direction.
struct Side {
    remote: SocketAddr,
    local_port: u16,
    channel: Option<u16>,
}

impl Side {
    /// The part of addresses and protocol in a checksum (RFC 768: the pseudo header without the length).
    fn sum_of_addresses(&self, addresses: &Addresses) -> u16 {
        let local = match self.remote.ip() {
            IpAddr::V4(_) => addresses.local_v4.map(IpAddr::V4),
            IpAddr::V6(_) => addresses.local_v6.map(IpAddr::V6),
        };
        let words = [Some(self.remote.ip()), local].into_iter().flatten().flat_map(words);
        fold(words.chain([PROTOCOL_UDP]))
    }

    /// The part of ports and channel number.
    fn sum_of_numbers(&self) -> u16 {
        fold([self.remote.port(), self.local_port, self.channel.unwrap_or(0)])
    }
}

fn words(ip: IpAddr) -> Vec<u16> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect()
}

/// The sum of an Internet checksum (RFC 1071), without the final complement.
fn fold(words: impl IntoIterator<Item = u16>) -> u16 {
    words.into_iter().fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// Whether frames of this address can be told and made without knowing interfaces and scopes.
fn is_plain(ip: IpAddr) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return false;
    }
    match ip {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
    }
}

/// Where the way to an address is kept; nobody outside can aim at another one's place.
fn next_hop(secret: (u64, u64), ip: IpAddr) -> u16 {
    let mut hasher = SipHasher13::new_with_keys(secret.0, secret.1);
    hasher.write(&layout::mapped(ip));
    (hasher.finish() % NEXT_HOPS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            local_v4: Some([10, 0, 0, 5].into()),
            local_v6: None,
            listener_port: 3478,
            ports: 50_000..=50_009,
        }
    }

    fn route(client: &str, port: u16, peer: &str) -> Route {
        let parse = |text: &str| text.parse().expect("address");
        Route {
            name: 1,
            client: parse(client),
            channel: 0x4000,
            port,
            peer: parse(peer),
            is_within_relay: false,
        }
    }

    #[test]
    fn only_what_a_frame_can_carry_becomes_a_route() {
        let refusal = |route| entries(&addresses(), (1, 2), &route, 0).err();
        assert_eq!(refusal(route("198.51.100.1:9", 50_009, "203.0.113.1:7")), None);
        assert_eq!(refusal(route("198.51.100.1:9", 50_010, "203.0.113.1:7")), Some(Unroutable::Port));
        assert_eq!(refusal(route("198.51.100.1:9", 3478, "203.0.113.1:7")), Some(Unroutable::Port));
        assert_eq!(refusal(route("[2001:db8::1]:9", 50_000, "203.0.113.1:7")), Some(Unroutable::Family));
        assert_eq!(refusal(route("[fe80::1]:9", 50_000, "203.0.113.1:7")), Some(Unroutable::Address));
        for peer in ["0.0.0.0:7", "224.0.0.1:7", "255.255.255.255:7", "127.0.0.1:7", "[::ffff:1.2.3.4]:7"] {
            assert_eq!(refusal(route("198.51.100.1:9", 50_000, peer)), Some(Unroutable::Address), "{peer}");
        }
    }

    #[test]
    fn every_port_of_both_families_has_a_place_of_its_own() {
        let addresses = addresses();
        let place = |is_v6, port| addresses.place(is_v6, port).expect("to lend");
        assert_eq!((place(false, 50_000), place(false, 50_009)), (0, 9));
        assert_eq!((place(true, 50_000), place(true, 50_009)), (10, 19));
        assert_eq!(addresses.places(), 20);
        let whole = Addresses { ports: 0..=65_535, ..addresses };
        assert_eq!((whole.place(true, 65_535), whole.places()), (Some(131_071), 131_072));
    }
}
