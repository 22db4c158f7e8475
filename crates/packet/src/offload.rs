//! Super-packets: many TCP or UDP segments of one flow under a single header, as they cross the border to the kernel.
//!
//! A TUN queue with `IFF_VNET_HDR` puts a [`VirtioHeader`] in front of every packet. On the way *from* the kernel it says
//! that a packet stands for many: [`SuperPacket`] checks that against the packet itself, lets the caller look up and
//! rewrite the flow once, and cuts it into [`Segments`], each complete with all its checksums. On the way *to* the kernel
//! a [`Coalescer`] finds packets that follow one another and turns the first one's headers into those of them all; no
//! payload is moved, the pieces go out in one `writev`.
//!
//! The kernel takes a super-packet for verified, so a packet is merged only after its checksums were found right: what
//! was damaged on the way reaches its receiver as it is, and dies there.
//!
//! Absent: legacy UDP fragmentation offload, tunnels inside super-packets, and packets beyond 65,535 bytes ("BIG TCP").

mod coalescer;
mod segment;
mod segments;
mod super_packet;
mod virtio;

pub use coalescer::{Coalescer, Verdict};
pub use segments::Segments;
pub use super_packet::{MAXIMUM_SEGMENTS, SuperPacket, complete};
pub use virtio::{Segmentation, VirtioHeader};

use crate::network::ParseError;

/// Length of the longest packet in bytes.
const MAXIMUM_LENGTH: usize = 65_535;

/// Where the checksum field lies in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// Where the checksum field lies in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// What the two sides of a TUN queue may hand each other beyond single packets.
#[derive(Copy, Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Offload {
    /// Single packets with complete checksums; no virtio headers.
    #[default]
    None,
    /// TCP super-packets and partial checksums.
    Tcp,
    /// UDP super-packets too (Linux 6.2).
    TcpAndUdp,
}

/// Why a virtio header and its packet do not go together; the packet is unchanged then.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum OffloadError {
    /// There are fewer bytes than a virtio header has.
    #[error("virtio header is truncated")]
    TruncatedHeader,
    /// Legacy UDP fragmentation, or a kind of segmentation that nobody has offered.
    #[error("segmentation type {0} is not supported")]
    UnknownSegmentation(u8),
    /// The packet itself is no good.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// A super-packet's length fields contradict its length.
    #[error("super-packet length is wrong")]
    LengthMismatch,
    /// The packet has more than 65,535 bytes.
    #[error("super-packet is too long")]
    TooLong,
    /// Fragments have no checksum to complete and cannot be cut again.
    #[error("super-packet is a fragment")]
    Fragment,
    /// There are IPv6 extension headers.
    #[error("super-packet has extension headers")]
    ExtensionHeaders,
    /// The segmentation is not one of the packet's protocol and IP version.
    #[error("segmentation does not fit the protocol")]
    ProtocolMismatch,
    /// SYN or RST: there is only ever one of those.
    #[error("control bits cannot be repeated")]
    ControlBits,
    /// The checksum to complete is not where the packet has one, or there is none to complete.
    #[error("checksum position is wrong")]
    ChecksumPosition,
    /// The size of the segments is zero.
    #[error("segment size is zero")]
    SegmentSize,
    /// There is no payload to cut.
    #[error("super-packet is empty")]
    NoPayload,
    /// There would be more segments than any maximum segment size explains.
    #[error("too many segments")]
    TooManySegments,
}

fn word_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_word(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

fn double_word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
