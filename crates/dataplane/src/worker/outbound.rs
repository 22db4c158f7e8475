//! TUN to UDP: find the flow, rewrite, seal, put the channel header in front.

use std::ops::Range;
use std::time::Instant;

use adit_packet::{PacketView, protocol};
use adit_wireguard::Attention;

use super::route::Stop;
use super::{Outbound, Worker};
use crate::path::ChannelData;
use crate::{CHANNEL_HEADER, DropReason, HEADROOM, Origin, Path, PeerId};

/// A sealed datagram.
struct Sealed {
    peer: PeerId,
    path: Path,
    range: Range<usize>,
}

impl Worker {
    /// Takes the packet at `buffer[HEADROOM..HEADROOM + packet_len]` from the TUN device.
    ///
    /// `buffer` should have [`TAILROOM`](crate::TAILROOM) bytes behind the packet; with less
    /// than the tag needs the packet is dropped. On [`Outbound::Send`] the packet has been
    /// rewritten and sealed in place.
    pub fn outbound(&mut self, now: Instant, buffer: &mut [u8], packet_len: usize) -> Outbound {
        match self.seal_packet(now, buffer, packet_len) {
            Ok(Sealed { peer, path, range }) => Outbound::Send { peer, path, range },
            Err(Stop::Miss) => {
                self.counters.misses += 1;
                Outbound::Miss
            }
            Err(Stop::Drop(reason)) => {
                self.counters.note_drop(reason);
                Outbound::Drop(reason)
            }
        }
    }

    fn seal_packet(&mut self, now: Instant, buffer: &mut [u8], packet_len: usize) -> Result<Sealed, Stop> {
        let end = HEADROOM.saturating_add(packet_len);
        let packet = buffer.get_mut(HEADROOM..end).ok_or(DropReason::BufferTooSmall)?;
        let view = PacketView::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
        if view.protocol() == protocol::EXPERIMENT {
            return Err(DropReason::ControlLookalike.into());
        }
        let millis = self.millis(now);
        let route = self.route(millis, Origin::Local, packet, view)?;
        let Origin::Peer(peer) = self.next_hop(millis, &route)? else {
            return Err(DropReason::InconsistentFlow.into());
        };
        // Asked before anything is changed, because a miss must leave the packet as it is.
        if self.peers.way(now, peer).is_none() {
            return Err(Stop::Miss);
        }
        self.pass(millis, Origin::Local, packet, &route)?;
        let length = route.view.total_length();
        let (session, path) = self.peers.way(now, peer).ok_or(Stop::Miss)?;
        let sealed =
            session.seal_in_place(&mut buffer[CHANNEL_HEADER..], length).map_err(DropReason::from)?;
        let attention = session.activity().record_sent(now, 1, length as u64);
        let range = put_channel_header(&path, buffer, sealed)?;
        self.counters.sent_packets += 1;
        self.counters.sent_bytes += length as u64;
        if attention == Attention::Wanted {
            self.peers.note_active(peer);
        }
        Ok(Sealed { peer, path, range })
    }
}

/// Where the datagram lies after its channel header, if it needs one, is written.
fn put_channel_header(path: &Path, buffer: &mut [u8], sealed: usize) -> Result<Range<usize>, DropReason> {
    let end = CHANNEL_HEADER + sealed;
    let Some(channel) = path.channel else { return Ok(CHANNEL_HEADER..end) };
    ChannelData::write(channel, sealed, buffer).ok_or(DropReason::BufferTooSmall)?;
    Ok(0..end)
}
