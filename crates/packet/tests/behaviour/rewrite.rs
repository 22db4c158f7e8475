//! NAT leaves packets that an independent checksummer accepts, and undoing it leaves no trace.

use std::net::IpAddr;

use crate::samples::{Kind, Sample, assert_checksums, host, sample};
use adit_packet::{PacketView, Rewrite, RewriteError, build, checksum};
use proptest::prelude::*;

/// Any subset of the four changes.
fn changes() -> impl Strategy<Value = ([bool; 4], (u16, u16))> {
    any::<([bool; 4], (u16, u16))>()
}

fn rewrite(wanted: [bool; 4], source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> Rewrite {
    Rewrite {
        source: wanted[0].then_some(source),
        destination: wanted[1].then_some(destination),
        source_port: wanted[2].then_some(ports.0),
        destination_port: wanted[3].then_some(ports.1),
    }
}

/// The recipe of the packet that the rewrite should produce.
fn rewritten(sample: &Sample, rewrite: &Rewrite) -> Sample {
    let mut new = sample.clone();
    new.source = rewrite.source.unwrap_or(sample.source);
    new.destination = rewrite.destination.unwrap_or(sample.destination);
    new.source_port = rewrite.source_port.unwrap_or(sample.source_port);
    new.destination_port = rewrite.destination_port.unwrap_or(sample.destination_port);
    if matches!(sample.kind, Kind::Echo { .. }) {
        new.source_port = rewrite.source_port.or(rewrite.destination_port).unwrap_or(sample.source_port);
    }
    new
}

fn restoring(sample: &Sample) -> Rewrite {
    let flow = sample.flow();
    Rewrite {
        source: Some(flow.source),
        destination: Some(flow.destination),
        source_port: Some(flow.source_port),
        destination_port: Some(flow.destination_port),
    }
}

proptest! {
    #[test]
    fn a_rewritten_packet_equals_one_built_anew(
        sample in sample(), v4 in any::<[std::net::Ipv4Addr; 2]>(), v6 in any::<[std::net::Ipv6Addr; 2]>(), (wanted, ports) in changes()
    ) {
        let pair = if sample.source.is_ipv4() { v4.map(IpAddr::from) } else { v6.map(IpAddr::from) };
        let rewrite = rewrite(wanted, pair[0], pair[1], ports);
        let mut bytes = sample.bytes();
        bytes.extend_from_slice(&[0xaa; 5]);
        let view = PacketView::parse(&bytes).expect("valid");
        rewrite.apply(&mut bytes, &view).expect("same family");
        prop_assert_eq!(&bytes[view.total_length()..], &[0xaa; 5], "padding stays");
        bytes.truncate(view.total_length());
        assert_checksums(&bytes);
        let expected = rewritten(&sample, &rewrite);
        prop_assert_eq!(&bytes, &expected.bytes());
        let view = PacketView::parse(&bytes).expect("valid");
        prop_assert_eq!(view.flow(), Some(expected.flow()));
        restoring(&sample).apply(&mut bytes, &view).expect("same family");
        prop_assert_eq!(bytes, sample.bytes());
    }

    #[test]
    fn a_wrong_checksum_is_not_laundered(sample in sample(), flip in 1..=u8::MAX) {
        let mut bytes = sample.bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= flip;
        let Ok(view) = PacketView::parse(&bytes) else { return Ok(()) };
        prop_assume!(checksum::verify(&bytes).is_err());
        let rewrite = Rewrite { source: Some(view.destination()), source_port: Some(9), ..Rewrite::NONE };
        rewrite.apply(&mut bytes, &view).expect("same family");
        prop_assert!(checksum::verify(&bytes).is_err());
    }

    #[test]
    fn the_other_family_is_refused_and_nothing_changes(sample in sample(), number in any::<u16>()) {
        let other = host(!sample.source.is_ipv4(), number);
        let mut bytes = sample.bytes();
        let view = PacketView::parse(&bytes).expect("valid");
        let rewrite = Rewrite { destination: Some(other), source_port: Some(1), ..Rewrite::NONE };
        prop_assert_eq!(rewrite.apply(&mut bytes, &view), Err(RewriteError::FamilyMismatch));
        prop_assert_eq!(bytes, sample.bytes());
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut packet =
        build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), b"x")
            .expect("fits");
    packet[26..28].fill(0);
    let view = PacketView::parse(&packet).expect("valid");
    let rewrite = Rewrite { source: "192.0.2.1".parse().ok(), source_port: Some(99), ..Rewrite::NONE };
    rewrite.apply(&mut packet, &view).expect("same family");
    assert_eq!(packet[26..28], [0, 0]);
    assert_eq!(checksum::verify(&packet), Ok(()));
}

#[test]
fn a_udp_checksum_that_sums_to_zero_is_sent_as_ones() {
    // Among all source ports there is one for which the sum comes out as zero (RFC 768).
    let original =
        build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), b"x")
            .expect("fits");
    let view = PacketView::parse(&original).expect("valid");
    let mut ones = 0;
    for port in 0..=u16::MAX {
        let mut packet = original.clone();
        Rewrite { source_port: Some(port), ..Rewrite::NONE }.apply(&mut packet, &view).expect("valid");
        assert_ne!(packet[26..28], [0, 0], "port {port} lost its checksum");
        ones += u32::from(packet[26..28] == [0xff, 0xff]);
    }
    assert!(ones >= 1);
}

#[test]
fn later_fragments_change_addresses_only() {
    let mut packet =
        build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), b"data")
            .expect("fits");
    packet[6..8].copy_from_slice(&185u16.to_be_bytes());
    let payload = packet[20..].to_vec();
    let view = PacketView::parse(&packet).expect("valid");
    let rewrite =
        Rewrite { destination: "192.0.2.1".parse().ok(), destination_port: Some(99), ..Rewrite::NONE };
    rewrite.apply(&mut packet, &view).expect("same family");
    assert_eq!(packet[20..], payload);
    assert_eq!(PacketView::parse(&packet).map(|view| Some(view.destination())), Ok(rewrite.destination));
}

#[test]
fn a_view_of_a_longer_packet_is_refused() {
    let long =
        build::udp("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"), &[0; 100]);
    let view = PacketView::parse(&long.expect("fits")).expect("valid");
    let mut short = [0; 40];
    assert_eq!(Rewrite::NONE.apply(&mut short, &view), Err(RewriteError::WrongView));
    assert_eq!(Rewrite::NONE.apply_to_icmp_error(&mut short, &view), Err(RewriteError::WrongView));
}
