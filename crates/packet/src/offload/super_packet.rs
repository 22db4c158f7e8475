//! A packet from a TUN queue with its virtio header, checked and ready to be looked up, rewritten and cut.

use super::segments::{Cut, Kind};
use super::{
    MAXIMUM_LENGTH, OffloadError, Segmentation, Segments, TCP_CHECKSUM, UDP_CHECKSUM, VirtioHeader, put_word,
    word_at,
};
use crate::checksum::{self, Sum};
use crate::header::{Ipv4Header, UdpHeader};
use crate::rewrite::{Rewrite, RewriteError};
use crate::transport::{TcpFlags, Transport};
use crate::view::PacketView;

/// The most segments of one packet: a bound for whoever queues them.
///
/// A peer that announces a tiny maximum segment size gets that many from Linux, which sends at least 8 bytes each; no
/// peer that wants to get anywhere announces less than 48.
pub const MAXIMUM_SEGMENTS: usize = 2_048;

/// A packet of one or many segments.
///
/// All that is done once per flow is done here: look at [`view`](Self::view), [`rewrite`](Self::rewrite), then cut it
/// with [`segments`](Self::segments).
#[derive(Debug)]
pub struct SuperPacket<'a> {
    packet: &'a mut [u8],
    view: PacketView,
    cut: Option<Cut>,
}

impl<'a> SuperPacket<'a> {
    /// Checks `header` against `packet`, and completes the checksum of an ordinary packet whose is partial.
    ///
    /// # Errors
    ///
    /// [`OffloadError`] when the header is not true of the packet, or the packet is malformed.
    pub fn new(header: VirtioHeader, packet: &'a mut [u8]) -> Result<Self, OffloadError> {
        let (view, cut) = match header.segmentation {
            Segmentation::None => (complete(header, packet)?, None),
            segmentation => {
                let view = check_super_packet(packet)?;
                let cut = cut(header, segmentation, packet, &view)?;
                (view, Some(cut))
            }
        };
        Ok(Self { packet: &mut packet[..view.total_length()], view, cut })
    }

    /// Addresses, ports and lengths of the whole; stale after [`rewrite`](Self::rewrite).
    pub const fn view(&self) -> &PacketView {
        &self.view
    }

    /// The whole packet. With more than one segment its transport checksum is partial.
    pub const fn packet(&self) -> &[u8] {
        self.packet
    }

    /// The whole packet for edits that change no length. With more than one segment its transport checksum is
    /// partial: edits below IP may leave it alone.
    pub const fn packet_mut(&mut self) -> &mut [u8] {
        self.packet
    }

    /// How many packets this is, 1 to 2,048.
    pub fn segment_count(&self) -> usize {
        self.cut.map_or(1, |cut| cut.count)
    }

    /// Whether it is to be cut into segments whose checksums are yet to be made. If not, its checksums are complete,
    /// even if it is to be cut into fragments.
    pub const fn is_segmented(&self) -> bool {
        matches!(self.cut, Some(Cut { kind: Kind::Tcp | Kind::Udp, .. }))
    }

    /// Cuts more finely, so that no piece is longer than `longest` bytes; false when that cannot be done.
    ///
    /// TCP can be cut anywhere, in super-packets and in ordinary packets; an ordinary IPv4 packet that may be
    /// fragmented becomes fragments. All else has borders that mean something.
    pub fn limit(&mut self, longest: usize) -> bool {
        let piece = self
            .cut
            .map_or(self.packet.len(), |cut| (cut.header_length + cut.segment_size).min(self.packet.len()));
        if piece <= longest {
            return true;
        }
        let finer = match (self.cut, self.view.transport()) {
            (Some(Cut { kind: Kind::Tcp, header_length, .. }), _) => {
                finer(self.packet.len(), header_length, longest, Kind::Tcp)
            }
            (None, Transport::Tcp { flags, .. }) if self.is_plain_tcp(flags) => {
                let header_length =
                    tcp_header(&self.view, &self.packet[self.view.transport_offset()..], flags);
                header_length.ok().and_then(|header| finer(self.packet.len(), header, longest, Kind::Tcp))
            }
            (None, _) if may_be_fragmented(self.packet) => {
                finer(self.packet.len(), size_of::<Ipv4Header>(), longest, Kind::Fragments)
            }
            _ => None,
        };
        self.cut = finer.or(self.cut);
        finer.is_some()
    }

    /// A TCP segment with nothing about it that belongs to one place, and nothing wrong with it: its checksums are
    /// made anew when it is cut.
    fn is_plain_tcp(&self, flags: TcpFlags) -> bool {
        let is_without_extensions =
            self.view.is_ipv4() || self.view.transport_offset() == size_of::<crate::header::Ipv6Header>();
        is_without_extensions
            && self.view.fragment().is_none()
            && !flags.contains(TcpFlags::URG)
            && checksum::verify(self.packet).is_ok()
    }

    /// Changes addresses and ports, of all segments at once.
    ///
    /// # Errors
    ///
    /// [`RewriteError`]; the packet is unchanged then.
    pub fn rewrite(&mut self, rewrite: &Rewrite) -> Result<(), RewriteError> {
        if self.is_segmented() {
            rewrite.apply_partial(self.packet, &self.view)
        } else {
            rewrite.apply(self.packet, &self.view)
        }
    }

    /// The segments of the packet as it is now.
    pub fn segments(&self) -> Segments<'_> {
        Segments::new(self.packet, &self.view, self.cut)
    }
}

/// Reads an ordinary packet from a queue with virtio headers, and completes its checksum if it is partial.
///
/// # Errors
///
/// [`OffloadError`], [`ProtocolMismatch`](OffloadError::ProtocolMismatch) for super-packets among others; the packet is
/// unchanged then.
pub fn complete(header: VirtioHeader, packet: &mut [u8]) -> Result<PacketView, OffloadError> {
    if header.segmentation != Segmentation::None {
        return Err(OffloadError::ProtocolMismatch);
    }
    let view = PacketView::parse(packet)?;
    if header.needs_checksum {
        complete_checksum(header, &mut packet[..view.total_length()], &view)?;
    }
    Ok(view)
}

fn complete_checksum(header: VirtioHeader, packet: &mut [u8], view: &PacketView) -> Result<(), OffloadError> {
    if view.fragment().is_some() {
        return Err(OffloadError::Fragment);
    }
    let (start, offset) = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
    let expected = transport_checksum(view);
    if start < view.transport_offset() || expected.is_some_and(|at| (start, offset) != at) {
        return Err(OffloadError::ChecksumPosition);
    }
    if start + offset + 2 > packet.len() {
        return Err(OffloadError::ChecksumPosition);
    }
    let segment = &mut packet[start..];
    let checksum = match view.transport() {
        Transport::Tcp { .. } => full_checksum(view, segment, TCP_CHECKSUM),
        Transport::Udp { .. } => {
            let length = usize::from(word_at(segment, 4));
            checksum::zero_as_ones(full_checksum(view, &mut segment[..length], UDP_CHECKSUM))
        }
        // The field holds what only the sender knows: the sum of a pseudo header, or zero.
        _ => Sum::new().bytes(segment).checksum(),
    };
    put_word(segment, offset, checksum);
    Ok(())
}

/// Where the range that the checksum covers begins, and where the field lies in it.
const fn transport_checksum(view: &PacketView) -> Option<(usize, usize)> {
    match view.transport() {
        Transport::Tcp { .. } => Some((view.transport_offset(), TCP_CHECKSUM)),
        Transport::Udp { .. } => Some((view.transport_offset(), UDP_CHECKSUM)),
        _ => None,
    }
}

/// The checksum of a whole segment, whatever its field says.
fn full_checksum(view: &PacketView, segment: &mut [u8], field: usize) -> u16 {
    put_word(segment, field, 0);
    let length = segment.len() as u32;
    Sum::new()
        .pseudo_header(view.source(), view.destination(), view.protocol(), length)
        .bytes(segment)
        .checksum()
}

fn check_super_packet(packet: &[u8]) -> Result<PacketView, OffloadError> {
    if packet.len() > MAXIMUM_LENGTH {
        return Err(OffloadError::TooLong);
    }
    let view = PacketView::parse(packet)?;
    if view.total_length() != packet.len() {
        return Err(OffloadError::LengthMismatch);
    }
    if view.fragment().is_some() {
        return Err(OffloadError::Fragment);
    }
    if !view.is_ipv4() && view.transport_offset() != size_of::<crate::header::Ipv6Header>() {
        return Err(OffloadError::ExtensionHeaders);
    }
    Ok(view)
}

fn cut(
    header: VirtioHeader,
    segmentation: Segmentation,
    packet: &[u8],
    view: &PacketView,
) -> Result<Cut, OffloadError> {
    let position = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
    let header_length = header_length(segmentation, packet, view)?;
    if !header.needs_checksum || transport_checksum(view) != Some(position) {
        return Err(OffloadError::ChecksumPosition);
    }
    let segment_size = usize::from(header.segment_size);
    let payload = packet.len() - header_length;
    match (payload, segment_size) {
        (0, _) => Err(OffloadError::NoPayload),
        (_, 0) => Err(OffloadError::SegmentSize),
        _ if payload.div_ceil(segment_size) > MAXIMUM_SEGMENTS => Err(OffloadError::TooManySegments),
        _ => {
            let kind = if segmentation == Segmentation::Udp { Kind::Udp } else { Kind::Tcp };
            Ok(Cut { header_length, segment_size, count: payload.div_ceil(segment_size), kind })
        }
    }
}

/// A cut into pieces of at most `longest` bytes, if that leaves room for payload.
fn finer(length: usize, header_length: usize, longest: usize, kind: Kind) -> Option<Cut> {
    let room = longest.checked_sub(header_length)?;
    let segment_size = if kind == Kind::Fragments { room / 8 * 8 } else { room };
    let count = length.checked_sub(header_length)?.div_ceil(segment_size.max(1));
    let is_possible = segment_size > 0 && (1..=MAXIMUM_SEGMENTS).contains(&count);
    is_possible.then_some(Cut { header_length, segment_size, count, kind })
}

/// IPv4 without options, which not every fragment would repeat, and without "don't fragment".
fn may_be_fragmented(packet: &[u8]) -> bool {
    packet.first() == Some(&0x45) && word_at(packet, 6) & Ipv4Header::DONT_FRAGMENT == 0
}

/// Length of all headers, when the packet is one that may be cut like this.
fn header_length(
    segmentation: Segmentation,
    packet: &[u8],
    view: &PacketView,
) -> Result<usize, OffloadError> {
    let segment = &packet[view.transport_offset()..];
    match (segmentation, view.transport()) {
        (Segmentation::TcpV4, Transport::Tcp { flags, .. }) if view.is_ipv4() => {
            tcp_header(view, segment, flags)
        }
        (Segmentation::TcpV6, Transport::Tcp { flags, .. }) if !view.is_ipv4() => {
            tcp_header(view, segment, flags)
        }
        (Segmentation::Udp, Transport::Udp { .. }) if usize::from(word_at(segment, 4)) != segment.len() => {
            Err(OffloadError::LengthMismatch)
        }
        (Segmentation::Udp, Transport::Udp { .. }) => Ok(view.transport_offset() + size_of::<UdpHeader>()),
        _ => Err(OffloadError::ProtocolMismatch),
    }
}

fn tcp_header(view: &PacketView, segment: &[u8], flags: TcpFlags) -> Result<usize, OffloadError> {
    if flags.contains(TcpFlags::SYN) || flags.contains(TcpFlags::RST) {
        return Err(OffloadError::ControlBits);
    }
    // The view has checked the length of the header.
    Ok(view.transport_offset() + usize::from(segment[12] >> 4) * 4)
}
