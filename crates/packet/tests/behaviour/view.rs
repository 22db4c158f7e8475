//! The one-pass view reads what an independent builder wrote, and refuses what no receiver should act on.

use crate::samples::{Kind, Sample, sample};
use adit_packet::{PacketView, ParseError, TcpFlags, Transport, build, checksum};
use etherparse::SlicedPacket;
use proptest::prelude::*;

proptest! {
    #[test]
    fn the_view_agrees_with_the_builder(sample in sample(), padding in 0..40usize) {
        let mut bytes = sample.bytes();
        let length = bytes.len();
        bytes.resize(length + padding, 0xaa);
        let view = PacketView::parse(&bytes).expect("well-formed");
        prop_assert_eq!(view.flow(), Some(sample.flow()));
        prop_assert_eq!(view.total_length(), length);
        prop_assert_eq!(view.fragment(), None);
        prop_assert_eq!(view.tcp_flags().opens_connection(), sample.kind == Kind::Tcp { syn: true });
        if sample.kind == Kind::Udp {
            prop_assert_eq!(view.udp_payload(&bytes), Some(&sample.payload[..]));
        }
        prop_assert_eq!(checksum::verify(&bytes), Ok(()));
    }

    #[test]
    fn a_packet_cut_anywhere_is_an_error(sample in sample(), cut in any::<prop::sample::Index>()) {
        let bytes = sample.bytes();
        let shorter = &bytes[..cut.index(bytes.len())];
        prop_assert!(PacketView::parse(shorter).is_err());
    }

    #[test]
    fn one_wrong_bit_is_caught_by_full_verification(sample in sample(), bit in any::<prop::sample::Index>()) {
        let mut bytes = sample.bytes();
        let view = PacketView::parse(&bytes).expect("well-formed");
        // Behind the transport header every bit is covered; in IPv6 headers some are not.
        let first = view.transport_offset() * 8;
        let bit = first + bit.index(bytes.len() * 8 - first);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(checksum::verify(&bytes).is_err());
    }

    #[test]
    fn whatever_both_parsers_accept_they_read_alike(sample in sample(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = sample.bytes();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let (Ok(ours), Ok(theirs)) = (PacketView::parse(&bytes), SlicedPacket::from_ip(&bytes)) else { return Ok(()) };
        if let Some(etherparse::TransportSlice::Tcp(tcp)) = theirs.transport.as_ref() {
            prop_assert_eq!(ours.source_port(), Some(tcp.source_port()));
            prop_assert_eq!(ours.destination_port(), Some(tcp.destination_port()));
        }
        if let Some(etherparse::TransportSlice::Udp(udp)) = theirs.transport.as_ref() {
            prop_assert_eq!(ours.udp_payload(&bytes), Some(udp.payload()));
        }
    }
}

fn udp_v4() -> Vec<u8> {
    build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), b"12345678")
        .expect("fits")
}

fn udp_v6() -> Vec<u8> {
    build::udp("[fd00::1]:1".parse().expect("valid"), "[fd00::2]:2".parse().expect("valid"), b"12345678")
        .expect("fits")
}

/// Puts extension headers between the IPv6 header and the rest; the last one must name UDP.
fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut packet = udp_v6();
    packet[6] = first;
    let length = u16::from_be_bytes([packet[4], packet[5]]) + extensions.len() as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet.splice(40..40, extensions.iter().copied());
    packet
}

#[test]
fn emptiness_and_unknown_versions_are_named() {
    assert_eq!(PacketView::parse(&[]), Err(ParseError::Empty));
    assert_eq!(PacketView::parse(&[0x50; 40]), Err(ParseError::UnknownVersion(5)));
}

#[test]
fn ipv4_lengths_that_contradict_each_other_are_refused() {
    let mut short_header = udp_v4();
    short_header[0] = 0x44;
    assert_eq!(PacketView::parse(&short_header), Err(ParseError::HeaderLength));
    let mut total_below_header = udp_v4();
    total_below_header[2..4].copy_from_slice(&19u16.to_be_bytes());
    assert_eq!(PacketView::parse(&total_below_header), Err(ParseError::HeaderLength));
    let mut udp_beyond_packet = udp_v4();
    udp_beyond_packet[25] = 17;
    assert_eq!(PacketView::parse(&udp_beyond_packet), Err(ParseError::TransportLength));
}

#[test]
fn source_routes_are_refused_in_both_families() {
    let mut v4 = udp_v4();
    v4[0] = 0x47;
    v4[3] += 8;
    v4.splice(20..20, [1, 131, 7, 4, 192, 0, 2, 1]);
    assert_eq!(PacketView::parse(&v4), Err(ParseError::SourceRouted));
    let segments_left = with_extensions(43, &[17, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(PacketView::parse(&segments_left), Err(ParseError::SourceRouted));
    let arrived = with_extensions(43, &[17, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(PacketView::parse(&arrived).expect("no segments left").source_port(), Some(1));
}

#[test]
fn an_endless_chain_of_extension_headers_is_cut_off() {
    let chain = |count: usize| {
        let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        headers[(count - 1) * 8] = 17;
        with_extensions(60, &headers)
    };
    assert!(PacketView::parse(&chain(8)).is_ok());
    assert_eq!(PacketView::parse(&chain(9)), Err(ParseError::TooManyExtensions));
}

#[test]
fn an_extension_header_longer_than_the_packet_is_refused() {
    let packet = with_extensions(0, &[17, 200, 1, 4, 0, 0, 0, 0]);
    assert_eq!(PacketView::parse(&packet), Err(ParseError::TruncatedHeader));
}

#[test]
fn the_first_ipv4_fragment_has_ports_and_later_ones_have_none() {
    let mut first = udp_v4();
    first[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
    // The UDP length speaks of the whole datagram.
    first[24..26].copy_from_slice(&1000u16.to_be_bytes());
    let view = PacketView::parse(&first).expect("a fragment is a packet");
    assert_eq!(view.source_port(), Some(1));
    assert!(view.fragment().is_some_and(|fragment| fragment.more && fragment.offset == 0));
    assert_eq!(view.udp_payload(&first), None);
    let mut later = udp_v4();
    later[6..8].copy_from_slice(&3u16.to_be_bytes());
    let view = PacketView::parse(&later).expect("a fragment is a packet");
    assert_eq!((view.transport(), view.flow()), (Transport::LaterFragment, None));
    assert_eq!(view.fragment().map(|fragment| fragment.offset), Some(24));
}

#[test]
fn an_atomic_ipv6_fragment_is_whole_and_a_later_one_is_opaque() {
    let atomic = with_extensions(44, &[17, 0, 0, 0, 0, 0, 0, 9]);
    let view = PacketView::parse(&atomic).expect("valid");
    assert_eq!((view.fragment(), view.source_port()), (None, Some(1)));
    let later = with_extensions(44, &[17, 0, 0, 8, 0, 0, 0, 9]);
    let view = PacketView::parse(&later).expect("valid");
    assert_eq!((view.transport(), view.protocol()), (Transport::LaterFragment, 17));
    assert_eq!(view.fragment().map(|fragment| fragment.identification), Some(9));
}

#[test]
fn a_fragment_may_not_overwrite_the_tcp_flags() {
    // RFC 3128: offset 8 lands on the second half of the TCP header.
    let mut packet = udp_v4();
    packet[6..8].copy_from_slice(&1u16.to_be_bytes());
    packet[9] = 6;
    assert_eq!(PacketView::parse(&packet), Err(ParseError::OverlappingFragment));
}

#[test]
fn flags_print_as_letters() {
    assert_eq!(format!("{:?}", TcpFlags(0x12)), "TcpFlags(SA)");
}

#[test]
fn a_view_stays_small() {
    assert!(size_of::<PacketView>() <= 72, "{}", size_of::<PacketView>());
}

#[test]
fn samples_cover_options_and_extensions() {
    let sample = Sample {
        source: "fd00::1".parse().expect("valid"),
        destination: "fd00::2".parse().expect("valid"),
        source_port: 1,
        destination_port: 2,
        kind: Kind::Udp,
        hop_limit: 9,
        extras: 2,
        payload: vec![],
    };
    assert_eq!(PacketView::parse(&sample.bytes()).expect("valid").transport_offset(), 56);
}
