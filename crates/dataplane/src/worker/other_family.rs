//! Packets of flows whose ends speak different IP families, beside the hot path.
//!
//! A packet changes its length here, so it is translated into a buffer of the worker and copied where it belongs: into
//! its datagram, whose headers make room for it, or sealed from the buffer like any other. A super-packet is translated
//! whole, and cut after that. What a path carries is counted in packets of the tunnel, so whoever sends too much is told
//! what that means in its own family.
//!
//! Maximum segment sizes of TCP are lowered to what fits the tunnel's interface in the longer of the two families: then
//! neither side needs path MTU discovery to get anywhere. Narrower paths than that are what segments are cut for.

use std::ops::Range;
use std::time::Instant;

use adit_packet::offload::{Segmentation, SuperPacket, VirtioHeader};
use adit_packet::translate::{HEADER_DIFFERENCE, TCP_HEADERS_V6};
use adit_packet::{PacketView, Rewrite, TcpFlags, Transport, clamp_mss};

use super::Worker;
use super::outbound::Sealed;
use super::route::{Stop, rewrite_of};
use crate::peers::BASE_MTU;
use crate::table::Handle;
use crate::{DropReason, PeerId};

/// The longest packet that either family knows, and its header.
const LONGEST: usize = 65_535 + 40;
/// What a tunnel's interface carries at least, before anything is known of paths.
const LEAST_INTERFACE_MTU: u16 = 1420;

/// Where packets are translated.
#[derive(Debug, Default)]
pub(super) struct Translator {
    /// Empty until it is needed.
    buffer: Vec<u8>,
    /// Of the last IPv4 packet that may be fragmented.
    identification: u16,
}

/// One direction of a flow, and what its packets need.
struct Crossing {
    handle: Handle,
    peer: PeerId,
    rewrite: Rewrite,
    /// The most bytes of a packet of the tunnel.
    mtu: u16,
}

impl Translator {
    /// `identification` is where the numbers of fragmentable packets begin, best at random.
    pub(super) const fn new(identification: u16) -> Self {
        Self { buffer: Vec::new(), identification }
    }

    /// What a packet becomes in the other family, at most `room` bytes; `cut` belongs to a super-packet.
    fn translate(
        &mut self,
        crossing: &Crossing,
        packet: &[u8],
        view: &PacketView,
        cut: Option<VirtioHeader>,
        room: usize,
    ) -> Result<&mut [u8], DropReason> {
        let Crossing { rewrite, mtu, .. } = crossing;
        let segment_size = cut.map(|header| usize::from(header.segment_size).max(1));
        let packets = segment_size.map_or(1, |size| packet.len().div_ceil(size));
        let identification = self.identification.wrapping_add(1);
        self.identification = self.identification.wrapping_add(packets as u16);
        self.buffer.resize(LONGEST, 0);
        let out = &mut self.buffer[..room.min(LONGEST)];
        let length = match segment_size {
            Some(size) => rewrite.translate_partial(packet, view, size, identification, out)?,
            None => rewrite.translate(packet, view, identification, out)?,
        };
        let out = &mut out[..length];
        if view.tcp_flags().contains(TcpFlags::SYN) {
            let view = PacketView::parse(out).map_err(|_| DropReason::RewriteFailed)?;
            clamp_mss(out, &view, (*mtu).max(LEAST_INTERFACE_MTU).saturating_sub(TCP_HEADERS_V6));
        }
        Ok(out)
    }
}

impl Worker {
    /// Translates the packet of a peer at `range` of its datagram, and says where in the datagram it is then.
    pub(super) fn deliver_translated(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        range: Range<usize>,
        handle: Handle,
    ) -> Result<Range<usize>, DropReason> {
        let room = datagram.len();
        let packet = datagram.get(range).unwrap_or_default();
        let view = PacketView::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
        let crossing = self.crossing(now, handle)?;
        let translated = self.translator.translate(&crossing, packet, &view, None, room)?;
        let length = translated.len();
        datagram[..length].copy_from_slice(translated);
        self.account(now, handle, &view, 1, view.total_length());
        self.counters.received_packets += 1;
        self.counters.received_bytes += view.total_length() as u64;
        Ok(0..length)
    }

    /// Translates a packet from the TUN device, of many segments perhaps, and seals it into `out`.
    pub(super) fn seal_translated(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        packet: &SuperPacket<'_>,
        handle: Handle,
        out: &mut [u8],
    ) -> Result<Sealed, Stop> {
        let crossing = self.crossing(now, handle)?;
        if self.peers.way(now, crossing.peer).is_none() {
            return Err(Stop::Miss);
        }
        let mut translator = std::mem::take(&mut self.translator);
        let sealed = self.translate_and_seal(now, header, packet, &crossing, &mut translator, out);
        self.translator = translator;
        sealed
    }

    fn translate_and_seal(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        packet: &SuperPacket<'_>,
        crossing: &Crossing,
        translator: &mut Translator,
        out: &mut [u8],
    ) -> Result<Sealed, Stop> {
        let view = packet.view();
        let cut = packet.is_segmented().then_some(header);
        let bytes = translator.translate(crossing, packet.packet(), view, cut, LONGEST)?;
        let header = cut.map_or(VirtioHeader::NONE, |header| other_header(header, view.is_ipv4()));
        let mut translated = SuperPacket::new(header, bytes).map_err(|_| DropReason::RewriteFailed)?;
        if !translated.limit(usize::from(crossing.mtu)) {
            return Err(Stop::TooBig(other_mtu(crossing.mtu, view.is_ipv4())));
        }
        let length = translated.packet().len();
        self.account(now, crossing.handle, view, packet.segment_count(), length);
        self.seal_whole(now, crossing.peer, &translated, out)
    }

    /// What is needed of a flow's direction; it must lead from a peer to the TUN device, or back.
    fn crossing(&mut self, now: Instant, handle: Handle) -> Result<Crossing, DropReason> {
        let millis = self.millis(now);
        let entry = self.table.get(millis, handle).ok_or(DropReason::RewriteFailed)?;
        let rewrite = rewrite_of(entry, handle);
        let peer = entry.peer().ok_or(DropReason::InconsistentFlow)?;
        let mtu = self.peers.way(now, peer).map_or(BASE_MTU, |way| way.mtu);
        Ok(Crossing { handle, peer, rewrite, mtu })
    }

    /// Counts packets that passed; an error does not show that the flow is in use.
    fn account(&mut self, now: Instant, handle: Handle, view: &PacketView, packets: usize, bytes: usize) {
        let millis = self.millis(now);
        let Some(entry) = self.table.get(millis, handle) else { return };
        entry.count(handle.reply, packets as u64, bytes as u64);
        if !matches!(view.transport(), Transport::IcmpError { .. }) {
            self.table.note_use(millis, handle, view.tcp_flags());
        }
    }
}

/// What the virtio header of a super-packet says in the other family.
const fn other_header(header: VirtioHeader, is_ipv4: bool) -> VirtioHeader {
    let segmentation = match header.segmentation {
        Segmentation::TcpV4 => Segmentation::TcpV6,
        Segmentation::TcpV6 => Segmentation::TcpV4,
        other => other,
    };
    // Both without options and extension headers, however it came.
    let checksum_start = if is_ipv4 { 40 } else { 20 };
    VirtioHeader { segmentation, checksum_start, ..header }
}

/// What `mtu` bytes of the tunnel are in packets of the family that is `is_ipv4`, which are translated for it.
const fn other_mtu(mtu: u16, is_ipv4: bool) -> u16 {
    let difference = HEADER_DIFFERENCE as u16;
    if is_ipv4 { mtu.saturating_sub(difference) } else { mtu.saturating_add(difference) }
}
