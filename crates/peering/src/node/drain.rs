//! Moving what the inner machines produced to where it belongs.

use std::time::Instant;

use adit_protocol::peer::PeerMessage;
use adit_wireguard::Event as DeviceEvent;

use super::Node;
use crate::Role;
use crate::connection::Connection;
use crate::relays::RelayChange;
use crate::{ConnectionId, Event, Forwarding};

impl Node {
    /// Runs until no inner machine has anything left to say.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            let device = self.drain_device(now);
            let relays = self.drain_relays(now);
            if !device && !relays {
                break;
            }
        }
        self.context(now).flush_relays();
        if self.machines.relays.take_need() {
            self.machines.out.event(Event::RelaysNeeded);
        }
    }

    /// Events before datagrams: a keepalive needs the path that an event selects.
    pub(super) fn drain_device(&mut self, now: Instant) -> bool {
        let mut progress = false;
        while let Some(event) = self.machines.device.poll_event() {
            progress = true;
            self.handle_device_event(now, event);
        }
        while let Some(transmit) = self.machines.device.poll_transmit() {
            progress = true;
            if let Some(id) = self.index.by_peer.get(&transmit.peer).copied() {
                self.touch(now, id, |connection, context| connection.transmit(context, transmit.datagram));
            }
        }
        progress
    }

    fn handle_device_event(&mut self, now: Instant, event: DeviceEvent) {
        match event {
            DeviceEvent::SessionEstablished { peer, session, .. } => {
                if let Some(id) = self.index.by_peer.get(&peer).copied() {
                    self.machines.out.forwarding(Forwarding::SessionAdded { id, session });
                }
            }
            DeviceEvent::SendSessionChanged { peer, session } => {
                let Some(id) = self.index.by_peer.get(&peer).copied() else { return };
                self.note_session_index(id, session.remote_index());
                self.touch(now, id, |connection, context| connection.note_send_session(context, &session));
            }
            DeviceEvent::SessionRemoved { peer, receiver_index } => {
                self.machines.out.forwarding(Forwarding::SessionRemoved { receiver_index });
                if let Some(id) = self.index.by_peer.get(&peer).copied() {
                    self.touch(now, id, |connection, _| connection.note_session_removed(receiver_index));
                }
            }
            DeviceEvent::PeerExpired { peer, reason } => {
                if let Some(id) = self.index.by_peer.get(&peer).copied() {
                    self.touch(now, id, |connection, context| connection.note_expired(context, reason));
                }
            }
        }
    }

    /// Makes the session that a connection sends with findable by the peer's index.
    fn note_session_index(&mut self, id: ConnectionId, remote_index: u32) {
        let before = self.connections.get_mut(&id).and_then(|slot| slot.session_index.replace(remote_index));
        if let Some(before) = before {
            self.index.by_session.remove(&before);
        }
        self.index.by_session.insert(remote_index, id);
    }

    fn drain_relays(&mut self, now: Instant) -> bool {
        let mut news = false;
        while let Some(change) = self.machines.relays.poll_change() {
            match change {
                RelayChange::Lent(key) => {
                    news = true;
                    self.touch_all(now, |connection, context| connection.note_lent(context, key));
                }
                RelayChange::Retiring(key) => {
                    // Peers are told to leave a stream before it is gone.
                    news |= self.machines.relays.is_stream(key);
                    self.touch_all(now, |connection, context| connection.note_retiring(context, key));
                }
                RelayChange::Lost(_) => {
                    news = true;
                    self.touch_all(now, |connection, context| {
                        connection.note_locals_changed(context, false);
                    });
                }
                RelayChange::Bound(holders) => {
                    for id in holders {
                        self.touch(now, id, Connection::publish);
                    }
                }
                RelayChange::Mapped => news = true,
            }
        }
        if news {
            self.announce(now);
        }
        news
    }

    /// Tells the portal, and every connected peer, how our candidates changed.
    pub(super) fn announce(&mut self, now: Instant) {
        let candidates = self.local_candidates();
        let missing = |list: &[adit_protocol::Candidate], from: &[adit_protocol::Candidate]| {
            from.iter().filter(|candidate| !list.contains(candidate)).copied().collect::<Vec<_>>()
        };
        let added = missing(&self.announced, &candidates);
        let removed = missing(&candidates, &self.announced);
        if added.is_empty() && removed.is_empty() {
            return;
        }
        self.announced = candidates;
        let message = PeerMessage::Candidates { added: added.clone(), removed: removed.clone() };
        self.touch_all(now, |connection, context| {
            if connection.is_connected() {
                // Lost or unsendable: the portal tells the peer the same.
                let _ = connection.send_message(context, &message);
            }
        });
        self.machines.out.event(Event::LocalCandidates { added, removed });
    }

    /// Gateways answer data for unknown sessions with a reset.
    pub(super) fn may_reset(&self) -> bool {
        self.machines.role == Role::Gateway && self.machines.resets.is_some()
    }
}
