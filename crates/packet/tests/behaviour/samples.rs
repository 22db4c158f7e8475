//! Packets made and checked by etherparse, which shares no code with this crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_packet::FlowTuple;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    Ipv6RawExtHeader, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
};
use proptest::prelude::*;

/// What a sample carries above IP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Tcp { syn: bool },
    Udp,
    Echo { request: bool },
}

/// The recipe of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) kind: Kind,
    pub(crate) hop_limit: u8,
    /// 32-bit words of IPv4 options, or number of IPv6 extension headers.
    pub(crate) extras: u8,
    pub(crate) payload: Vec<u8>,
}

impl Sample {
    pub(crate) fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp { .. } => 6,
            Kind::Udp => 17,
            Kind::Echo { .. } if self.source.is_ipv4() => 1,
            Kind::Echo { .. } => 58,
        }
    }

    /// The flow as this crate must see it.
    pub(crate) fn flow(&self) -> FlowTuple {
        let (source_port, destination_port) = match self.kind {
            Kind::Echo { .. } => (self.source_port, self.source_port),
            Kind::Tcp { .. } | Kind::Udp => (self.source_port, self.destination_port),
        };
        let (source, destination) = (self.source, self.destination);
        FlowTuple { protocol: self.protocol(), source, destination, source_port, destination_port }
    }

    /// The packet, with every checksum made by etherparse.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let step = PacketBuilder::ip(self.ip_headers());
        let mut bytes = Vec::new();
        let (source_port, destination_port, payload) =
            (self.source_port, self.destination_port, &self.payload);
        let written = match (self.kind, self.source) {
            (Kind::Tcp { syn }, _) => {
                let mut header = TcpHeader::new(source_port, destination_port, 0x0102_0304, 4096);
                header.syn = syn;
                header.ack = !syn;
                step.tcp_header(header).write(&mut bytes, payload)
            }
            (Kind::Udp, _) => step.udp(source_port, destination_port).write(&mut bytes, payload),
            (Kind::Echo { request: true }, IpAddr::V4(_)) => {
                step.icmpv4_echo_request(source_port, 7).write(&mut bytes, payload)
            }
            (Kind::Echo { request: false }, IpAddr::V4(_)) => {
                step.icmpv4_echo_reply(source_port, 7).write(&mut bytes, payload)
            }
            (Kind::Echo { request: true }, IpAddr::V6(_)) => {
                step.icmpv6_echo_request(source_port, 7).write(&mut bytes, payload)
            }
            (Kind::Echo { request: false }, IpAddr::V6(_)) => {
                step.icmpv6_echo_reply(source_port, 7).write(&mut bytes, payload)
            }
        };
        written.expect("a sample is a valid packet");
        bytes
    }

    fn ip_headers(&self) -> IpHeaders {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    0,
                    self.hop_limit,
                    IpNumber(self.protocol()),
                    source.octets(),
                    destination.octets(),
                )
                .expect("an empty payload fits");
                // Router alert (RFC 2113), as often as asked for.
                let options = [148, 4, 0, 0].repeat(self.extras.into());
                header.options = Ipv4Options::try_from(&options[..]).expect("at most 40 bytes");
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber(self.protocol()),
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                IpHeaders::Ipv6(header, self.extensions())
            }
            _ => unreachable!("samples have one family"),
        }
    }

    fn extensions(&self) -> Ipv6Extensions {
        // One PadN option (RFC 8200, 4.2) fills the smallest extension header.
        let padding = || Ipv6RawExtHeader::new_raw(IpNumber(0), &[1, 4, 0, 0, 0, 0]).expect("valid size");
        Ipv6Extensions {
            hop_by_hop_options: (self.extras > 0).then(padding),
            destination_options: (self.extras > 1).then(padding),
            ..Default::default()
        }
    }
}

/// Packets of all kinds and both families.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    let kind = prop_oneof![
        any::<bool>().prop_map(|syn| Kind::Tcp { syn }),
        Just(Kind::Udp),
        any::<bool>().prop_map(|request| Kind::Echo { request }),
    ];
    let rest = (any::<(u16, u16)>(), kind, 2..=255u8, 0..4u8, proptest::collection::vec(any::<u8>(), 0..80));
    (address_pair(), rest).prop_map(|((source, destination), (ports, kind, hop_limit, extras, payload))| {
        Sample {
            source,
            destination,
            source_port: ports.0,
            destination_port: ports.1,
            kind,
            hop_limit,
            extras,
            payload,
        }
    })
}

/// Two addresses of one family, anything goes.
fn address_pair() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

/// An ordinary host.
pub(crate) fn host(is_ipv4: bool, number: u16) -> IpAddr {
    if is_ipv4 {
        Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
    }
}

/// Asserts that etherparse recomputes every checksum of `packet` to what the packet says.
pub(crate) fn assert_checksums(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("etherparse reads the packet");
    match sliced.net.as_ref().expect("an IP packet") {
        NetSlice::Ipv4(ipv4) => {
            let header = ipv4.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header");
            assert_transport_v4(&sliced, header.source, header.destination);
        }
        NetSlice::Ipv6(ipv6) => {
            let header = ipv6.header().to_header();
            assert_transport_v6(&sliced, header.source, header.destination);
        }
        NetSlice::Arp(_) => panic!("not IP"),
    }
}

fn assert_transport_v4(packet: &SlicedPacket<'_>, source: [u8; 4], destination: [u8; 4]) {
    match packet.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(source, destination).expect("fits"), "TCP");
        }
        TransportSlice::Udp(udp) if udp.checksum() != 0 => {
            let header: UdpHeader = udp.to_header();
            let expected = header.calc_checksum_ipv4_raw(source, destination, udp.payload()).expect("fits");
            assert_eq!(udp.checksum(), expected, "UDP");
        }
        TransportSlice::Udp(_) => {}
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "ICMP");
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn assert_transport_v6(packet: &SlicedPacket<'_>, source: [u8; 16], destination: [u8; 16]) {
    match packet.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(source, destination).expect("fits"), "TCP");
        }
        TransportSlice::Udp(udp) => {
            let header: UdpHeader = udp.to_header();
            let expected = header.calc_checksum_ipv6_raw(source, destination, udp.payload()).expect("fits");
            assert_eq!(udp.checksum(), expected, "UDP");
        }
        TransportSlice::Icmpv6(icmp) => assert!(icmp.is_checksum_valid(source, destination), "ICMPv6"),
        other => panic!("unexpected {other:?}"),
    }
}
