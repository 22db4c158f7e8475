//! What cutting and merging cost per segment: `cargo run --release -p adit-packet --example offload-speed`.
//!
//! Prints the best of several rounds, because everything else on the machine only ever adds to the time.

use std::hint::black_box;
use std::time::Instant;

use adit_packet::checksum::Sum;
use adit_packet::offload::{Coalescer, Offload, Segmentation, SuperPacket, Verdict, VirtioHeader};
use adit_packet::{PacketView, Rewrite, build};

/// Length of a segment with its headers in bytes.
const SEGMENT: usize = 1_420;
const SEGMENTS: usize = 44;
const UDP_HEADERS: usize = 28;
const TCP_HEADERS: usize = 40;
const ROUNDS: usize = 30;
const REPETITIONS: usize = 200;
/// Bytes that the bare copy moves.
const COPIED: usize = 60_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    checksum();
    for is_tcp in [true, false] {
        let (header, packet) = super_packet(is_tcp)?;
        let name = if is_tcp { "TCP" } else { "UDP" };
        split(name, header, &packet)?;
        coalesce(name, header, &packet)?;
    }
    Ok(())
}

fn checksum() {
    for length in [20, 40, SEGMENT, 65_535] {
        let bytes = vec![0x5a; length];
        let time = best(|| Sum::new().bytes(black_box(&bytes)).folded());
        println!("sum of {length:>6} bytes: {time:8.1} ns, {:5.1} GB/s", length as f64 / time);
    }
}

/// Cuts a super-packet: check, one rewrite, every segment to its place in a send buffer.
fn split(name: &str, header: VirtioHeader, packet: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    /// Where one sealed packet begins after the one before, with all that surrounds it.
    const STRIDE: usize = SEGMENT + 20 + 31;
    let mut packet = packet.to_vec();
    let mut out = vec![0; STRIDE * SEGMENTS];
    let rewrite = Rewrite {
        source: Some("192.0.2.7".parse()?),
        destination: Some("192.0.2.8".parse()?),
        source_port: Some(1),
        destination_port: Some(2),
    };
    let time = best(|| {
        let Ok(mut whole) = SuperPacket::new(header, &mut packet) else { return 0 };
        let _ = whole.rewrite(&rewrite);
        let segments = whole.segments();
        let write = |(index, place): (usize, &mut [u8])| segments.write(index, &mut place[20..]);
        out.chunks_mut(STRIDE).enumerate().map(write).sum::<usize>()
    });
    println!("{name} split:    {:6.1} ns per segment of {SEGMENT} bytes", time / SEGMENTS as f64);
    let copied = best(|| out[..COPIED].copy_from_slice(black_box(&packet[..COPIED])));
    println!("     (copying alone: {:6.1} ns)", copied * SEGMENT as f64 / COPIED as f64);
    Ok(())
}

/// Merges segments that lie in a receive buffer, checksums verified.
fn coalesce(name: &str, header: VirtioHeader, packet: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let mut packet = packet.to_vec();
    let whole = SuperPacket::new(header, &mut packet)?;
    let segments = whole.segments();
    let mut received = vec![0; SEGMENT * SEGMENTS];
    for (index, place) in received.chunks_mut(SEGMENT).enumerate() {
        segments.write(index, place);
    }
    let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
    let mut first = received[..SEGMENT].to_vec();
    let time = best(|| {
        let mut merged = 0;
        for segment in received.chunks(SEGMENT) {
            merged += usize::from(matches!(coalescer.push(segment), Verdict::Appended { .. }));
        }
        first.copy_from_slice(&received[..SEGMENT]);
        let header = coalescer.finish(&mut first);
        assert_eq!((merged, header.segmentation == Segmentation::None), (SEGMENTS - 1, false));
    });
    println!("{name} coalesce: {:6.1} ns per segment of {SEGMENT} bytes", time / SEGMENTS as f64);
    let views = best(|| received.chunks(SEGMENT).map(PacketView::parse).filter(Result::is_ok).count());
    println!("     (PacketView alone: {:4.1} ns)", views / SEGMENTS as f64);
    Ok(())
}

/// A super-packet whose segments are all of full length.
fn super_packet(is_tcp: bool) -> Result<(VirtioHeader, Vec<u8>), Box<dyn std::error::Error>> {
    let headers = if is_tcp { TCP_HEADERS } else { UDP_HEADERS };
    let payload = (SEGMENT - headers) * SEGMENTS + headers - UDP_HEADERS;
    let content: Vec<u8> = (0..payload).map(|at| (at * 7) as u8).collect();
    let mut packet = build::udp("10.0.0.1:4000".parse()?, "10.0.0.2:443".parse()?, &content)?;
    if is_tcp {
        packet[9] = 6;
        packet[10..12].fill(0);
        let sum = Sum::new().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        // Five words of header; ACK.
        (packet[32], packet[33]) = (0x50, 0x10);
    }
    let header = VirtioHeader {
        needs_checksum: true,
        segmentation: if is_tcp { Segmentation::TcpV4 } else { Segmentation::Udp },
        segment_size: (SEGMENT - headers) as u16,
        checksum_start: 20,
        checksum_offset: if is_tcp { 16 } else { 6 },
        ..VirtioHeader::NONE
    };
    Ok((header, packet))
}

/// Nanoseconds of one call, in the best of all rounds.
fn best<T>(mut run: impl FnMut() -> T) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..REPETITIONS {
            black_box(run());
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / REPETITIONS as f64);
    }
    best
}
