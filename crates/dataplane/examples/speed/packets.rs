//! Packets as a kernel hands them over.

use std::net::{IpAddr, SocketAddr};

use adit_packet::offload::{Segmentation, VirtioHeader};
use adit_packet::{FlowTuple, protocol};
use etherparse::PacketBuilder;

/// Bytes of a full packet in the tunnel.
pub(crate) const FULL: usize = 1_420;
/// Bytes of a small one.
pub(crate) const SMALL: usize = 64;
/// IPv4 and TCP headers.
const HEADERS: usize = 40;
/// Full packets that a 64 KiB super-packet stands for.
pub(crate) const SEGMENTS: usize = 47;

/// A TCP packet of `length` bytes with right checksums.
pub(crate) fn tcp(tuple: &FlowTuple, length: usize) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (tuple.source, tuple.destination) else {
        panic!("the bench has IPv4 alone");
    };
    let payload: Vec<u8> = (HEADERS..length).map(|at| (at * 7) as u8).collect();
    let mut packet = Vec::with_capacity(length);
    PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .tcp(tuple.source_port, tuple.destination_port, 1_000, 64_000)
        .ack(1)
        .write(&mut packet, &payload)
        .expect("a packet that fits");
    packet
}

/// A super-packet whose segments are all full, and its virtio header.
pub(crate) fn super_packet(tuple: &FlowTuple) -> (VirtioHeader, Vec<u8>) {
    let header = VirtioHeader {
        needs_checksum: true,
        segmentation: Segmentation::TcpV4,
        header_length: HEADERS as u16,
        segment_size: (FULL - HEADERS) as u16,
        checksum_start: 20,
        checksum_offset: 16,
        ..VirtioHeader::NONE
    };
    (header, tcp(tuple, HEADERS + SEGMENTS * (FULL - HEADERS)))
}

/// The tuple of TCP between two addresses.
pub(crate) fn tuple(source: SocketAddr, destination: SocketAddr) -> FlowTuple {
    FlowTuple {
        protocol: protocol::TCP,
        source: source.ip(),
        destination: destination.ip(),
        source_port: source.port(),
        destination_port: destination.port(),
    }
}
