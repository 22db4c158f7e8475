//! Which addresses a tunnel may lead to at all.
//!
//! A resource is written by an administrator, a name is resolved by a private resolver, and
//! both may err or be led astray. Some destinations are therefore refused whatever a
//! resource says: they mean the gateway itself, or everybody on its link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_protocol::Interface;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses that no packet out of a tunnel may have as its destination.
pub(crate) const fn is_never_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0
        }
        // An IPv4-mapped address on the wire is IPv4 in disguise, past every IPv4 rule.
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_multicast()
                || address.is_unspecified()
                || address.to_ipv4_mapped().is_some()
        }
    }
}

/// Addresses that mean something on one link only (RFC 3927, RFC 4291).
pub(crate) const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Addresses that are not on the public Internet: an Internet resource does not lead there.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_ipv4(address),
        IpAddr::V6(address) => is_private_ipv6(address),
    }
}

fn is_private_ipv4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    address.is_private()
        || address.is_link_local()
        // RFC 6598 (shared), RFC 6890 (protocol assignments), RFC 2544 (benchmarks), RFC 1112 (reserved)
        || (first == 100 && second & 0xc0 == 64)
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && second & 0xfe == 18)
        || first >= 240
}

fn is_private_ipv6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Only 2000::/3 is assigned for global unicast; 64:ff9b::/96 (RFC 6052) carries IPv4.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_private_ipv4(Ipv4Addr::new(a, b, c, d));
    }
    segments[0] & 0xe000 != 0x2000
}

/// What the tunnel of a host with this number, 0 to 4, takes of the proxy range, so that two of them never name the same
/// address: the first takes half, the others an eighth each. Too small a range is not divided.
pub(crate) fn proxy_share(ranges: (Ipv4Net, Ipv6Net), profile: u8) -> (Ipv4Net, Ipv6Net) {
    let (deeper, at) = if profile == 0 { (1, 0) } else { (3, 3 + usize::from(profile)) };
    let (ipv4, ipv6) = ranges;
    let share = |length: u8, bits: u8| (length + 3 + 4 <= bits).then_some(length + deeper);
    let ipv4_share = share(ipv4.prefix_len(), 32).and_then(|length| ipv4.subnets(length).ok()?.nth(at));
    let ipv6_share = share(ipv6.prefix_len(), 128).and_then(|length| ipv6.subnets(length).ok()?.nth(at));
    (ipv4_share.unwrap_or(ipv4), ipv6_share.unwrap_or(ipv6))
}

/// The ranges that tunnels and names use themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TunnelRanges {
    tunnel: [IpNet; 2],
    proxy: [IpNet; 2],
}

impl TunnelRanges {
    pub(crate) fn new(interface: &Interface) -> Self {
        Self {
            tunnel: [interface.ipv4_range.trunc().into(), interface.ipv6_range.trunc().into()],
            proxy: [interface.ipv4_proxy_range.trunc().into(), interface.ipv6_proxy_range.trunc().into()],
        }
    }

    /// Whether `address` is a proxy address of some name.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxy.iter().any(|range| range.contains(&address))
    }

    /// Whether `address` is a tunnel or a proxy address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.is_proxy(address) || self.tunnel.iter().any(|range| range.contains(&address))
    }

    /// Whether a resource on `network` was meant to lead to `address`.
    ///
    /// Tunnel addresses of other peers, and link-local ones, are reached only through a
    /// resource that lies within their range: `0.0.0.0/0` does not mean them.
    pub(crate) fn is_meant(&self, network: IpNet, address: IpAddr) -> bool {
        let named = |range: &IpNet| !range.contains(&address) || range.contains(&network);
        let in_ranges = self.tunnel.iter().chain(&self.proxy).all(named);
        let is_exact =
            !is_link_local(address) || network.prefix_len() >= 10 && is_link_local(network.network());
        in_ranges && is_exact
    }

    /// The ranges of all tunnel addresses.
    pub(crate) const fn tunnel(&self) -> [IpNet; 2] {
        self.tunnel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn tunnels_of_one_host_share_the_proxy_range_without_overlap() {
        let whole: (Ipv4Net, Ipv6Net) =
            ("100.96.0.0/16".parse().unwrap(), "fd00:2021:1111:8000::/107".parse().unwrap());
        let shares: Vec<_> = (0..5).map(|profile| proxy_share(whole, profile)).collect();
        assert_eq!(shares[0].0, "100.96.0.0/17".parse().unwrap());
        assert_eq!(shares[1].0, "100.96.128.0/19".parse().unwrap());
        assert_eq!(shares[4].1, "fd00:2021:1111:8000::1c:0/110".parse().unwrap());
        for (at, (ipv4, ipv6)) in shares.iter().enumerate() {
            assert!(whole.0.contains(ipv4) && whole.1.contains(ipv6));
            for (other_ipv4, other_ipv6) in &shares[at + 1..] {
                assert!(!ipv4.contains(other_ipv4) && !other_ipv4.contains(ipv4));
                assert!(!ipv6.contains(other_ipv6) && !other_ipv6.contains(ipv6));
            }
        }
        let small = ("100.96.0.0/28".parse().unwrap(), "fd00::/125".parse().unwrap());
        assert_eq!(proxy_share(small, 3), small);
    }

    #[test]
    fn the_gateway_itself_and_its_link_are_out_of_reach() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_never_reachable(ip(text)), "{text}");
        }
        for text in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "fd00::1"] {
            assert!(!is_never_reachable(ip(text)), "{text}");
        }
    }

    #[test]
    fn the_internet_is_what_is_public() {
        for text in
            ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1", "fd00::1", "fe80::1"]
        {
            assert!(is_private(ip(text)), "{text}");
        }
        assert!(is_private(ip("64:ff9b::a00:1")));
        for text in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(!is_private(ip(text)), "{text}");
        }
    }
}
