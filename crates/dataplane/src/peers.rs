//! Peers with their sessions and paths.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use adit_wireguard::Session;

use crate::allowance::Allowance;
use crate::hasher::{SeededMap, SeededState};
use crate::{Event, Path, PeerId};

/// Least time between two reports that a peer's datagrams come another way, in milliseconds.
const ROAM_INTERVAL: u64 = 100;

/// Bytes of an inner packet that every path carries.
pub(crate) const BASE_MTU: u16 = 1280;

/// How to send to a peer.
pub(crate) struct Way<'a> {
    pub(crate) session: &'a Session,
    pub(crate) path: Path,
    /// The most bytes of an inner packet.
    pub(crate) mtu: u16,
}

#[derive(Debug)]
struct Peer {
    path: Option<Path>,
    mtu: Option<u16>,
    send: Option<Arc<Session>>,
    /// Receiver indices of its sessions.
    indices: Vec<u32>,
    /// A `PeerActive` event waits to be drained.
    active: bool,
    /// A `Roamed` event waits to be drained.
    roamed: Option<Path>,
    /// The other way that was told last, and when.
    told: Option<(Path, u64)>,
    misses: Allowance,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            path: None,
            mtu: None,
            send: None,
            indices: Vec::new(),
            active: false,
            roamed: None,
            told: None,
            misses: Allowance::of_peer(),
        }
    }
}

/// Sessions by receiver index, and what is known of each peer.
///
/// Events are kept as one flag each per peer, so that none is lost and none needs a bound.
#[derive(Debug)]
pub(crate) struct Peers {
    sessions: SeededMap<u32, (PeerId, Arc<Session>)>,
    peers: SeededMap<PeerId, Peer>,
    news: VecDeque<PeerId>,
}

impl Peers {
    pub(crate) fn new(state: SeededState) -> Self {
        Self {
            sessions: SeededMap::with_hasher(state.clone()),
            peers: SeededMap::with_hasher(state),
            news: VecDeque::new(),
        }
    }

    /// Known peers and sessions.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.peers.len(), self.sessions.len())
    }

    /// The session that opens datagrams with this receiver index.
    pub(crate) fn session(&self, receiver_index: u32) -> Option<(PeerId, &Session)> {
        self.sessions.get(&receiver_index).map(|(peer, session)| (*peer, &**session))
    }

    /// How to send to a peer now: `None` without a live session or without a path.
    pub(crate) fn way(&self, now: Instant, peer: PeerId) -> Option<Way<'_>> {
        let peer = self.peers.get(&peer)?;
        let session = peer.send.as_deref().filter(|session| !session.is_expired(now))?;
        Some(Way { session, path: peer.path?, mtu: peer.mtu.unwrap_or(BASE_MTU) })
    }

    pub(crate) fn add_session(&mut self, id: PeerId, session: Arc<Session>) {
        let index = session.receiver_index();
        self.remove_session(index);
        self.peers.entry(id).or_default().indices.push(index);
        self.sessions.insert(index, (id, session));
    }

    pub(crate) fn remove_session(&mut self, receiver_index: u32) {
        let Some((id, _)) = self.sessions.remove(&receiver_index) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.indices.retain(|index| *index != receiver_index);
        peer.send.take_if(|session| session.receiver_index() == receiver_index);
    }

    pub(crate) fn set_send_session(&mut self, peer: PeerId, session: Arc<Session>) {
        self.peers.entry(peer).or_default().send = Some(session);
    }

    pub(crate) fn set_path(&mut self, peer: PeerId, path: Path) {
        let peer = self.peers.entry(peer).or_default();
        if peer.path != Some(path) {
            (peer.path, peer.told) = (Some(path), None);
        }
    }

    pub(crate) fn set_mtu(&mut self, peer: PeerId, mtu: u16) {
        self.peers.entry(peer).or_default().mtu = Some(mtu.max(BASE_MTU));
    }

    pub(crate) fn remove(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for index in peer.indices {
            self.sessions.remove(&index);
        }
        self.news.retain(|other| *other != id);
    }

    /// Whether a packet of a peer without a flow may go to the control thread.
    pub(crate) fn may_miss(&mut self, now: u64, id: PeerId) -> bool {
        self.peers.get_mut(&id).is_none_or(|peer| peer.misses.take(now))
    }

    /// Notes that a peer has traffic after quiet.
    pub(crate) fn note_active(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !std::mem::replace(&mut peer.active, true) && peer.roamed.is_none() {
            self.news.push_back(id);
        }
    }

    /// Whether an authentic datagram came another way than we send, and that is news.
    pub(crate) fn comes_another_way(&self, now: u64, id: PeerId, seen: &Path) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let same = |path: &Path| path.leads_where(seen);
        !peer.path.as_ref().is_some_and(same)
            && !peer.told.as_ref().is_some_and(|(path, at)| same(path) || now < at + ROAM_INTERVAL)
    }

    /// Notes the other way that datagrams of a peer came.
    pub(crate) fn note_roamed(&mut self, now: u64, id: PeerId, seen: Path) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.told = Some((seen, now));
        if peer.roamed.replace(seen).is_none() && !peer.active {
            self.news.push_back(id);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let id = *self.news.front()?;
        let peer = self.peers.get_mut(&id)?;
        let event = if std::mem::take(&mut peer.active) {
            Event::PeerActive { peer: id }
        } else {
            Event::Roamed { peer: id, path: peer.roamed.take()? }
        };
        if peer.roamed.is_none() {
            self.news.pop_front();
        }
        Some(event)
    }
}
