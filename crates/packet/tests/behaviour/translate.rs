//! Packets that change their IP family are what an independent builder would have made in the other one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_packet::{
    IcmpError, PacketView, Quoted, Rewrite, TranslateError, Transport, build, checksum, icmp_error,
};
use proptest::prelude::*;

use crate::samples::{Kind, Sample, assert_checksums, host, sample};

const IDENTIFICATION: u16 = 0x1234;

fn view(packet: &[u8]) -> PacketView {
    PacketView::parse(packet).expect("valid")
}

fn translate_into(packet: &[u8], rewrite: &Rewrite, room: usize) -> Result<Vec<u8>, TranslateError> {
    let mut out = vec![0xaa; room];
    let length = rewrite.translate(packet, &view(packet), IDENTIFICATION, &mut out)?;
    out.truncate(length);
    Ok(out)
}

fn translate(packet: &[u8], rewrite: &Rewrite) -> Result<Vec<u8>, TranslateError> {
    translate_into(packet, rewrite, 70_000)
}

fn to(source: IpAddr, destination: IpAddr) -> Rewrite {
    Rewrite { source: Some(source), destination: Some(destination), ..Rewrite::NONE }
}

/// From the client's tunnel address to its proxy address, and from its other address to the real one.
fn ends(is_ipv4: bool) -> (Rewrite, [IpAddr; 2]) {
    let [client, proxy] = [1, 2].map(|number| host(is_ipv4, number));
    let [source, real] = [3, 4].map(|number| host(!is_ipv4, number));
    (Rewrite { source_port: Some(61_000), destination_port: Some(8443), ..to(source, real) }, [client, proxy])
}

/// What undoes a rewrite, for packets the other way.
fn back([client, proxy]: [IpAddr; 2]) -> Rewrite {
    Rewrite { source_port: Some(443), destination_port: Some(4000), ..to(proxy, client) }
}

fn udp(ends: [IpAddr; 2], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    build::udp((ends[0], ports[0]).into(), (ends[1], ports[1]).into(), payload).expect("one family")
}

/// The recipe of the same packet in the other family.
fn counterpart(sample: &Sample, v4: [Ipv4Addr; 2], v6: [Ipv6Addr; 2], ports: (u16, u16)) -> Sample {
    let [source, destination] =
        if sample.source.is_ipv4() { v6.map(IpAddr::from) } else { v4.map(IpAddr::from) };
    let (source_port, destination_port) = ports;
    Sample { source, destination, source_port, destination_port, extras: 0, ..sample.clone() }
}

proptest! {
    #[test]
    fn a_translated_packet_equals_one_built_anew(
        sample in sample(), v4 in any::<[Ipv4Addr; 2]>(), v6 in any::<[Ipv6Addr; 2]>(), ports in any::<(u16, u16)>()
    ) {
        let expected = counterpart(&sample, v4, v6, ports);
        let rewrite = Rewrite {
            source_port: Some(ports.0),
            destination_port: Some(ports.1),
            ..to(expected.source, expected.destination)
        };
        let mut original = sample.bytes();
        original.extend_from_slice(&[0xaa; 5]);
        prop_assert!(rewrite.changes_family(sample.source.is_ipv4()));
        let translated = translate(&original, &rewrite).expect("the other family");
        assert_checksums(&translated);
        prop_assert_eq!(view(&translated).flow(), Some(expected.flow()));
        let expected = expected.bytes();
        if sample.source.is_ipv4() {
            prop_assert_eq!(&translated, &expected);
        } else {
            // etherparse forbids fragmentation, which a packet of this length may undergo (RFC 7915, 5.1).
            prop_assert_eq!(&translated[..4], &expected[..4]);
            prop_assert_eq!(&translated[4..8], &[0x12, 0x34, 0, 0]);
            prop_assert_eq!(&translated[8..10], &expected[8..10]);
            prop_assert_eq!(&translated[12..], &expected[12..]);
        }
    }

    #[test]
    fn a_wrong_checksum_is_not_laundered(sample in sample(), flip in 1..=u8::MAX) {
        let mut bytes = sample.bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= flip;
        let Ok(view) = PacketView::parse(&bytes) else { return Ok(()) };
        prop_assume!(checksum::verify(&bytes).is_err());
        let (rewrite, _) = ends(view.is_ipv4());
        if let Ok(translated) = translate(&bytes, &rewrite) {
            prop_assert!(checksum::verify(&translated).is_err());
        }
    }

    #[test]
    fn an_error_comes_back_in_the_family_of_the_packet_that_caused_it(
        is_ipv4 in any::<bool>(), payload in 0..1400_usize, room in 0..700_usize
    ) {
        let (forward, ends) = ends(is_ipv4);
        let sent = udp(ends, [4000, 443], &vec![7; payload]);
        let beyond = translate(&sent, &forward).expect("the other family");
        let router = host(!is_ipv4, 9);
        let error = icmp_error(IcmpError::PortUnreachable, router, &beyond, &view(&beyond)).expect("an error");
        let reverse = back(ends);
        let answer = translate(&error, &reverse).expect("a counterpart");
        assert_checksums(&answer);
        let (kind, code) = if is_ipv4 { (3, 3) } else { (1, 4) };
        prop_assert_eq!(view(&answer).transport(), Transport::IcmpError { kind, code });
        prop_assert_eq!((view(&answer).source(), view(&answer).destination()), (ends[1], ends[0]));
        let quoted = Quoted::parse(&answer, &view(&answer)).expect("a quotation");
        prop_assert_eq!(quoted.flow(), view(&sent).flow());
        // What is quoted is what was sent, but for the fields that say whether it may be fragmented.
        let quotation = &answer[view(&answer).transport_offset() + 8..];
        if is_ipv4 {
            prop_assert_eq!(&quotation[12..], &sent[12..quotation.len()]);
        } else {
            prop_assert_eq!(quotation, &sent[..quotation.len()]);
        }
        let longest = if is_ipv4 { 576 } else { 1280 };
        prop_assert!(answer.len() <= longest);
        match translate_into(&error, &reverse, room) {
            Ok(shorter) => {
                prop_assert!(shorter.len() <= room);
                assert_checksums(&shorter);
            }
            Err(error) => prop_assert_eq!(error, TranslateError::TooLong),
        }
    }

    #[test]
    fn a_packet_that_does_not_fit_is_refused(sample in sample(), missing in 1..100_usize) {
        let (rewrite, _) = ends(sample.source.is_ipv4());
        let bytes = sample.bytes();
        let length = translate(&bytes, &rewrite).expect("the other family").len();
        let room = length.saturating_sub(missing);
        prop_assert_eq!(translate_into(&bytes, &rewrite, room), Err(TranslateError::TooLong));
    }
}

#[test]
fn traffic_class_and_hop_limit_are_kept() {
    for is_ipv4 in [true, false] {
        let (rewrite, ends) = ends(is_ipv4);
        let mut packet = udp(ends, [1, 2], b"x");
        if is_ipv4 {
            (packet[1], packet[8]) = (0xb9, 17);
        } else {
            (packet[0], packet[1], packet[7]) = (0x6b, 0x90, 17);
        }
        let translated = translate(&packet, &rewrite).expect("the other family");
        if is_ipv4 {
            assert_eq!((&translated[..4], translated[7]), (&[0x6b, 0x90, 0, 0][..], 17));
        } else {
            assert_eq!((translated[1], translated[8]), (0xb9, 17));
        }
    }
}

#[test]
fn longer_packets_than_every_link_carries_are_not_fragmented() {
    let (rewrite, ends) = ends(false);
    for (payload, fragment) in [(1232, 0), (1233, 0x40)] {
        let translated = translate(&udp(ends, [1, 2], &vec![0; payload]), &rewrite).expect("fits");
        assert_eq!((translated.len(), translated[6]), (payload + 28, fragment));
    }
}

#[test]
fn a_missing_udp_checksum_is_made_for_ipv6() {
    let (rewrite, ends) = ends(true);
    let mut packet = udp(ends, [4000, 443], b"hello");
    packet[26..28].fill(0);
    let translated = translate(&packet, &rewrite).expect("the other family");
    assert_eq!(translated, translate(&udp(ends, [4000, 443], b"hello"), &rewrite).expect("the other family"));
}

#[test]
fn a_missing_udp_checksum_over_ipv6_is_not_made_good() {
    let (rewrite, ends) = ends(false);
    let mut packet = udp(ends, [4000, 443], b"hello");
    packet[46..48].fill(0);
    assert_eq!(translate(&packet, &rewrite), Err(TranslateError::Checksum));
}

#[test]
fn fragments_are_refused() {
    let (rewrite, ends) = ends(true);
    for field in [0x2000_u16, 0x2001, 0x0001] {
        let mut packet = udp(ends, [4000, 443], b"hello");
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        assert_eq!(translate(&packet, &rewrite), Err(TranslateError::Fragment));
    }
}

#[test]
fn other_protocols_and_messages_have_no_counterpart() {
    let (rewrite, ends) = ends(true);
    let mut packet = udp(ends, [4000, 443], b"hello");
    packet[9] = 47;
    assert_eq!(translate(&packet, &rewrite), Err(TranslateError::NoCounterpart), "GRE");
    let mut ping = Sample {
        source: ends[0],
        destination: ends[1],
        source_port: 7,
        destination_port: 7,
        kind: Kind::Echo { request: true },
        hop_limit: 9,
        extras: 0,
        payload: vec![0; 12],
    }
    .bytes();
    ping[20] = 13;
    assert_eq!(translate(&ping, &rewrite), Err(TranslateError::NoCounterpart), "a timestamp");
}

#[test]
fn addresses_of_one_family_are_no_translation() {
    for is_ipv4 in [true, false] {
        let (_, ends) = ends(is_ipv4);
        let packet = udp(ends, [4000, 443], b"hello");
        let mixed = to(host(is_ipv4, 5), host(!is_ipv4, 5));
        let half = Rewrite { source: Some(host(!is_ipv4, 5)), ..Rewrite::NONE };
        for rewrite in [Rewrite::NONE, to(host(is_ipv4, 5), host(is_ipv4, 6)), mixed, half] {
            assert_eq!(translate(&packet, &rewrite), Err(TranslateError::FamilyMismatch));
        }
    }
}

#[test]
fn what_a_router_carries_is_told_in_the_other_family() {
    for (is_ipv4, said, told) in
        [(true, 1400, 1380), (true, 1280, 1260), (false, 1400, 1420), (false, 600, 1280)]
    {
        let (forward, ends) = ends(is_ipv4);
        let sent = udp(ends, [4000, 443], &[7; 1400]);
        let beyond = translate(&sent, &forward).expect("the other family");
        let error = IcmpError::PacketTooBig { mtu: said };
        let error = icmp_error(error, host(!is_ipv4, 9), &beyond, &view(&beyond)).expect("an error");
        let answer = translate(&error, &back(ends)).expect("a counterpart");
        let at = view(&answer).transport_offset();
        let kind = if is_ipv4 { [3, 4] } else { [2, 0] };
        assert_eq!(answer[at..at + 2], kind);
        assert_eq!(answer[at + 4..at + 8], u32::to_be_bytes(told), "{said}");
    }
}

#[test]
fn an_error_that_was_damaged_is_refused() {
    let (forward, ends) = ends(true);
    let beyond = translate(&udp(ends, [4000, 443], b"hello"), &forward).expect("the other family");
    let error = icmp_error(IcmpError::HostUnreachable, host(false, 9), &beyond, &view(&beyond));
    let mut error = error.expect("an error");
    let last = error.len() - 1;
    error[last] ^= 1;
    assert_eq!(translate(&error, &back(ends)), Err(TranslateError::Checksum));
}

#[test]
fn an_error_about_an_echo_is_translated() {
    for is_ipv4 in [true, false] {
        let (forward, ends) = ends(is_ipv4);
        let echo = build::Echo { source: ends[0], destination: ends[1], identifier: 7, sequence: 1 };
        let sent = build::echo_request(echo, b"ping").expect("one family");
        let beyond = translate(&sent, &forward).expect("the other family");
        let error = icmp_error(IcmpError::HopLimitExceeded, host(!is_ipv4, 9), &beyond, &view(&beyond));
        let reverse = Rewrite { source_port: Some(7), destination_port: Some(7), ..back(ends) };
        let answer = translate(&error.expect("an error"), &reverse).expect("a counterpart");
        assert_checksums(&answer);
        let quoted = Quoted::parse(&answer, &view(&answer)).expect("a quotation");
        assert_eq!(quoted.flow(), view(&sent).flow());
        let at = view(&answer).transport_offset() + 8;
        let start = if is_ipv4 { 20 } else { 40 };
        assert_eq!(answer[at + start..], sent[start..], "type and checksum of the echo too");
    }
}
