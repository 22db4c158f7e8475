//! Finding packets that follow one another, on their way to the TUN device.

use std::ops::Range;

use super::segment::{Kind, Segment, may_share_flow};
use super::{MAXIMUM_LENGTH, Offload, Segmentation, VirtioHeader, put_word, word_at};
use crate::checksum::Sum;
use crate::header::Ipv4Header;
use crate::transport::TcpFlags;

/// IPv6 header and the longest TCP header, in bytes.
const LONGEST_HEADERS: usize = 40 + 60;

/// The most TCP segments of a batch.
const MOST_TCP: usize = 128;

/// The most UDP datagrams of a batch (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const MOST_UDP: usize = 64;

/// What to do with a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It begins a batch. Keep it whole and unchanged until [`Coalescer::finish`].
    Started,
    /// It belongs behind the packets of the open batch: keep this range of it.
    Appended {
        /// Where its payload lies.
        payload: Range<usize>,
    },
    /// Pass it on as it is, now; an open batch is of another flow and stays open.
    Alone,
    /// First [`finish`](Coalescer::finish) the open batch and pass that on, then push this packet again.
    FlushFirst,
}

/// Merges consecutive packets of one flow, one batch at a time.
///
/// Packets go together when the kernel would merge them too (Linux, `tcp_gro_receive`): headers equal but for lengths,
/// identification (which must be consecutive without "don't fragment"), checksums, PSH and the consecutive sequence
/// number; all payloads of one size, the last perhaps
/// shorter; nothing behind PSH. Order within a flow is kept, whatever does not fit. The caller keeps the packets in the
/// buffers they were received in:
///
/// ```
/// use adit_packet::offload::{Coalescer, Offload, Verdict};
///
/// # let mut packets: [Vec<u8>; 0] = [];
/// let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
/// let (mut batch, mut alone): (Vec<&mut [u8]>, Vec<&mut [u8]>) = (Vec::new(), Vec::new());
/// for packet in packets.iter_mut() {
///     loop {
///         match coalescer.push(packet) {
///             Verdict::Started => batch.push(packet),
///             Verdict::Appended { payload } => batch.push(&mut packet[payload]),
///             Verdict::Alone => alone.push(packet),
///             Verdict::FlushFirst => {
///                 let header = coalescer.finish(batch[0]);
///                 // write header and batch
///                 batch.clear();
///                 continue;
///             }
///         }
///         break;
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Coalescer {
    offload: Offload,
    open: Option<Batch>,
}

#[derive(Debug)]
struct Batch {
    first: Segment,
    headers: [u8; LONGEST_HEADERS],
    /// Length of the packet that all would be, in bytes.
    length: usize,
    count: usize,
    next_sequence: u32,
    /// The last packet was short or pushed: nothing may follow.
    is_ended: bool,
    is_pushed: bool,
}

impl Coalescer {
    /// Merges what a TUN queue with this offload takes.
    pub const fn new(offload: Offload) -> Self {
        Self { offload, open: None }
    }

    /// Whether a batch is open and waits for [`finish`](Self::finish).
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Says what to do with the next packet, which must end with its last byte: a packet that is followed by padding
    /// passes alone.
    ///
    /// After [`Verdict::FlushFirst`] and a finish the answer is another one.
    #[inline]
    pub fn push(&mut self, packet: &[u8]) -> Verdict {
        let segment = Segment::parse(packet, self.offload);
        match (&mut self.open, segment) {
            (Some(batch), Some(segment)) => batch.push(&segment, packet),
            (Some(batch), None) if batch.may_share_flow(packet) => Verdict::FlushFirst,
            // The checksums come last, they cost the most. What is pushed has no successor to wait for.
            (None, Some(segment)) if !segment.is_pushed && segment.is_intact(packet) => {
                self.open = Some(Batch::new(segment, packet));
                Verdict::Started
            }
            _ => Verdict::Alone,
        }
    }

    /// Ends the open batch: makes the headers of `first`, its first packet, those of the whole, and returns what goes in
    /// front of it.
    ///
    /// A packet that has remained alone stays as it is.
    pub fn finish(&mut self, first: &mut [u8]) -> VirtioHeader {
        match self.open.take() {
            Some(batch) if batch.count > 1 && first.len() >= batch.first.header_length => batch.finish(first),
            _ => VirtioHeader::NONE,
        }
    }
}

impl Batch {
    fn new(first: Segment, packet: &[u8]) -> Self {
        let mut headers = [0; LONGEST_HEADERS];
        headers[..first.header_length].copy_from_slice(&packet[..first.header_length]);
        Self {
            first,
            headers,
            length: first.length,
            count: 1,
            next_sequence: first.sequence.wrapping_add(first.payload() as u32),
            is_ended: false,
            is_pushed: false,
        }
    }

    #[inline(always)]
    fn push(&mut self, segment: &Segment, packet: &[u8]) -> Verdict {
        if self.takes(segment, packet) && segment.is_intact(packet) {
            self.count += 1;
            self.length += segment.payload();
            self.next_sequence = segment.sequence.wrapping_add(segment.payload() as u32);
            self.is_pushed = segment.is_pushed;
            self.is_ended = segment.is_pushed || segment.payload() < self.first.payload();
            return Verdict::Appended { payload: segment.header_length..segment.length };
        }
        // A pushed packet of another flow begins no batch, so this one need not make room.
        if segment.is_pushed && !self.may_share_flow(packet) { Verdict::Alone } else { Verdict::FlushFirst }
    }

    fn takes(&self, segment: &Segment, packet: &[u8]) -> bool {
        let most = match self.first.kind {
            Kind::Tcp => MOST_TCP,
            Kind::Udp => MOST_UDP,
        };
        !self.is_ended
            && self.count < most
            && self.length + segment.payload() <= MAXIMUM_LENGTH
            && segment.payload() <= self.first.payload()
            && (segment.kind, segment.is_ipv4) == (self.first.kind, self.first.is_ipv4)
            && segment.header_length == self.first.header_length
            && (segment.kind == Kind::Udp || segment.sequence == self.next_sequence)
            && self.has_equal_headers(packet)
    }

    /// Compares all that must be the same in every packet of the batch; the headers are of the same kind and length.
    fn has_equal_headers(&self, packet: &[u8]) -> bool {
        let (own, other) = (&self.headers[..self.first.header_length], packet);
        let same = |range: Range<usize>| own[range.clone()] == other[range];
        let at = self.first.transport_offset;
        let network = if self.first.is_ipv4 {
            same(0..2) && same(6..10) && same(12..20) && self.has_next_identification(packet)
        } else {
            same(0..4) && same(6..40)
        };
        let transport = match self.first.kind {
            // The control bits are checked already; PSH may differ.
            Kind::Tcp => {
                same(at + 8..at + 13) && same(at + 14..at + 16) && same(at + 18..self.first.header_length)
            }
            Kind::Udp => true,
        };
        network && same(at..at + 4) && transport
    }

    /// Whether the IPv4 identification is the one that this packet gets when the batch is cut again.
    ///
    /// It counts only in packets that may be fragmented on their way (RFC 6864, 4).
    fn has_next_identification(&self, packet: &[u8]) -> bool {
        let is_atomic = word_at(packet, 6) & Ipv4Header::DONT_FRAGMENT != 0;
        is_atomic || word_at(packet, 4) == word_at(&self.headers, 4).wrapping_add(self.count as u16)
    }

    fn may_share_flow(&self, packet: &[u8]) -> bool {
        may_share_flow(&self.headers, &self.first, packet)
    }

    fn finish(&self, first: &mut [u8]) -> VirtioHeader {
        let Segment { kind, is_ipv4, transport_offset, header_length, .. } = self.first;
        let transport_length = self.length - transport_offset;
        let (network, transport) = first[..header_length].split_at_mut(transport_offset);
        if is_ipv4 {
            put_word(network, 2, self.length as u16);
            put_word(network, 10, 0);
            put_word(network, 10, Sum::new().bytes(network).checksum());
        } else {
            put_word(network, 4, transport_length as u16);
        }
        match kind {
            Kind::Tcp => transport[13] |= u8::from(self.is_pushed) * TcpFlags::PSH.0,
            Kind::Udp => put_word(transport, 4, transport_length as u16),
        }
        // Partial: not complemented.
        let partial = self.first.pseudo_header(network, transport_length).folded();
        put_word(transport, self.first.checksum_offset(), partial);
        VirtioHeader {
            needs_checksum: true,
            segmentation: match (kind, is_ipv4) {
                (Kind::Tcp, true) => Segmentation::TcpV4,
                (Kind::Tcp, false) => Segmentation::TcpV6,
                (Kind::Udp, _) => Segmentation::Udp,
            },
            header_length: header_length as u16,
            segment_size: self.first.payload() as u16,
            checksum_start: transport_offset as u16,
            checksum_offset: self.first.checksum_offset() as u16,
            ..VirtioHeader::NONE
        }
    }
}
