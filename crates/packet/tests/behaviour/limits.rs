//! Packets that are longer than a path carries: cut where that changes nothing, else left alone.

use adit_packet::offload::{SuperPacket, VirtioHeader};
use adit_packet::{PacketView, build};
use proptest::prelude::*;

use crate::samples::assert_checksums;
use crate::streams::stream;

const DONT_FRAGMENT: u8 = 0x40;

fn pieces(packet: &SuperPacket<'_>) -> Vec<Vec<u8>> {
    let segments = packet.segments();
    let write = |index| {
        let mut out = vec![0; segments.length(index)];
        assert_eq!(segments.write(index, &mut out), out.len());
        out
    };
    (0..segments.count()).map(write).collect()
}

fn payload_of(packet: &[u8]) -> Vec<u8> {
    let sliced = etherparse::SlicedPacket::from_ip(packet).expect("valid");
    match sliced.transport {
        Some(etherparse::TransportSlice::Tcp(tcp)) => tcp.payload().to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A datagram of `length` bytes, all in all.
fn datagram(length: usize, is_ipv4: bool) -> Vec<u8> {
    let ends = if is_ipv4 { ["10.0.0.1:7", "10.0.0.2:9"] } else { ["[fd00::1]:7", "[fd00::2]:9"] };
    let [from, to] = ends.map(|end| end.parse().expect("a socket"));
    let headers = if is_ipv4 { 28 } else { 48 };
    let payload: Vec<u8> = (0..length - headers).map(|at| at as u8).collect();
    build::udp(from, to, &payload).expect("one family")
}

/// Without "don't fragment", and with that an identification.
fn fragmentable(length: usize) -> Vec<u8> {
    let mut packet = datagram(length, true);
    packet[4..6].copy_from_slice(&[0xab, 0xcd]);
    packet[6] &= !DONT_FRAGMENT;
    packet[10..12].fill(0);
    let sum =
        etherparse::Ipv4HeaderSlice::from_slice(&packet).expect("valid").to_header().calc_header_checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

proptest! {
    #[test]
    fn tcp_is_cut_again_and_says_the_same(stream in stream(), longest in 100usize..2_000, is_single in any::<bool>()) {
        let (mut header, mut bytes) = stream.super_packet();
        if is_single {
            // As it would come from a network, with all checksums made.
            (header, bytes) = (VirtioHeader::NONE, stream.segment(0));
        }
        let whole = bytes.clone();
        let mut packet = SuperPacket::new(header, &mut bytes).expect("valid");
        let before = pieces(&packet);
        let fits = before.iter().all(|piece| piece.len() <= longest);
        let is_limited = packet.limit(longest);
        let may_be_fragmented = is_single && stream.is_ipv4 && !stream.dont_fragment;
        prop_assert_eq!(is_limited, fits || stream.is_tcp || may_be_fragmented);
        let after = pieces(&packet);
        if !is_limited || fits {
            prop_assert_eq!(after, before);
            return Ok(());
        }
        if !stream.is_tcp {
            return Ok(());
        }
        let mut sent = Vec::new();
        for piece in &after {
            prop_assert!(piece.len() <= longest);
            assert_checksums(piece);
            sent.extend(payload_of(piece));
        }
        prop_assert_eq!(&whole[whole.len() - sent.len()..], &sent[..]);
        let sequence = |packet: &[u8]| {
            let at = PacketView::parse(packet).expect("valid").transport_offset() + 4;
            u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"))
        };
        let mut next = sequence(&before[0]);
        for piece in &after {
            prop_assert_eq!(sequence(piece), next);
            next = next.wrapping_add(payload_of(piece).len() as u32);
        }
    }

    #[test]
    fn a_damaged_segment_is_not_repaired(stream in stream(), mask in 1u8..) {
        prop_assume!(stream.is_tcp && stream.payload.len() > 1);
        let mut bytes = stream.segment(0);
        let longest = bytes.len() - 1;
        prop_assume!(longest > stream.transport_offset() + 60);
        let mut packet = SuperPacket::new(VirtioHeader::NONE, &mut bytes).expect("valid");
        prop_assert!(packet.limit(longest), "an intact one can be cut");
        bytes[longest] ^= mask;
        let mut packet = SuperPacket::new(VirtioHeader::NONE, &mut bytes).expect("valid");
        prop_assert!(stream.is_ipv4 && !stream.dont_fragment || !packet.limit(longest));
    }

    #[test]
    fn what_may_be_fragmented_is_put_together_again(length in 200usize..4_000, longest in 68usize..1_600) {
        let mut bytes = fragmentable(length);
        let whole = bytes.clone();
        let mut packet = SuperPacket::new(VirtioHeader::NONE, &mut bytes).expect("valid");
        prop_assert!(packet.limit(longest));
        prop_assert!(!packet.is_segmented(), "its checksum is complete");
        let mut together = whole[..20].to_vec();
        let fragments = pieces(&packet);
        for (index, fragment) in fragments.iter().enumerate() {
            prop_assert!(fragment.len() <= longest);
            let header = etherparse::Ipv4HeaderSlice::from_slice(fragment).expect("valid");
            prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            prop_assert_eq!(header.identification(), 0xabcd);
            prop_assert_eq!(usize::from(header.fragments_offset().value()) * 8, together.len() - 20);
            prop_assert_eq!(header.more_fragments(), index + 1 < fragments.len());
            together.extend_from_slice(&fragment[20..]);
        }
        prop_assert_eq!(&together[20..], &whole[20..]);
    }
}

#[test]
fn what_must_stay_whole_is_left_alone() {
    for mut bytes in [datagram(1_400, true), datagram(1_400, false)] {
        let whole = bytes.clone();
        let mut packet = SuperPacket::new(VirtioHeader::NONE, &mut bytes).expect("valid");
        assert!(!packet.limit(1_280));
        assert_eq!(pieces(&packet), [whole.clone()]);
        assert!(packet.limit(1_400));
    }
}
