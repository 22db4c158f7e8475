//! Super-packets: cut as their sender would have cut them, and never beyond their bytes.

use std::net::IpAddr;

use crate::samples::{Kind, assert_checksums, host, sample};
use crate::streams::{Stream, plain_stream, stream};
use adit_packet::offload::{OffloadError, Segmentation, SuperPacket, VirtioHeader, complete};
use adit_packet::{PacketView, ParseError, Rewrite, checksum};
use proptest::prelude::*;

fn cut(packet: &SuperPacket<'_>) -> Vec<Vec<u8>> {
    let segments = packet.segments();
    let write = |index| {
        let mut out = vec![0; segments.length(index)];
        assert_eq!(segments.write(index, &mut out), out.len());
        out
    };
    (0..segments.count()).map(write).collect()
}

fn any_header() -> impl Strategy<Value = VirtioHeader> {
    let kinds = [Segmentation::None, Segmentation::TcpV4, Segmentation::TcpV6, Segmentation::Udp];
    let small_or_any = || prop_oneof![0..80u16, any::<u16>()];
    let fields = (small_or_any(), small_or_any(), small_or_any(), small_or_any());
    (any::<(bool, bool, bool)>(), prop::sample::select(kinds.to_vec()), fields).prop_map(
        |(flags, segmentation, fields)| VirtioHeader {
            needs_checksum: flags.0,
            data_valid: flags.1,
            ecn: flags.2,
            segmentation,
            header_length: fields.0,
            segment_size: fields.1,
            checksum_start: fields.2,
            checksum_offset: fields.3,
        },
    )
}

proptest! {
    #[test]
    fn every_segment_is_what_its_sender_would_have_sent(stream in stream()) {
        let (header, mut bytes) = stream.super_packet();
        let packet = SuperPacket::new(header, &mut bytes).expect("as the kernel makes it");
        prop_assert_eq!(packet.segment_count(), stream.count());
        for (index, segment) in cut(&packet).iter().enumerate() {
            prop_assert_eq!(segment, &stream.segment(index), "segment {}", index);
            assert_checksums(segment);
        }
    }

    #[test]
    fn rewriting_the_whole_rewrites_every_segment(stream in stream(), hosts in any::<(u16, u16)>(), ports in any::<(u16, u16)>()) {
        let rewrite = Rewrite {
            source: Some(host(stream.is_ipv4, hosts.0)), destination: Some(host(stream.is_ipv4, hosts.1)),
            source_port: Some(ports.0), destination_port: Some(ports.1),
        };
        let (header, mut bytes) = stream.super_packet();
        let mut packet = SuperPacket::new(header, &mut bytes).expect("valid");
        packet.rewrite(&rewrite).expect("one family");
        for (index, segment) in cut(&packet).iter().enumerate() {
            let mut expected = stream.segment(index);
            let view = PacketView::parse(&expected).expect("valid");
            rewrite.apply(&mut expected, &view).expect("one family");
            prop_assert_eq!(segment, &expected);
        }
    }

    #[test]
    fn a_partial_checksum_follows_the_addresses_alone(stream in stream(), hosts in any::<(u16, u16)>(), port in any::<u16>()) {
        let (_, mut bytes) = stream.super_packet();
        let view = PacketView::parse(&bytes).expect("valid");
        let (source, destination) = (host(stream.is_ipv4, hosts.0), host(stream.is_ipv4, hosts.1));
        let rewrite = Rewrite { source: Some(source), destination: Some(destination), source_port: Some(port), destination_port: None };
        rewrite.apply_partial(&mut bytes, &view).expect("one family");
        let at = stream.transport_offset();
        let length = (bytes.len() - at) as u32;
        let expected = checksum::Sum::new().pseudo_header(source, destination, view.protocol(), length).folded();
        let field = at + stream.checksum_offset();
        prop_assert_eq!(u16::from_be_bytes([bytes[field], bytes[field + 1]]), expected);
        let after = PacketView::parse(&bytes).expect("valid");
        prop_assert_eq!((after.source(), after.source_port()), (source, Some(port)));
    }

    #[test]
    fn a_partial_checksum_is_completed(sample in sample(), garbage in any::<u16>()) {
        let complete_packet = sample.bytes();
        let view = PacketView::parse(&complete_packet).expect("valid");
        let mut bytes = complete_packet.clone();
        let at = view.transport_offset();
        let (offset, partial) = match sample.kind {
            Kind::Tcp { .. } => (16, garbage),
            Kind::Udp => (6, garbage),
            // Only these depend on what the sender has put into the field.
            Kind::Echo { .. } if view.is_ipv4() => (2, 0),
            Kind::Echo { .. } => {
                let length = (bytes.len() - at) as u32;
                (2, checksum::Sum::new().pseudo_header(view.source(), view.destination(), 58, length).folded())
            }
        };
        bytes[at + offset..at + offset + 2].copy_from_slice(&partial.to_be_bytes());
        let header = VirtioHeader { needs_checksum: true, checksum_start: at as u16, checksum_offset: offset as u16, ..VirtioHeader::NONE };
        let packet = SuperPacket::new(header, &mut bytes).expect("valid");
        prop_assert_eq!(cut(&packet), vec![complete_packet]);
    }

    #[test]
    fn an_ordinary_packet_passes_unchanged(sample in sample()) {
        let mut bytes = sample.bytes();
        let mut packet = SuperPacket::new(VirtioHeader::NONE, &mut bytes).expect("valid");
        prop_assert!(!packet.is_segmented());
        prop_assert_eq!(cut(&packet), vec![sample.bytes()]);
        let (source, mut expected) = (host(sample.source.is_ipv4(), 3), sample.bytes());
        let rewrite = Rewrite { source: Some(source), ..Rewrite::NONE };
        packet.rewrite(&rewrite).expect("one family");
        rewrite.apply(&mut expected, packet.view()).expect("one family");
        prop_assert_eq!(packet.packet(), &expected);
    }

    /// Whatever the header says, what comes out is the payload of what went in, in order and once.
    #[test]
    fn a_lying_header_cuts_nothing_but_the_packet(stream in stream(), mut header in any_header(), truths in any::<[bool; 4]>()) {
        let (true_header, mut bytes) = stream.super_packet();
        if truths[0] { header.segmentation = true_header.segmentation; }
        if truths[1] { header.needs_checksum = true; }
        if truths[2] { (header.checksum_start, header.checksum_offset) = (true_header.checksum_start, true_header.checksum_offset); }
        if truths[3] { header.segment_size = true_header.segment_size; }
        let before = bytes.clone();
        match SuperPacket::new(header, &mut bytes) {
            Ok(packet) if packet.is_segmented() => {
                let headers = before.len() - stream.payload.len();
                let payload: Vec<u8> = cut(&packet).iter().flat_map(|segment| {
                    assert_checksums(segment);
                    segment[headers..].to_vec()
                }).collect();
                prop_assert_eq!(payload, &stream.payload[..]);
            }
            Ok(packet) => prop_assert_eq!(packet.packet().len(), before.len()),
            Err(_) => prop_assert_eq!(bytes, before),
        }
    }

    #[test]
    fn noise_under_a_header_does_no_harm(
        header in any_header(), mut stream in plain_stream(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        truthful in any::<bool>(), end in any::<prop::sample::Index>(), whole in any::<bool>(),
    ) {
        stream.payload.truncate(200);
        let (true_header, mut bytes) = stream.super_packet();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let end = if whole { bytes.len() } else { end.index(bytes.len()) };
        if let Ok(packet) = SuperPacket::new(if truthful { true_header } else { header }, &mut bytes[..end]) {
            prop_assert!(cut(&packet).iter().all(|segment| segment.len() <= end));
        }
    }

    #[test]
    fn a_virtio_header_is_read_as_written(header in any_header()) {
        let mut bytes = [0xaa; 12];
        prop_assert_eq!(header.write(&mut bytes), 10);
        prop_assert_eq!(&bytes[..10], &header.to_bytes());
        prop_assert_eq!(VirtioHeader::parse(&bytes), Ok(header));
        prop_assert_eq!(header.write(&mut bytes[..9]), 0);
    }
}

/// A packet of 3 segments.
fn example(is_ipv4: bool, is_tcp: bool) -> Stream {
    Stream {
        is_ipv4,
        is_tcp,
        source_port: 40_000,
        destination_port: 443,
        identification: 0xffff,
        dont_fragment: true,
        sequence: u32::MAX - 50,
        timestamps: Some((1, 2)),
        push: true,
        finish: true,
        reduced: true,
        segment_size: 100,
        payload: vec![7; 250],
    }
}

#[test]
fn the_fields_lie_where_the_kernel_has_them() {
    let [one, two] = 0x0102_u16.to_ne_bytes();
    let bytes = [1, 0x81, one, two, one, two, one, two, one, two];
    let header = VirtioHeader::parse(&bytes).expect("valid");
    assert!(header.needs_checksum && header.ecn && !header.data_valid);
    assert_eq!(header.segmentation, Segmentation::TcpV4);
    assert_eq!([header.header_length, header.checksum_offset], [0x0102; 2]);
    assert_eq!(VirtioHeader::parse(&bytes[..9]), Err(OffloadError::TruncatedHeader));
    for legacy in [2, 3, 6, 0x83] {
        let error = VirtioHeader::parse(&[0, legacy, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error, Err(OffloadError::UnknownSegmentation(legacy)));
    }
}

fn error(stream: &Stream, edit: impl Fn(&mut VirtioHeader, &mut Vec<u8>)) -> OffloadError {
    let (mut header, mut bytes) = stream.super_packet();
    assert!(SuperPacket::new(header, &mut bytes).is_ok());
    edit(&mut header, &mut bytes);
    let before = bytes.clone();
    let error = SuperPacket::new(header, &mut bytes).expect_err("is wrong");
    assert_eq!(bytes, before, "unchanged");
    error
}

#[test]
fn every_lie_has_a_name() {
    let (tcp, udp, v6) = (example(true, true), example(true, false), example(false, true));
    for (kind, stream) in
        [(Segmentation::TcpV6, &tcp), (Segmentation::Udp, &tcp), (Segmentation::TcpV4, &udp)]
    {
        let found = error(stream, |header, _| header.segmentation = kind);
        assert_eq!(found, OffloadError::ProtocolMismatch, "{kind:?}");
    }
    let position = OffloadError::ChecksumPosition;
    assert_eq!(error(&tcp, |header, _| header.checksum_start += 2), position);
    assert_eq!(error(&tcp, |header, _| header.checksum_offset = 6), position);
    assert_eq!(error(&tcp, |header, _| header.needs_checksum = false), position);
    assert_eq!(error(&tcp, |header, _| header.segment_size = 0), OffloadError::SegmentSize);
    assert_eq!(error(&tcp, |_, bytes| bytes.push(0)), OffloadError::LengthMismatch);
    assert_eq!(error(&udp, |_, bytes| bytes[25] -= 1), OffloadError::LengthMismatch);
    let truncated = OffloadError::Malformed(ParseError::TruncatedPacket);
    assert_eq!(error(&v6, |_, bytes| bytes.truncate(bytes.len() - 1)), truncated);
    assert_eq!(error(&tcp, |_, bytes| bytes[6] |= 0x20), OffloadError::Fragment);
    assert_eq!(error(&tcp, |_, bytes| bytes[33] |= 2), OffloadError::ControlBits);
    assert_eq!(error(&tcp, |_, bytes| bytes[33] |= 4), OffloadError::ControlBits);
    let with_options = error(&v6, |_, bytes| (bytes[6], bytes[40], bytes[41]) = (60, 59, 0));
    assert_eq!(with_options, OffloadError::ExtensionHeaders);
    assert_eq!(error(&v6, |_, bytes| bytes.resize(65_536, 0)), OffloadError::TooLong);
    let mut many = example(false, false);
    many.payload = vec![0; 2_049];
    assert_eq!(error(&many, |header, _| header.segment_size = 1), OffloadError::TooManySegments);
}

#[test]
fn a_super_packet_without_payload_is_none() {
    let mut stream = example(true, false);
    stream.payload.clear();
    let (header, mut bytes) = stream.super_packet();
    assert_eq!(SuperPacket::new(header, &mut bytes).expect_err("empty"), OffloadError::NoPayload);
}

#[test]
fn nothing_is_written_where_there_is_no_room_or_no_segment() {
    let (header, mut bytes) = example(true, true).super_packet();
    let packet = SuperPacket::new(header, &mut bytes).expect("valid");
    let segments = packet.segments();
    let mut out = [0xaa; 200];
    let length = segments.length(0);
    assert_eq!(segments.write(0, &mut out[..length - 1]), 0);
    assert_eq!((segments.write(3, &mut out), segments.length(3)), (0, 0));
    assert_eq!((segments.write(usize::MAX, &mut out), segments.length(usize::MAX)), (0, 0));
    assert_eq!(out, [0xaa; 200]);
    assert_eq!(segments.write(0, &mut out), length);
    assert_eq!(out[length..], [0xaa; 200][length..], "not a byte too many");
}

#[test]
fn a_datagram_never_says_that_it_has_no_checksum() {
    let (source, destination): (IpAddr, IpAddr) =
        ("10.0.0.1".parse().expect("valid"), "10.0.0.2".parse().expect("valid"));
    let build = |payload: u16| {
        adit_packet::build::udp((source, 1).into(), (destination, 2).into(), &payload.to_be_bytes())
            .expect("fits")
    };
    // The payload that makes the sum 0xffff and so the checksum zero.
    let zero = build(0);
    let mut bytes = build(u16::from_be_bytes([zero[26], zero[27]]));
    bytes[26..28].copy_from_slice(&[0x12, 0x34]);
    let header =
        VirtioHeader { needs_checksum: true, checksum_start: 20, checksum_offset: 6, ..VirtioHeader::NONE };
    complete(header, &mut bytes).expect("valid");
    assert_eq!(bytes[26..28], [0xff, 0xff]);
}

#[test]
fn a_cut_datagram_never_says_so_either() {
    let mut stream = example(true, false);
    (stream.segment_size, stream.payload) = (2, vec![0; 2]);
    let zero = stream.segment(0);
    stream.payload = zero[26..28].repeat(2);
    let (header, mut bytes) = stream.super_packet();
    for segment in cut(&SuperPacket::new(header, &mut bytes).expect("valid")) {
        assert_eq!(segment[26..28], [0xff, 0xff]);
    }
}

#[test]
fn a_checksum_beyond_the_packet_or_before_its_payload_is_not_written() {
    let mut bytes = adit_packet::build::echo_request(
        adit_packet::build::Echo {
            source: host(true, 1),
            destination: host(true, 2),
            identifier: 1,
            sequence: 2,
        },
        b"ping",
    )
    .expect("fits");
    let before = bytes.clone();
    let end = bytes.len() as u16;
    for (start, offset) in [(0, 10), (18, 2), (20, end - 21), (end, 0), (u16::MAX, u16::MAX), (20, u16::MAX)]
    {
        let header = VirtioHeader {
            needs_checksum: true,
            checksum_start: start,
            checksum_offset: offset,
            ..VirtioHeader::NONE
        };
        let error = complete(header, &mut bytes).expect_err("outside");
        assert_eq!(error, OffloadError::ChecksumPosition, "{start}, {offset}");
    }
    assert_eq!(bytes, before);
}
