//! TUN to UDP: find the flow, rewrite, cut, seal, put the channel header in front.

use std::time::Instant;

use adit_packet::offload::{Segments, SuperPacket, VirtioHeader};
use adit_packet::protocol;
use adit_wireguard::{Attention, OVERHEAD};

use super::route::Stop;
use super::{Outbound, Worker};
use crate::path::ChannelData;
use crate::peers::Way;
use crate::{CHANNEL_HEADER, DropReason, Origin, Path, PeerId};

/// Datagrams side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Bytes of each but the last, which may be shorter.
    pub segment: usize,
    /// Bytes of all.
    pub length: usize,
}

/// What was sealed, and for whom.
pub(super) struct Sealed {
    peer: PeerId,
    path: Path,
    datagrams: Datagrams,
}

impl Worker {
    /// Takes a packet from the TUN device, one of many segments perhaps, and seals it into `out`.
    ///
    /// `header` says what the packet is ([`VirtioHeader::NONE`] where the device says nothing). `out` should have
    /// room for [`room`](crate::room) bytes; with less the packet is dropped. After [`Outbound::Miss`] the packet is
    /// as it was, but for a checksum that may have been completed.
    pub fn outbound(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        packet: &mut [u8],
        out: &mut [u8],
    ) -> Outbound {
        match self.seal_packet(now, header, packet, out) {
            Ok(Sealed { peer, path, datagrams }) => Outbound::Send { peer, path, datagrams },
            Err(Stop::Miss) if !self.misses.take(self.millis(now)) => {
                self.counters.note_drop(DropReason::NewFlowsTooFast);
                Outbound::Drop(DropReason::NewFlowsTooFast)
            }
            Err(Stop::Miss) => {
                self.counters.misses += 1;
                Outbound::Miss
            }
            Err(Stop::TooBig(mtu)) => {
                self.counters.note_drop(DropReason::PacketTooBig);
                Outbound::TooBig { mtu }
            }
            Err(Stop::Drop(reason)) => {
                self.counters.note_drop(reason);
                Outbound::Drop(reason)
            }
            Err(Stop::OtherFamily(_)) => {
                self.counters.note_drop(DropReason::InconsistentFlow);
                Outbound::Drop(DropReason::InconsistentFlow)
            }
        }
    }

    fn seal_packet(
        &mut self,
        now: Instant,
        header: VirtioHeader,
        packet: &mut [u8],
        out: &mut [u8],
    ) -> Result<Sealed, Stop> {
        let mut packet = SuperPacket::new(header, packet).map_err(|_| DropReason::MalformedPacket)?;
        if packet.view().protocol() == protocol::EXPERIMENT {
            return Err(DropReason::ControlLookalike.into());
        }
        let millis = self.millis(now);
        self.table.note_held(None);
        let route = match self.route(millis, Origin::Local, packet.packet(), *packet.view()) {
            Err(Stop::OtherFamily(handle)) => return self.seal_translated(now, header, &packet, handle, out),
            route => route?,
        };
        let Origin::Peer(peer) = self.next_hop(millis, &route)? else {
            return Err(DropReason::InconsistentFlow.into());
        };
        // Asked before anything is changed, because a miss must leave the packet as it is.
        let Some(Way { mtu, .. }) = self.peers.way(now, peer) else { return Err(Stop::Miss) };
        if !packet.limit(usize::from(mtu)) {
            return Err(Stop::TooBig(mtu));
        }
        self.pass_outbound(millis, &mut packet, &route)?;
        self.seal_whole(now, peer, &packet, out)
    }

    /// Seals what has been routed and rewritten.
    #[inline(always)] // a part of the hot path that has two callers
    pub(super) fn seal_whole(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &SuperPacket<'_>,
        out: &mut [u8],
    ) -> Result<Sealed, Stop> {
        let (packets, bytes) = (packet.segment_count() as u64, packet.packet().len() as u64);
        let way = self.peers.way(now, peer).ok_or(Stop::Miss)?;
        let datagrams = seal_segments(&way, &packet.segments(), out)?;
        let Way { session, path, .. } = way;
        let attention = session.activity().record_sent(now, packets, bytes);
        self.counters.sent_packets += packets;
        self.counters.sent_bytes += bytes;
        if attention == Attention::Wanted {
            self.peers.note_active(peer);
        }
        Ok(Sealed { peer, path, datagrams })
    }
}

/// Writes and seals one segment behind the other.
fn seal_segments(way: &Way<'_>, segments: &Segments<'_>, out: &mut [u8]) -> Result<Datagrams, DropReason> {
    let Way { session, path, mtu } = way;
    let prefix = if path.channel.is_some() { CHANNEL_HEADER } else { 0 };
    let (mut segment, mut length) = (0, 0);
    for index in 0..segments.count() {
        let datagram = out.get_mut(length..).unwrap_or_default();
        let place = datagram.get_mut(prefix + adit_wireguard::HEADER..).ok_or(DropReason::BufferTooSmall)?;
        let plaintext = segments.write(index, place);
        if plaintext == 0 || datagram.len() < prefix + plaintext + OVERHEAD {
            return Err(DropReason::BufferTooSmall);
        }
        // Padding must not make a datagram larger than the path carries.
        let end = datagram.len().min(prefix + usize::from(*mtu).max(plaintext) + OVERHEAD);
        let sealed = session.seal_in_place(&mut datagram[prefix..end], plaintext)?;
        if let Some(channel) = path.channel {
            ChannelData::write(channel, sealed, datagram).ok_or(DropReason::BufferTooSmall)?;
        }
        length += prefix + sealed;
        segment = segment.max(prefix + sealed);
    }
    Ok(Datagrams { segment, length })
}
