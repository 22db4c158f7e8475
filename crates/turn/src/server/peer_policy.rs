//! Which addresses a client may have the relay send to.
//!
//! A relay stands where its clients do not: on its own loopback, next to cloud metadata services, in
//! a private network. Every special-purpose range (IANA registries, RFC 6890) is therefore refused
//! unless configuration allows it. Addresses that carry an IPv4 address inside (v4-mapped, NAT64,
//! 6to4) are judged by both.
//!
//! The relay's own addresses are a case of their own: two clients of one relay reach each other
//! through it, so live relayed ports are fine and every other port is not.

use super::{Config, RelayPort};
use crate::Family;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The verdict on a peer.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Anything goes.
    Allowed,
    /// The relay's own address: only at this port, and only while it is lent.
    OnlyIfLent(RelayPort),
    /// Nothing goes.
    Denied,
}

/// The rules.
#[derive(Debug)]
pub(super) struct PeerPolicy {
    public: Vec<IpAddr>,
    own: Vec<IpAddr>,
    listener_port: u16,
    allowed: Vec<IpNet>,
}

impl PeerPolicy {
    pub(super) fn new(config: &Config) -> Self {
        let v4 = config.public_v4.map(IpAddr::V4);
        let v6 = config.public_v6.map(IpAddr::V6);
        Self {
            public: v4.into_iter().chain(v6).collect(),
            own: config.own_addresses.clone(),
            listener_port: config.listener_port,
            allowed: config.allowed_peers.clone(),
        }
    }

    /// Judges a permission, which covers every port of an address.
    pub(super) fn permits_address(&self, ip: IpAddr) -> bool {
        self.is_public(ip) || self.is_allowed(ip) || !(is_special(ip) || self.is_own(ip))
    }

    /// Judges a peer to send to.
    pub(super) fn judge(&self, peer: SocketAddr) -> Verdict {
        let ip = peer.ip();
        let ours = self.is_public(ip) || self.is_own(ip);
        if peer.port() == 0 || (ours && peer.port() == self.listener_port) {
            return Verdict::Denied;
        }
        if self.is_allowed(ip) {
            return Verdict::Allowed;
        }
        if self.is_public(ip) {
            return Verdict::OnlyIfLent(RelayPort { family: Family::of(ip), number: peer.port() });
        }
        if is_special(ip) || ours { Verdict::Denied } else { Verdict::Allowed }
    }

    /// True for a client that comes through 6to4 or Teredo, which RFC 8656 (section 21.4) does not let a
    /// server accept, because packets could circle between tunnel and relay.
    pub(super) fn is_tunnelled(&self, ip: IpAddr) -> bool {
        let is_tunnel = |ip: Ipv6Addr| matches!(ip.segments(), [0x2002, ..] | [0x2001, 0, ..]);
        matches!(ip, IpAddr::V6(ip) if is_tunnel(ip)) && !self.is_allowed(ip)
    }

    fn is_public(&self, ip: IpAddr) -> bool {
        self.public.contains(&ip)
    }

    /// True if the address, or one inside it, is this machine's.
    fn is_own(&self, ip: IpAddr) -> bool {
        let ours = |ip: &IpAddr| self.own.contains(ip);
        let inside = embedded(ip).map(IpAddr::V4);
        ours(&ip) || inside.is_some_and(|ip| ours(&ip) || self.is_public(ip))
    }

    /// True if configuration names a network of the address; an address inside must be named too.
    ///
    /// A network that happens to hold the relay itself does not open the relay's other services.
    /// Loopback is the exception: there, naming it can mean nothing else.
    fn is_allowed(&self, ip: IpAddr) -> bool {
        if (self.is_public(ip) || self.is_own(ip)) && !ip.is_loopback() {
            return false;
        }
        let named = |ip: IpAddr| self.allowed.iter().any(|network| network.contains(&ip));
        named(ip) && embedded(ip).is_none_or(|ip| named(IpAddr::V4(ip)))
    }
}

/// The IPv4 address inside a v4-mapped, v4-compatible, NAT64 or 6to4 address.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    if ip.is_unspecified() || ip.is_loopback() {
        return None; // these look v4-compatible
    }
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let last = u32::from(g) << 16 | u32::from(h);
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] => Some(Ipv4Addr::from(last)),
        [0x64, 0xff9b, 0, 0, 0, 0] => Some(Ipv4Addr::from(last)),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

/// True if packets to the address have no business leaving a public relay.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_special_v4(ip),
        IpAddr::V6(v6) => is_special_v6(v6) || embedded(ip).is_some_and(is_special_v4),
    }
}

fn is_special_v4(ip: Ipv4Addr) -> bool {
    match ip.octets() {
        [0 | 10 | 127, ..] => true,               // this network, private, loopback
        [100, second, ..] => second & 0xc0 == 64, // shared by carriers, 100.64.0.0/10
        [169, 254, ..] => true,                   // link-local and metadata services
        [172, second, ..] => second & 0xf0 == 16, // private, 172.16.0.0/12
        [192, 0, 0 | 2, _] => true,               // protocol assignments, documentation
        [192, 88, 99, _] => true,                 // 6to4 relays
        [192, 168, ..] => true,                   // private
        [198, 18 | 19, ..] => true,               // benchmarks
        [198, 51, 100, _] => true,                // documentation
        [203, 0, 113, _] => true,                 // documentation
        [first, ..] => first >= 224,              // multicast, reserved, broadcast
    }
}

fn is_special_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => false, // NAT64, judged by what is inside
        [0x2001, second, ..] if second < 0x200 => true, // protocol assignments, Teredo
        [0x2001, 0xdb8, ..] => true,             // documentation
        [0x2002, ..] => true,                    // 6to4 (RFC 8656, section 21.4)
        [0x3fff, second, ..] if second < 0x1000 => true, // documentation
        // Global unicast is 2000::/3. Everything else is unspecified, loopback, v4-mapped, v4-translated,
        // discarded, segment routing, private, link-local, multicast, or not assigned.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
#[path = "peer_policy_tests.rs"]
mod tests;
