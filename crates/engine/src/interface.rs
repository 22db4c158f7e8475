//! From what a machine wants of its interface to what the platform sets.

use adit_platform::network::NetworkState;
use adit_tunnel::Interface;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::outgoing;

/// The network state of the interface called `name`.
///
/// `makes_super_packets` says that what leaves through the interface begins on this host, as on a client. The host then
/// makes super-packets that fit one call to send. Those of others, which a gateway forwards, it could only cut.
pub(crate) fn network_state(name: &str, interface: &Interface, makes_super_packets: bool) -> NetworkState {
    let mut routes = interface.routes.clone();
    if interface.default_route {
        routes.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
    }
    NetworkState {
        interface: name.to_owned(),
        mtu: u32::from(interface.mtu),
        super_packet: makes_super_packets.then(|| longest_super_packet(interface.mtu)),
        addresses: vec![
            IpNet::from(std::net::IpAddr::V4(interface.ipv4)),
            IpNet::from(std::net::IpAddr::V6(interface.ipv6)),
        ],
        routes,
    }
}

/// Bytes of a super-packet whose segments leave in one call.
///
/// The kernel keeps some room for headers when it fills a super-packet, 320 bytes on all common machines.
fn longest_super_packet(mtu: u16) -> u32 {
    const IP_AND_TCP: usize = 40;
    const ROOM: usize = 300;
    let mtu = usize::from(mtu);
    let together = outgoing::together(mtu + adit_dataplane::OVERHEAD);
    let bytes = together * (mtu - IP_AND_TCP) + ROOM;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segments_of_a_super_packet_leave_together() {
        for mtu in [1_280, 1_420, 1_440, 8_940] {
            let payload = longest_super_packet(mtu) as usize - 321;
            // With and without timestamps.
            for headers in [40, 52] {
                let segments = payload / (usize::from(mtu) - headers);
                let datagram = usize::from(mtu) + adit_dataplane::OVERHEAD;
                assert!(segments <= outgoing::together(datagram), "{mtu}");
                assert!((segments + 2) * datagram > 65_507, "{mtu}: not much smaller than need be");
            }
        }
    }
}
