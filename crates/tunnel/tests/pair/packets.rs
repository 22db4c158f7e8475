//! Packets of applications and resources.

use std::net::{IpAddr, SocketAddr};

use adit_packet::build;
use adit_packet::checksum::Sum;
use adit_packet::{FlowTuple, PacketView, Quoted, TcpFlags, Transport, protocol};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

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
    // Like any kernel: a wrong checksum gets no answer.
    adit_packet::checksum::verify(packet).ok()?;
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

/// What an ICMP error says: (type, code), and the flow it speaks of.
pub(crate) fn icmp_error(packet: &[u8]) -> Option<((u8, u8), FlowTuple)> {
    let view = PacketView::parse(packet).ok()?;
    let Transport::IcmpError { kind, code } = view.transport() else { return None };
    Some(((kind, code), Quoted::parse(packet, &view).ok()?.flow()?))
}

/// "Communication administratively prohibited", as (type, code).
pub(crate) const PROHIBITED: (u8, u8) = (3, 13);
/// "Host unreachable", as (type, code).
pub(crate) const HOST_UNREACHABLE: (u8, u8) = (3, 1);

/// The type of an address record.
pub(crate) const A: u16 = 1;
/// The type of an IPv6 address record.
pub(crate) const AAAA: u16 = 28;

/// A DNS query.
pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&1_u16.to_be_bytes());
    message
}

/// The addresses in the answer section of a response to `query`, whose owner names are compressed.
pub(crate) fn addresses(query: &[u8], response: &[u8]) -> Vec<IpAddr> {
    let count = usize::from(u16::from_be_bytes([response[6], response[7]]));
    let mut rest = &response[query.len()..];
    let mut addresses = Vec::new();
    for _ in 0..count {
        assert_eq!(rest[0] & 0xc0, 0xc0, "a compressed owner name");
        let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        match rest[12..12 + length] {
            [a, b, c, d] => addresses.push(IpAddr::from([a, b, c, d])),
            ref octets => addresses.push(IpAddr::from(<[u8; 16]>::try_from(octets).expect("an address"))),
        }
        rest = &rest[12 + length..];
    }
    addresses
}
