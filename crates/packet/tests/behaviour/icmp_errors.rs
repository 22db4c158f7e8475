//! ICMP errors: made for the right packets only, followed by their flows, rewritten with what they quote.

use std::net::IpAddr;

use crate::samples::{Sample, assert_checksums, host, sample};
use adit_packet::{
    FlowTuple, IcmpError, NotAnswerable, PacketView, ParseError, Quoted, Rewrite, Transport, build,
    icmp_error,
};
use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4, icmpv6};
use proptest::prelude::*;

const ALL: [IcmpError; 6] = [
    IcmpError::NetworkUnreachable,
    IcmpError::HostUnreachable,
    IcmpError::PortUnreachable,
    IcmpError::AdministrativelyProhibited,
    IcmpError::PacketTooBig { mtu: 1280 },
    IcmpError::HopLimitExceeded,
];

/// A packet between ordinary hosts, sometimes larger than an error may quote.
fn ordinary() -> impl Strategy<Value = Sample> {
    (sample(), any::<(u16, u16)>(), 0..1500usize).prop_map(|(mut sample, (source, destination), length)| {
        let is_ipv4 = sample.source.is_ipv4();
        (sample.source, sample.destination) = (host(is_ipv4, source), host(is_ipv4, destination));
        sample.payload.resize(length, 7);
        sample
    })
}

fn own_address(sample: &Sample) -> IpAddr {
    if sample.source.is_ipv4() { "192.0.2.254".parse() } else { "2001:db8:ff::1".parse() }.expect("valid")
}

/// An error packet about `sample`, with the quotation cut to `quoted` bytes.
fn error_about(sample: &Sample, quoted: usize) -> Vec<u8> {
    let offending = sample.bytes();
    let quotation = &offending[..quoted.min(offending.len())];
    let router = own_address(sample);
    let (mut bytes, protocol) = match (router, sample.source) {
        (IpAddr::V4(router), IpAddr::V4(source)) => {
            let kind = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
            let builder = etherparse::PacketBuilder::ipv4(router.octets(), source.octets(), 64).icmpv4(kind);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, quotation).expect("valid");
            (bytes, 1)
        }
        (IpAddr::V6(router), IpAddr::V6(source)) => {
            let kind = Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
            let builder = etherparse::PacketBuilder::ipv6(router.octets(), source.octets(), 64).icmpv6(kind);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, quotation).expect("valid");
            (bytes, 58)
        }
        _ => unreachable!("one family"),
    };
    assert!(bytes[9] == protocol || bytes[6] == protocol);
    bytes.shrink_to_fit();
    bytes
}

/// Bytes that every router quotes: IP headers and 8 more.
fn least(sample: &Sample) -> usize {
    PacketView::parse(&sample.bytes()).expect("valid").transport_offset() + 8
}

proptest! {
    #[test]
    fn an_error_names_the_cause_and_quotes_the_packet(sample in ordinary(), error in prop::sample::select(&ALL)) {
        let offending = sample.bytes();
        let view = PacketView::parse(&offending).expect("valid");
        let answer = icmp_error(error, own_address(&sample), &offending, &view).expect("answerable");
        let limit = if view.is_ipv4() { 576 } else { 1280 };
        prop_assert!(answer.len() <= limit);
        prop_assert!(answer.len() == limit || answer.ends_with(&offending), "quotes as much as fits");
        assert_checksums(&answer);
        let seen = PacketView::parse(&answer).expect("valid");
        prop_assert_eq!((seen.source(), seen.destination()), (own_address(&sample), sample.source));
        prop_assert_eq!(Quoted::parse(&answer, &seen).expect("quotes").flow(), Some(sample.flow()));
        prop_assert_eq!(icmp_error(error, own_address(&sample), &answer, &seen), Err(NotAnswerable::IcmpError));
    }

    #[test]
    fn a_quotation_names_its_flow_however_short_it_is(sample in ordinary(), more in 0..60usize) {
        let bytes = error_about(&sample, least(&sample) + more);
        let view = PacketView::parse(&bytes).expect("valid");
        prop_assert_eq!(view.flow(), None, "an error is no flow of its own");
        prop_assert_eq!(Quoted::parse(&bytes, &view).expect("enough").flow(), Some(sample.flow()));
    }

    #[test]
    fn a_quotation_below_the_minimum_is_an_error(sample in ordinary(), quoted in any::<prop::sample::Index>()) {
        let bytes = error_about(&sample, quoted.index(least(&sample)));
        let view = PacketView::parse(&bytes).expect("valid");
        prop_assert!(Quoted::parse(&bytes, &view).is_err());
    }

    /// A flow was rewritten on its way out; the error about the rewritten packet must come back as if nothing happened.
    #[test]
    fn an_error_is_translated_back_with_what_it_quotes(
        sample in ordinary(), new_hosts in any::<(u16, u16)>(), ports in any::<(u16, u16)>(), more in 0..400usize
    ) {
        let is_ipv4 = sample.source.is_ipv4();
        // A quotation that ends inside the TCP checksum holds half of it, which nobody can update or check.
        prop_assume!(more != 9);
        let mut outside = sample.clone();
        (outside.source, outside.destination) = (host(is_ipv4, new_hosts.0), host(is_ipv4, new_hosts.1));
        (outside.source_port, outside.destination_port) = ports;
        let mut bytes = error_about(&outside, least(&sample) + more);
        let view = PacketView::parse(&bytes).expect("valid");
        let flow = sample.flow();
        let reverse = Rewrite {
            source: Some(flow.destination), source_port: Some(flow.destination_port),
            destination: Some(flow.source), destination_port: Some(flow.source_port),
        };
        reverse.apply_to_icmp_error(&mut bytes, &view).expect("well-formed");
        assert_checksums(&bytes);
        let view = PacketView::parse(&bytes).expect("valid");
        prop_assert_eq!((view.source(), view.destination()), (sample.destination, sample.source));
        prop_assert_eq!(Quoted::parse(&bytes, &view).expect("quotes").flow(), Some(sample.flow()));
        let quotation = &bytes[view.transport_offset() + 8..view.total_length()];
        prop_assert!(sample.bytes().starts_with(quotation), "the quotation is the original packet, checksums included");
    }
}

#[test]
fn codes_match_the_registries() {
    let v4 = build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), b"")
        .expect("fits");
    let v6 = build::udp("[fd00::1]:1".parse().expect("valid"), "[fd00::2]:2".parse().expect("valid"), b"")
        .expect("fits");
    let answer = |error, offending: &[u8]| {
        let view = PacketView::parse(offending).expect("valid");
        icmp_error(error, view.destination(), offending, &view).expect("answerable")
    };
    let v4_codes = ALL.map(|error| answer(error, &v4)[20..22].to_vec());
    assert_eq!(v4_codes, [[3, 0], [3, 1], [3, 3], [3, 13], [3, 4], [11, 0]].map(Vec::from));
    let v6_codes = ALL.map(|error| answer(error, &v6)[40..42].to_vec());
    assert_eq!(v6_codes, [[1, 0], [1, 3], [1, 4], [1, 1], [2, 0], [3, 0]].map(Vec::from));
}

#[test]
fn the_mtu_stands_where_path_mtu_discovery_looks_for_it() {
    let v6 = build::udp("[fd00::1]:1".parse().expect("valid"), "[fd00::2]:2".parse().expect("valid"), b"")
        .expect("fits");
    let view = PacketView::parse(&v6).expect("valid");
    let too_big = IcmpError::PacketTooBig { mtu: 70_000 };
    let answer = icmp_error(too_big, view.destination(), &v6, &view).expect("answerable");
    let sliced = SlicedPacket::from_ip(&answer).expect("valid");
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("not ICMPv6") };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 70_000 });
}

#[test]
fn packets_that_must_not_be_answered_are_not() {
    let answer = |source: &str, destination: &str, error| {
        let offending = build::udp(source.parse().expect("valid"), destination.parse().expect("valid"), b"x");
        let offending = offending.expect("fits");
        let view = PacketView::parse(&offending).expect("valid");
        let own = if view.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        icmp_error(error, own.parse().expect("valid"), &offending, &view).map(|_| ())
    };
    let prohibited = IcmpError::AdministrativelyProhibited;
    let too_big = IcmpError::PacketTooBig { mtu: 1280 };
    for source in ["0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "240.0.0.1:1"] {
        assert_eq!(answer(source, "10.0.0.1:1", prohibited), Err(NotAnswerable::Source), "{source}");
    }
    for source in ["[::]:1", "[::1]:1", "[ff02::1]:1"] {
        assert_eq!(answer(source, "[fd00::1]:1", prohibited), Err(NotAnswerable::Source), "{source}");
    }
    for destination in ["224.0.0.251:1", "255.255.255.255:1"] {
        assert_eq!(
            answer("10.0.0.1:1", destination, too_big),
            Err(NotAnswerable::Destination),
            "{destination}"
        );
    }
    assert_eq!(answer("[fd00::1]:1", "[ff0e::1]:1", prohibited), Err(NotAnswerable::Destination));
    assert_eq!(answer("[fd00::1]:1", "[ff0e::1]:1", too_big), Ok(()), "RFC 4443, 2.4(e.3)");
}

#[test]
fn redirects_and_later_fragments_get_no_answer_and_redirects_follow_no_flow() {
    let mut redirect =
        build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), &[0; 40])
            .expect("fits");
    (redirect[9], redirect[20], redirect[21]) = (1, 5, 0);
    let view = PacketView::parse(&redirect).expect("valid");
    assert_eq!(view.transport(), Transport::Icmp { kind: 5, code: 0 });
    assert_eq!(Quoted::parse(&redirect, &view).map(|_| ()), Err(ParseError::NotAnIcmpError));
    let answer = |packet: &[u8]| {
        let view = PacketView::parse(packet).expect("valid");
        icmp_error(IcmpError::HopLimitExceeded, "192.0.2.1".parse().expect("valid"), packet, &view)
    };
    assert_eq!(answer(&redirect), Err(NotAnswerable::IcmpError));
    (redirect[9], redirect[7]) = (17, 64);
    assert_eq!(answer(&redirect), Err(NotAnswerable::LaterFragment));
}

#[test]
fn a_quotation_of_the_other_family_is_refused() {
    let sample_v6 =
        build::udp("[fd00::1]:1".parse().expect("valid"), "[fd00::2]:2".parse().expect("valid"), b"");
    let carrier = build::udp(
        "10.0.0.1:1".parse().expect("valid"),
        "10.0.0.2:2".parse().expect("valid"),
        &sample_v6.expect("fits"),
    );
    let mut packet = carrier.expect("fits");
    (packet[9], packet[20], packet[21]) = (1, 3, 1);
    let view = PacketView::parse(&packet).expect("valid");
    assert_eq!(Quoted::parse(&packet, &view).map(|_| ()), Err(ParseError::UnknownVersion(6)));
}

#[test]
fn a_reply_direction_flow_reverses() {
    let flow = FlowTuple {
        protocol: 6,
        source: "10.0.0.1".parse().expect("valid"),
        destination: "10.0.0.2".parse().expect("valid"),
        source_port: 1,
        destination_port: 2,
    };
    assert_eq!(flow.reversed().reversed(), flow);
    assert_eq!((flow.reversed().source_port, flow.reversed().source), (2, flow.destination));
}
