//! A worker in miniature: seals and opens by what the node publishes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_peering::{ConnectionId, Forwarding, Node, Path, StreamId, Transmit, WorkerEvent};
use adit_wireguard::{Attention, HEADER, OVERHEAD, PADDING, Session, is_data, receiver_index};

#[derive(Default)]
pub(crate) struct Worker {
    sessions: BTreeMap<u32, (ConnectionId, Arc<Session>)>,
    sending: BTreeMap<ConnectionId, Arc<Session>>,
    paths: BTreeMap<ConnectionId, Path>,
    told: BTreeMap<ConnectionId, Path>,
    /// The largest packets that arrive, where more is known than that small ones do.
    pub(crate) mtu: BTreeMap<ConnectionId, u16>,
    /// Packets sealed and opened here rather than by the control thread.
    pub(crate) sealed: u64,
    pub(crate) opened: u64,
}

impl Worker {
    pub(crate) fn apply(&mut self, forwarding: Forwarding) {
        match forwarding {
            Forwarding::SessionAdded { id, session } => {
                self.sessions.insert(session.receiver_index(), (id, session));
            }
            Forwarding::SessionRemoved { receiver_index } => {
                self.sessions.remove(&receiver_index);
                self.sending.retain(|_, session| session.receiver_index() != receiver_index);
            }
            Forwarding::SendSession { id, session } => {
                self.sending.insert(id, session);
            }
            Forwarding::PathChanged { id, path } => {
                self.paths.insert(id, path);
                self.told.remove(&id);
            }
            Forwarding::MtuChanged { id, mtu } => {
                self.mtu.insert(id, mtu);
            }
            Forwarding::PeerRemoved { id } => {
                self.mtu.remove(&id);
                self.sending.remove(&id);
                self.paths.remove(&id);
                self.told.remove(&id);
                assert!(!self.sessions.values().any(|(other, _)| *other == id), "sessions go before");
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.sending.is_empty() && self.paths.is_empty()
    }

    /// Whether a packet could be sealed and sent without asking anybody.
    pub(crate) fn can_send(&self, id: ConnectionId) -> bool {
        self.sending.contains_key(&id) && self.paths.contains_key(&id)
    }

    /// Seals a packet; also says whether the device wants to hear of it.
    pub(crate) fn seal(&mut self, now: Instant, id: ConnectionId, packet: &[u8]) -> Option<(Transmit, bool)> {
        let (session, path) = (self.sending.get(&id)?, self.paths.get(&id)?);
        if session.is_expired(now) {
            return None;
        }
        let mut datagram = vec![0; packet.len().next_multiple_of(PADDING) + OVERHEAD];
        datagram[HEADER..HEADER + packet.len()].copy_from_slice(packet);
        let length = session.seal_in_place(&mut datagram, packet.len()).ok()?;
        datagram.truncate(length);
        let attention = session.activity().record_sent(now, 1, packet.len() as u64);
        if let Some(channel) = path.channel {
            let header = [channel, u16::try_from(length).ok()?].map(u16::to_be_bytes).concat();
            datagram = [header, datagram].concat();
        }
        if path.stream.is_some() {
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        self.sealed += 1;
        let Path { local: source, remote: destination, stream, .. } = *path;
        let transmit = Transmit { source, destination, stream, payload: datagram };
        Some((transmit, attention == Attention::Wanted))
    }

    /// Opens a datagram of a known session: `Some(None)` if it was a keepalive or control packet.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        node: &mut Node,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Option<Vec<u8>>> {
        self.open_from(now, node, Path { local, remote: from, channel: None, stream: None }, datagram)
    }

    /// The same for a message of a stream.
    pub(crate) fn open_from_stream(
        &mut self,
        now: Instant,
        node: &mut Node,
        stream: StreamId,
        message: &mut [u8],
    ) -> Option<Option<Vec<u8>>> {
        let nowhere = SocketAddr::from(([0; 4], 0));
        let from = Path { local: nowhere, remote: nowhere, channel: None, stream: Some(stream) };
        self.open_from(now, node, from, message)
    }

    fn open_from(
        &mut self,
        now: Instant,
        node: &mut Node,
        from: Path,
        datagram: &mut [u8],
    ) -> Option<Option<Vec<u8>>> {
        let (channel, offset) = match datagram.first_chunk::<4>() {
            Some([high @ 0x40..=0x4f, low, ..]) => (Some(u16::from_be_bytes([*high, *low])), 4),
            _ => (None, 0),
        };
        let end = match (channel, datagram.get(2..4)) {
            // What follows the payload is padding.
            (Some(_), Some(length)) => offset + usize::from(u16::from_be_bytes([length[0], length[1]])),
            _ => datagram.len(),
        };
        let inner = datagram.get_mut(offset..end)?;
        if !is_data(inner) {
            return None;
        }
        let (id, session) = self.sessions.get(&receiver_index(inner)?)?.clone();
        let Ok(range) = session.open_in_place(inner) else { return Some(None) };
        self.opened += 1;
        let packet = &inner[range];
        let attention = session.activity().record_received(now, 1, packet.len() as u64);
        if attention == Attention::Wanted {
            node.note_worker_event(now, id, WorkerEvent::Active);
        }
        let seen = Path { channel, ..from };
        let same_end = |path: &Path| path.remote == seen.remote || seen.stream.is_some();
        let same = |path: &Path| same_end(path) && (path.channel, path.stream) == (seen.channel, seen.stream);
        if !self.paths.get(&id).is_some_and(same) && self.told.insert(id, seen) != Some(seen) {
            node.note_worker_event(now, id, WorkerEvent::Roamed { path: seen });
        }
        if adit_protocol::peer::is_control(packet) {
            let _ = node.handle_control_packet(now, id, packet);
            return Some(None);
        }
        Some((!packet.is_empty()).then(|| packet.to_vec()))
    }
}
