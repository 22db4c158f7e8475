//! Packets merged for the TUN device: what the kernel cuts again is what came, and nothing damaged is among it.

use crate::streams::{Stream, plain_stream, stream};
use adit_packet::PacketView;
use adit_packet::offload::{Coalescer, Offload, SuperPacket, Verdict, VirtioHeader};
use proptest::prelude::*;

/// What goes to the device in one write.
#[derive(Debug)]
struct Written {
    header: VirtioHeader,
    bytes: Vec<u8>,
}

impl Written {
    /// The packets that the kernel makes of it.
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let packet = SuperPacket::new(self.header, &mut bytes).expect("the kernel would take it");
        let segments = packet.segments();
        let write = |index| {
            let mut out = vec![0; segments.length(index)];
            segments.write(index, &mut out);
            out
        };
        (0..segments.count()).map(write).collect()
    }
}

/// Works as the data plane does: packets stay where they are, a batch is written from slices.
fn coalesce(offload: Offload, packets: &mut [Vec<u8>]) -> Vec<Written> {
    let mut coalescer = Coalescer::new(offload);
    let (mut written, mut batch): (Vec<Written>, Vec<&mut [u8]>) = (Vec::new(), Vec::new());
    for packet in packets {
        let mut verdict = coalescer.push(packet);
        if verdict == Verdict::FlushFirst {
            written.push(flush(&mut coalescer, &mut batch));
            verdict = coalescer.push(packet);
        }
        match verdict {
            Verdict::Started => batch.push(packet),
            Verdict::Appended { payload } => batch.push(&mut packet[payload]),
            Verdict::Alone => written.push(Written { header: VirtioHeader::NONE, bytes: packet.clone() }),
            Verdict::FlushFirst => panic!("asked for twice"),
        }
        assert_eq!(coalescer.is_open(), !batch.is_empty());
    }
    if coalescer.is_open() {
        written.push(flush(&mut coalescer, &mut batch));
    }
    written
}

fn flush(coalescer: &mut Coalescer, batch: &mut Vec<&mut [u8]>) -> Written {
    let header = coalescer.finish(batch[0]);
    Written { header, bytes: std::mem::take(batch).iter().flat_map(|part| part.to_vec()).collect() }
}

/// Recomputes the checksums of an edited packet of 20 or 40 bytes of IP header.
fn with_right_checksums(mut packet: Vec<u8>) -> Vec<u8> {
    use adit_packet::checksum::{Sum, zero_as_ones};
    let view = PacketView::parse(&packet).expect("valid");
    if view.is_ipv4() {
        packet[10..12].fill(0);
        let sum = Sum::new().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let at = view.transport_offset();
    let field = at + if view.protocol() == 6 { 16 } else { 6 };
    packet[field..field + 2].fill(0);
    let length = (packet.len() - at) as u32;
    let sum = Sum::new().pseudo_header(view.source(), view.destination(), view.protocol(), length);
    let sum = zero_as_ones(sum.bytes(&packet[at..]).checksum());
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Without the identification of atomic IPv4 packets, which means nothing (RFC 6864, 4.1) and is not kept.
fn without_identification(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet.len() >= 20 && packet[6] == 0x40 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn example(is_ipv4: bool, is_tcp: bool) -> Stream {
    Stream {
        is_ipv4,
        is_tcp,
        source_port: 443,
        destination_port: 40_000,
        identification: 1,
        dont_fragment: true,
        sequence: 1_000,
        timestamps: Some((1, 2)),
        push: false,
        finish: false,
        reduced: false,
        segment_size: 100,
        payload: (0..300_u16).map(|at| at as u8).collect(),
    }
}

proptest! {
    #[test]
    fn what_was_cut_becomes_what_it_was(stream in plain_stream()) {
        let (header, bytes) = stream.super_packet();
        let mut segments = stream.segments();
        let written = coalesce(Offload::TcpAndUdp, &mut segments);
        prop_assert_eq!(written.len(), 1);
        if stream.count() > 1 {
            prop_assert_eq!(written[0].header, header);
            prop_assert_eq!(&written[0].bytes, &bytes);
        } else {
            prop_assert_eq!(written[0].header, VirtioHeader::NONE);
            prop_assert_eq!(&written[0].bytes, &stream.segment(0));
        }
    }

    /// Flows mixed, packets damaged, cut short, doubled and edited: per flow, out comes what went in.
    #[test]
    fn nothing_is_lost_changed_or_reordered_within_a_flow(
        streams in prop::collection::vec(stream(), 1..4),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0..12u8, any::<prop::sample::Index>(), any::<u8>()), 0..60),
        one_host in any::<bool>(),
    ) {
        let mut next = vec![0; streams.len()];
        let mut packets = Vec::new();
        for (pick, mischief, at, value) in picks {
            let number = pick.index(streams.len());
            let mut stream = streams[number].clone();
            // Ports tell the flows apart; equal ports between two protocols do no harm.
            stream.source_port = if one_host { number as u16 } else { 5 };
            stream.payload.truncate(4_000);
            let mut packet = stream.segment(next[number] % stream.count());
            let at = at.index(packet.len());
            match mischief {
                0 => packet[at] = value,
                1 => packet.truncate(at.max(1)),
                2 => {
                    packet[at] = value;
                    if PacketView::parse(&packet).is_ok_and(|view| matches!(view.protocol(), 6 | 17) && view.fragment().is_none() && view.transport_offset() == stream.transport_offset()) {
                        packet = with_right_checksums(packet);
                    }
                }
                3 => {}
                _ => next[number] += 1,
            }
            packets.push(packet);
        }
        let written = coalesce(Offload::TcpAndUdp, &mut packets.clone());
        let flow = |packet: &[u8]| PacketView::parse(packet).ok().and_then(|view| view.flow());
        let mut delivered = Vec::new();
        for write in &written {
            if write.header == VirtioHeader::NONE {
                delivered.push(write.bytes.clone());
            } else {
                let cut = write.packets();
                prop_assert!(cut.len() > 1);
                prop_assert!(cut.iter().all(|packet| adit_packet::checksum::verify(packet).is_ok()));
                delivered.extend(cut);
            }
        }
        prop_assert_eq!(delivered.len(), packets.len());
        let mut flows: Vec<_> = packets.iter().map(|packet| flow(packet)).collect();
        flows.sort_unstable();
        flows.dedup();
        for wanted in flows {
            let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                let packets = packets.iter().filter(|packet| flow(packet) == wanted).cloned();
                packets.map(without_identification).collect()
            };
            prop_assert_eq!(of_flow(&delivered), of_flow(&packets), "{:?}", wanted);
        }
    }

    #[test]
    fn a_damaged_packet_travels_alone_and_as_it_is(stream in plain_stream(), victim in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut packets = stream.segments();
        let victim = victim.index(packets.len());
        let at = at.index(packets[victim].len());
        packets[victim][at] ^= 1 << bit;
        let damaged = packets[victim].clone();
        let written = coalesce(Offload::TcpAndUdp, &mut packets);
        // Some bits are not covered by any checksum; they then must stop the merging by being compared.
        let alone = written.iter().any(|write| write.header == VirtioHeader::NONE && write.bytes == damaged);
        prop_assert!(alone, "byte {} of {}", at, damaged.len());
    }

    #[test]
    fn noise_does_no_harm(packets in prop::collection::vec((prop::sample::select(&[0x45u8, 0x46, 0x60, 0x70]), prop::collection::vec(any::<u8>(), 0..90)), 0..20), first in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
        for (version, mut packet) in packets {
            if let Some(start) = packet.first_mut() { *start = version; }
            let _ = coalescer.push(&packet);
        }
        let stream = example(true, true);
        coalescer.finish(&mut [0; 60]);
        let opened = (coalescer.push(&stream.segment(0)), coalescer.push(&stream.segment(1)));
        prop_assert_eq!(opened, (Verdict::Started, Verdict::Appended { payload: 52..152 }));
        // Not the packet that was pushed first.
        coalescer.finish(&mut first.clone());
        prop_assert!(!coalescer.is_open());
    }
}

#[test]
fn any_difference_that_counts_keeps_packets_apart() {
    // Byte and mask, in the second packet.
    let tcp_v4: &[(usize, u8)] = &[
        (1, 0x04),
        (1, 0x01),
        (6, 0x40),
        (8, 0x01),
        (12, 0x01),
        (16, 0x01),
        (20, 0x01),
        (22, 0x01),
        (27, 0x01),
        (31, 0x01),
        (32, 0x02),
        (33, 0x01),
        (33, 0x20),
        (33, 0x40),
        (33, 0x80),
        (33, 0x10),
        (35, 0x01),
        (38, 0x01),
        (47, 0x01),
        (51, 0x01),
    ];
    let udp_v6: &[(usize, u8)] = &[
        (0, 0x01),
        (1, 0x10),
        (2, 0x01),
        (3, 0x01),
        (7, 0x01),
        (8, 0x01),
        (39, 0x01),
        (40, 0x01),
        (43, 0x01),
    ];
    for (stream, edits) in [(example(true, true), tcp_v4), (example(false, false), udp_v6)] {
        let mut untouched = stream.segments();
        assert_eq!(coalesce(Offload::TcpAndUdp, &mut untouched).len(), 1);
        for &(at, mask) in edits {
            let mut packets = stream.segments();
            packets.truncate(2);
            packets[1][at] ^= mask;
            packets[1] = with_right_checksums(std::mem::take(&mut packets[1]));
            let expected = packets.clone();
            let written = coalesce(Offload::TcpAndUdp, &mut packets);
            let written: Vec<_> = written.into_iter().map(|write| write.bytes).collect();
            assert_eq!(written.len(), 2, "byte {at}, mask {mask:#x}");
            assert!(expected.iter().all(|packet| written.contains(packet)), "byte {at}, mask {mask:#x}");
        }
    }
}

#[test]
fn a_datagram_without_checksum_is_not_vouched_for() {
    let mut stream = example(true, false);
    (stream.segment_size, stream.payload) = (2, vec![0; 2]);
    // The content whose checksum is zero, which a sender must not write, for it means none (RFC 768).
    stream.payload = stream.segment(0)[26..28].to_vec();
    assert_eq!(stream.segment(0)[26..28], [0xff, 0xff]);
    let mut packets = vec![stream.segment(0), stream.segment(0)];
    assert_eq!(coalesce(Offload::TcpAndUdp, &mut packets.clone()).len(), 1);
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(coalesce(Offload::TcpAndUdp, &mut packets).len(), 2);
}

#[test]
fn a_datagram_shorter_than_its_packet_stays_alone() {
    let mut packets = example(true, false).segments();
    for packet in &mut packets {
        packet[25] -= 1;
        *packet = with_right_checksums(std::mem::take(packet));
    }
    assert_eq!(coalesce(Offload::TcpAndUdp, &mut packets).len(), 3);
}

#[test]
fn options_and_padding_keep_a_packet_alone() {
    let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
    let mut padded = example(false, true).segment(0);
    padded.push(0);
    assert_eq!(coalescer.push(&padded), Verdict::Alone);
    let mut with_options = example(true, true).segment(0);
    with_options[0] = 0x46;
    assert_eq!(coalescer.push(&with_options), Verdict::Alone);
}

#[test]
fn fragments_stay_alone_even_among_themselves() {
    // More fragments, an offset, the reserved bit.
    for (at, value) in [(6, 0x20), (6, 0x60), (7, 1), (6, 0x80)] {
        let mut packets = example(true, false).segments();
        for packet in &mut packets {
            (packet[6], packet[7]) = (0, 0);
            packet[at] = value;
            *packet = with_right_checksums(std::mem::take(packet));
        }
        assert_eq!(coalesce(Offload::TcpAndUdp, &mut packets).len(), 3, "{at}, {value:#x}");
    }
}

#[test]
fn what_may_be_fragmented_keeps_its_identification() {
    let mut stream = example(true, false);
    stream.dont_fragment = false;
    assert_eq!(coalesce(Offload::TcpAndUdp, &mut stream.segments()).len(), 1);
    let [first, mut second, third] = <[Vec<u8>; 3]>::try_from(stream.segments()).expect("three");
    second[5] += 1;
    let second = with_right_checksums(second);
    let written = coalesce(Offload::TcpAndUdp, &mut [first, second, third.clone()]);
    // The second one is the fourth's predecessor, which the third is not.
    assert_eq!(written.len(), 3);
    assert_eq!(written[2].bytes, third);
}

#[test]
fn a_batch_ends_with_a_short_or_pushed_packet() {
    let mut short = example(true, true);
    short.payload.truncate(150);
    let mut next = example(true, true);
    next.sequence += 150;
    let mut packets = [short.segments(), next.segments()].concat();
    let lengths = |written: &[Written]| written.iter().map(|write| write.packets().len()).collect::<Vec<_>>();
    assert_eq!(lengths(&coalesce(Offload::Tcp, &mut packets)), [2, 3]);
    let mut pushed = example(true, true);
    (pushed.push, pushed.payload) = (true, vec![1; 200]);
    next.sequence = pushed.sequence + 200;
    let mut packets = [pushed.segments(), next.segments()].concat();
    let written = coalesce(Offload::Tcp, &mut packets);
    assert_eq!(lengths(&written), [2, 3]);
    assert_eq!((written[0].bytes[33], written[1].bytes[33]), (0x18, 0x10), "PSH of the last one");
}

#[test]
fn acknowledgments_of_other_flows_leave_a_batch_open() {
    let stream = example(true, true);
    let mut other = example(true, true);
    other.source_port += 1;
    let acknowledgment = |stream: &Stream| with_right_checksums(shortened(stream.segment(0), 52));
    let mut coalescer = Coalescer::new(Offload::Tcp);
    assert_eq!(coalescer.push(&acknowledgment(&stream)), Verdict::Alone);
    assert_eq!(coalescer.push(&stream.segment(0)), Verdict::Started);
    assert_eq!(coalescer.push(&acknowledgment(&other)), Verdict::Alone);
    (other.push, other.payload) = (true, vec![0; 9]);
    assert_eq!(coalescer.push(&other.segment(0)), Verdict::Alone, "a pushed packet begins nothing");
    assert_eq!(
        coalescer.push(&example(true, false).segment(0)),
        Verdict::Alone,
        "UDP between the same ports"
    );
    assert!(matches!(coalescer.push(&stream.segment(1)), Verdict::Appended { .. }));
    assert_eq!(coalescer.push(&acknowledgment(&stream)), Verdict::FlushFirst);
}

/// The packet without the end of its payload.
fn shortened(mut packet: Vec<u8>, length: usize) -> Vec<u8> {
    packet.truncate(length);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet
}

#[test]
fn a_fragment_of_the_flow_waits_for_the_batch() {
    for (is_ipv4, at, value) in [(true, 7, 8), (true, 6, 0x20), (false, 6, 44), (true, 0, 0x46)] {
        let stream = example(is_ipv4, false);
        let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
        coalescer.push(&stream.segment(0));
        let mut fragment = stream.segment(1);
        fragment[at] = value;
        // What stands where the ports would be is payload, or the options.
        let ports = stream.transport_offset();
        fragment[ports..ports + 4].fill(0xee);
        assert_eq!(coalescer.push(&fragment), Verdict::FlushFirst, "{at}");
    }
}

#[test]
fn batches_stay_within_what_the_kernel_takes() {
    for (is_tcp, segment_size, counts) in [
        (true, 10, [128, 128, 44]),
        (false, 10, [64, 64, 64]),
        (true, 1_400, [46, 46, 46]),
        (true, 32_767, [1, 1, 1]),
    ] {
        let mut stream = example(false, is_tcp);
        stream.segment_size = segment_size;
        let mut packets = Vec::new();
        for round in 0..300_u32 {
            stream.payload = vec![3; segment_size];
            stream.sequence = 1_000 + round * segment_size as u32;
            packets.push(stream.segment(0));
        }
        let written = coalesce(Offload::TcpAndUdp, &mut packets);
        assert!(written.iter().all(|write| write.bytes.len() <= 65_535));
        let sizes: Vec<_> = written.iter().take(3).map(|write| write.packets().len()).collect();
        assert_eq!(sizes, counts, "{segment_size}");
    }
}

#[test]
fn a_batch_may_have_65_535_bytes_and_no_more() {
    for (second, writes) in [(32_731, 1), (32_732, 2)] {
        let mut stream = example(false, true);
        stream.segment_size = 32_732;
        stream.payload = vec![3; 32_732 + second];
        let written = coalesce(Offload::Tcp, &mut stream.segments());
        assert_eq!(written.len(), writes, "{second}");
        assert_eq!(written[0].bytes.len() == 65_535, writes == 1);
    }
}

#[test]
fn only_what_the_queue_takes_is_merged() {
    let count = |offload, is_tcp| coalesce(offload, &mut example(true, is_tcp).segments()).len();
    assert_eq!([count(Offload::None, true), count(Offload::None, false)], [3, 3]);
    assert_eq!([count(Offload::Tcp, true), count(Offload::Tcp, false)], [1, 3]);
    assert_eq!([count(Offload::TcpAndUdp, true), count(Offload::TcpAndUdp, false)], [1, 1]);
}
