//! UDP to TUN: take off the channel header, open, find the flow, rewrite.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use adit_packet::PacketView;
use adit_wireguard::Attention;

use super::route::{Stop, is_control};
use super::{Inbound, Worker};
use crate::path::{ChannelData, is_channel_data};
use crate::{CHANNEL_HEADER, DropReason, Origin, Path, PeerId, StreamId};

/// A datagram of a known session, opened.
struct Opened {
    peer: PeerId,
    /// Where the padded plaintext lies in the datagram; empty for a keepalive.
    plaintext: Range<usize>,
}

impl Worker {
    /// Takes a datagram from the network, received at `local` from `from`.
    pub fn inbound(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Inbound {
        self.take(now, Path { local, remote: from, channel: None, stream: None }, datagram)
    }

    /// Takes a whole message that came from a relay over a stream.
    pub fn inbound_message(&mut self, now: Instant, stream: StreamId, message: &mut [u8]) -> Inbound {
        self.take(now, Path::of_stream(stream), message)
    }

    fn take(&mut self, now: Instant, from: Path, datagram: &mut [u8]) -> Inbound {
        let opened = match self.open(now, from, datagram) {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                self.counters.not_mine += 1;
                return Inbound::NotMine;
            }
            Err(reason) => return self.drop_inbound(reason),
        };
        if opened.plaintext.is_empty() {
            self.counters.keepalives += 1;
            return Inbound::Keepalive;
        }
        let packet = &mut datagram[opened.plaintext.clone()];
        let Ok(view) = PacketView::parse(packet) else {
            return self.drop_inbound(DropReason::MalformedPacket);
        };
        let delivered = self.deliver(now, opened.peer, packet, view);
        let start = opened.plaintext.start;
        self.finish(now, opened.peer, datagram, start..start + view.total_length(), delivered)
    }

    /// Takes a packet once more that was a miss at `range` of its datagram, after updates that may have made it none.
    pub fn inbound_again(
        &mut self,
        now: Instant,
        peer: PeerId,
        datagram: &mut [u8],
        range: Range<usize>,
    ) -> Inbound {
        let packet = datagram.get_mut(range.clone()).unwrap_or_default();
        let Ok(view) = PacketView::parse(packet) else {
            return self.drop_inbound(DropReason::MalformedPacket);
        };
        let delivered = self.deliver(now, peer, packet, view);
        self.finish(now, peer, datagram, range, delivered)
    }

    /// Says what became of the packet at `range` of its datagram.
    #[inline(always)] // a part of the hot path that has two callers
    fn finish(
        &mut self,
        now: Instant,
        peer: PeerId,
        datagram: &mut [u8],
        range: Range<usize>,
        delivered: Result<(), Stop>,
    ) -> Inbound {
        match delivered {
            Ok(()) => {
                self.counters.received_packets += 1;
                self.counters.received_bytes += range.len() as u64;
                Inbound::Tun(range)
            }
            Err(Stop::Miss) if !self.peers.may_miss(self.millis(now), peer) => {
                self.drop_inbound(DropReason::NewFlowsTooFast)
            }
            Err(Stop::Miss) => {
                self.counters.misses += 1;
                Inbound::Miss { peer, range }
            }
            Err(Stop::OtherFamily(handle)) => match self.deliver_translated(now, datagram, range, handle) {
                Ok(translated) => Inbound::Tun(translated),
                Err(reason) => self.drop_inbound(reason),
            },
            Err(Stop::TooBig(_)) => self.drop_inbound(DropReason::PacketTooBig),
            Err(Stop::Drop(reason)) => self.drop_inbound(reason),
        }
    }

    const fn drop_inbound(&mut self, reason: DropReason) -> Inbound {
        self.counters.note_drop(reason);
        Inbound::Drop(reason)
    }

    /// Decrypts a datagram of a known session; `None` when it is not ours to handle.
    fn open(&mut self, now: Instant, from: Path, datagram: &mut [u8]) -> Result<Option<Opened>, DropReason> {
        let Carried { range, channel } = carried(datagram)?;
        let message = &mut datagram[range.clone()];
        let session = adit_wireguard::receiver_index(message).and_then(|index| self.peers.session(index));
        let Some((peer, session)) = session else { return Ok(None) };
        if session.is_expired(now) {
            return Err(DropReason::SessionExpired);
        }
        let mut window = session.window();
        let newest = window.newest();
        let plaintext = window.open_in_place(message)?;
        // A late datagram says nothing about where the peer is now.
        let is_newest = window.newest() > newest;
        drop(window);
        let attention = session.activity().record_received(now, 1, plaintext.len() as u64);
        let seen = Path { channel, ..from };
        let millis = self.millis(now);
        if is_newest && self.peers.comes_another_way(millis, peer, &seen) {
            self.peers.note_roamed(millis, peer, seen);
        }
        if attention == Attention::Wanted {
            self.peers.note_active(peer);
        }
        let plaintext = range.start + plaintext.start..range.start + plaintext.end;
        Ok(Some(Opened { peer, plaintext }))
    }

    /// Rewrites a packet of a peer for the TUN device, if a flow lets it pass.
    ///
    /// The flow is the source check: its key names the peer and the addresses that the
    /// control thread has allowed this peer.
    fn deliver(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &mut [u8],
        view: PacketView,
    ) -> Result<(), Stop> {
        self.table.note_held(None);
        if is_control(&view) {
            return Err(Stop::Miss);
        }
        let (millis, origin) = (self.millis(now), Origin::Peer(peer));
        let route = self.route(millis, origin, packet, view)?;
        match self.next_hop(millis, &route)? {
            Origin::Local => Ok(self.pass(millis, origin, packet, &route)?),
            Origin::Peer(_) => Err(DropReason::InconsistentFlow.into()),
        }
    }
}

/// What a datagram carries, and the channel it came in.
struct Carried {
    range: Range<usize>,
    channel: Option<u16>,
}

fn carried(datagram: &[u8]) -> Result<Carried, DropReason> {
    if !is_channel_data(datagram) {
        return Ok(Carried { range: 0..datagram.len(), channel: None });
    }
    let ChannelData { channel, length } =
        ChannelData::parse(datagram).ok_or(DropReason::MalformedChannelData)?;
    Ok(Carried { range: CHANNEL_HEADER..CHANNEL_HEADER + length, channel: Some(channel) })
}
