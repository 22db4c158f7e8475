//! Packets of applications and resources.

use std::net::{IpAddr, SocketAddr};

use adit_packet::build;
use adit_packet::checksum::Sum;
use adit_packet::{PacketView, TcpFlags, protocol};

pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    build::udp(source, destination, payload).expect("one family")
}

pub(crate) fn ping(source: IpAddr, destination: IpAddr, identifier: u16) -> Vec<u8> {
    build::echo_request(build::Echo { source, destination, identifier, sequence: 1 }, b"ping")
        .expect("one family")
}

/// A TCP segment without payload, over IPv4 or IPv6.
pub(crate) fn tcp(source: SocketAddr, destination: SocketAddr, flags: TcpFlags) -> Vec<u8> {
    // A UDP datagram of the same length has the same IP header, but for the protocol.
    let mut packet = udp(source, destination, &[0; 12]);
    let at = packet.len() - 20;
    let segment = &mut packet[at..];
    segment.fill(0);
    segment[..2].copy_from_slice(&source.port().to_be_bytes());
    segment[2..4].copy_from_slice(&destination.port().to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags.0;
    let sum = Sum::new().pseudo_header(source.ip(), destination.ip(), protocol::TCP, 20).bytes(segment);
    let checksum = sum.checksum();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    if source.is_ipv4() {
        packet[9] = protocol::TCP;
        packet[10..12].fill(0);
        let header = Sum::new().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&header.to_be_bytes());
    } else {
        packet[6] = protocol::TCP;
    }
    packet
}

/// What a resource answers: UDP payloads come back, SYNs are accepted, pings returned.
pub(crate) fn answer_to(packet: &[u8]) -> Option<Vec<u8>> {
    let view = PacketView::parse(packet).ok()?;
    adit_packet::checksum::verify(packet).expect("whatever leaves a gateway has right checksums");
    match view.protocol() {
        protocol::UDP => {
            let payload = view.udp_payload(packet)?;
            Some(udp(view.destination_socket()?, view.source_socket()?, payload))
        }
        protocol::TCP if view.tcp_flags().opens_connection() => {
            let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
            Some(tcp(view.destination_socket()?, view.source_socket()?, flags))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let identifier = view.flow()?.source_port;
            let echo = build::Echo {
                source: view.destination(),
                destination: view.source(),
                identifier,
                sequence: 1,
            };
            build::echo_reply(echo, b"ping").ok()
        }
        _ => None,
    }
}
