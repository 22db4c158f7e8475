//! Relays: which ones there are and who uses which.
//!
//! A peer is given two relays and keeps them as long as they last. Which two is decided by a
//! hash of peer and relay, so that load spreads evenly and nobody moves when a third relay
//! appears. A relay that loses its control session keeps relaying; it is withdrawn only when it
//! has not come back within a second, so that a portal's or a network's hiccup moves nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use adit_policy::{RelayId, TokenId};
use adit_protocol::client::{DisconnectReason, RelaysChanged};
use adit_protocol::relay::RelayHello;
use adit_protocol::{PortalToRelay, RelayAccess, RelayTls};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::line::Line;
use super::{Attendee, Hub, Presence, Push, Receiver, SessionId, State};
use crate::{clock, credential};

/// Relays that one peer is given.
const RELAYS_PER_PEER: usize = 2;

/// How long credentials last.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// How long a relay may be away before its users are told.
pub(crate) const RETURN_TIME: Duration = Duration::from_secs(1);

/// Where a relay listens and under which secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayDetails {
    pub(crate) ipv4: Option<SocketAddr>,
    pub(crate) ipv6: Option<SocketAddr>,
    pub(crate) tcp_port: Option<u16>,
    pub(crate) tls: Option<RelayTls>,
    pub(crate) secret: String,
}

impl RelayDetails {
    /// From what the relay says of itself.
    pub(crate) fn new(hello: &RelayHello) -> Self {
        Self {
            ipv4: hello.ipv4.map(|ip| SocketAddr::from((ip, hello.port))),
            ipv6: hello.ipv6.map(|ip| SocketAddr::from((ip, hello.port))),
            tcp_port: hello.tcp_port,
            tls: hello.tls.clone(),
            secret: hello.secret.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Relay {
    /// Absent while the relay is away, or connected to another node.
    line: Option<Line<PortalToRelay>>,
    /// The other node that it is connected to.
    node: Option<Uuid>,
    details: RelayDetails,
    /// Grows whenever credentials that were handed out must be replaced.
    generation: u64,
    is_draining: bool,
}

impl Relay {
    pub(super) const fn is_online(&self) -> bool {
        self.line.is_some() || self.node.is_some()
    }

    pub(super) fn is_at(&self, node: Uuid) -> bool {
        self.node == Some(node)
    }

    /// Notes that it is not connected to that node any more; `false` when it was not.
    pub(super) fn leave_node(&mut self, node: Uuid) -> bool {
        let was_there = self.is_at(node);
        if was_there {
            self.node = None;
        }
        was_there
    }

    /// What other nodes must know, if it is connected to this one.
    pub(super) fn presence(&self) -> Option<Presence> {
        self.line.as_ref()?;
        Some(Presence::Relay { details: self.details.clone(), is_draining: self.is_draining })
    }

    pub(super) fn end(&self, reason: DisconnectReason) {
        if let Some(line) = &self.line {
            line.end(reason);
        }
    }

    pub(super) fn end_token(&self, token: TokenId) {
        if let Some(line) = self.line.as_ref().filter(|line| line.token == token) {
            line.end(DisconnectReason::RevokedToken);
        }
    }
}

impl State {
    fn tell_of_relays(&self) {
        let online = self.relays.values().filter(|relay| relay.is_online()).count();
        metrics::gauge!("adit_portal_sessions", "kind" => "relay").set(online as f64);
        self.clients.values().for_each(|entry| entry.line.push(Push::RelaysChanged));
        self.gateways.values().for_each(|entry| entry.line.push(Push::RelaysChanged));
    }

    /// Takes note of a relay that is connected to another node.
    pub(super) fn learn_relay(&mut self, node: Uuid, id: RelayId, details: RelayDetails, is_draining: bool) {
        let old = self.relays.remove(&id);
        let mut relay = Relay { line: None, node: Some(node), details, generation: 0, is_draining };
        let mut is_news = true;
        if let Some(old) = old {
            old.end(DisconnectReason::Superseded);
            let is_same = old.details == relay.details;
            is_news = !is_same || old.is_draining != is_draining || !old.is_online();
            relay.generation = old.generation + u64::from(!is_same);
        }
        self.relays.insert(id, relay);
        if is_news {
            self.tell_of_relays();
        }
    }
}

impl Hub {
    /// Takes a relay in; an older session of the same relay ends.
    pub(crate) fn join_relay(
        &self,
        id: RelayId,
        details: RelayDetails,
        who: Attendee,
    ) -> Receiver<PortalToRelay> {
        let mut state = self.lock();
        let (line, receiver) = Line::new(state.next_session(), who.token, who.key, who.address);
        if state.is_closing {
            line.end(DisconnectReason::Restart);
        }
        let old = state.relays.remove(&id);
        let mut relay = Relay { line: Some(line), node: None, details, generation: 0, is_draining: false };
        if let Some(old) = old {
            old.end(DisconnectReason::Superseded);
            relay.generation = old.generation + u64::from(old.details != relay.details);
        }
        state.relays.insert(id, relay);
        self.changed(&mut state, id.as_uuid());
        state.tell_of_relays();
        receiver
    }

    /// Notes that a relay lost its control session; `false` when a newer one has taken over.
    /// The caller calls [`Self::forget_relay`] after [`RETURN_TIME`].
    pub(crate) fn leave_relay(&self, id: RelayId, session: SessionId) -> bool {
        let mut state = self.lock();
        match state.relays.get_mut(&id) {
            Some(relay) if relay.line.as_ref().is_some_and(|line| line.session == session) => {
                relay.line = None;
                self.changed(&mut state, id.as_uuid());
                true
            }
            _ => false,
        }
    }

    /// Withdraws a relay that has not come back.
    pub(crate) fn forget_relay(&self, id: RelayId) {
        let mut state = self.lock();
        if state.relays.get(&id).is_some_and(|relay| !relay.is_online()) {
            state.relays.remove(&id);
            state.tell_of_relays();
        }
    }

    /// Takes over a relay's new secret and hands out credentials under it.
    pub(crate) fn rotate_relay_secret(&self, id: RelayId, secret: String) {
        let mut state = self.lock();
        if let Some(relay) = state.relays.get_mut(&id).filter(|relay| relay.details.secret != secret) {
            relay.details.secret = secret;
            relay.generation += 1;
            self.changed(&mut state, id.as_uuid());
            state.tell_of_relays();
        }
    }

    /// Hands a relay out no more; those that use it go on until it is gone, or leave it for another at once.
    pub(crate) fn drain_relay(&self, id: RelayId) {
        let mut state = self.lock();
        if let Some(relay) = state.relays.get_mut(&id).filter(|relay| !relay.is_draining) {
            relay.is_draining = true;
            self.changed(&mut state, id.as_uuid());
            state.tell_of_relays();
        }
    }
}

/// The relays that one peer was given.
#[derive(Debug)]
pub(crate) struct GivenRelays {
    device: Uuid,
    /// No credential outlives the peer's own token.
    session_expires_ms: Option<i64>,
    given: BTreeMap<RelayId, Given>,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    generation: u64,
    renew_ms: i64,
}

impl GivenRelays {
    /// Nothing given yet.
    pub(crate) const fn new(device: Uuid, session_expires_ms: Option<i64>) -> Self {
        Self { device, session_expires_ms, given: BTreeMap::new() }
    }

    /// The peer's session ends at another time: credentials that end with it are made anew.
    pub(crate) fn set_session_end(&mut self, session_expires_ms: Option<i64>) {
        self.session_expires_ms = session_expires_ms;
        for given in self.given.values_mut().filter(|given| given.renew_ms == i64::MAX) {
            given.renew_ms = 0;
        }
    }

    /// Brings the peer's relays up to date; `None` when nothing changes for it.
    pub(crate) fn update(&mut self, hub: &Hub) -> Option<RelaysChanged> {
        let state = hub.lock();
        let now_ms = clock::now_ms();
        let wanted = self.choose(&state);
        let removed: Vec<RelayId> = self.given.keys().filter(|id| !wanted.contains(id)).copied().collect();
        self.given.retain(|id, _| wanted.contains(id));
        let mut added = Vec::new();
        for id in wanted {
            let Some(relay) = state.relays.get(&id) else { continue };
            let fresh = self
                .given
                .get(&id)
                .is_some_and(|given| given.generation == relay.generation && given.renew_ms > now_ms);
            if !fresh {
                added.push(self.give(id, relay, now_ms));
            }
        }
        (!removed.is_empty() || !added.is_empty()).then_some(RelaysChanged { removed, added })
    }

    /// Everything anew, for a peer that has lost its relays.
    pub(crate) fn again(&mut self, hub: &Hub) -> RelaysChanged {
        self.given.clear();
        self.update(hub).unwrap_or_default()
    }

    /// When the next credentials must be renewed, in Unix milliseconds.
    pub(crate) fn renew_ms(&self) -> Option<i64> {
        self.given.values().map(|given| given.renew_ms).min()
    }

    /// What the peer has, filled up. A draining relay is better than none, and worse than any other.
    fn choose(&self, state: &State) -> Vec<RelayId> {
        let (draining, mut wanted): (Vec<RelayId>, Vec<RelayId>) = self
            .given
            .keys()
            .copied()
            .filter(|id| state.relays.contains_key(id))
            .partition(|id| state.relays.get(id).is_some_and(|relay| relay.is_draining));
        let mut others: Vec<_> = state
            .relays
            .iter()
            .filter(|(id, relay)| relay.is_online() && !relay.is_draining && !wanted.contains(id))
            .map(|(id, _)| (weight(self.device, *id), *id))
            .collect();
        others.sort_unstable();
        let room = RELAYS_PER_PEER.saturating_sub(wanted.len());
        wanted.extend(others.into_iter().take(room).map(|(_, id)| id));
        if wanted.is_empty() { draining } else { wanted }
    }

    fn give(&mut self, id: RelayId, relay: &Relay, now_ms: i64) -> RelayAccess {
        let longest = now_ms.saturating_add(i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX));
        let expires_ms = self.session_expires_ms.map_or(longest, |end| end.min(longest));
        let half = now_ms.saturating_add((expires_ms - now_ms) / 2);
        // Credentials that end with the session need no renewal.
        let renew_ms = if expires_ms == longest { half } else { i64::MAX };
        self.given.insert(id, Given { generation: relay.generation, renew_ms });
        credential::relay_access(id, &relay.details, self.device, expires_ms)
    }
}

/// Rendezvous hashing: each peer has its own stable order of relays.
fn weight(device: Uuid, relay: RelayId) -> [u8; 8] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(device.as_bytes());
    bytes[16..].copy_from_slice(relay.as_uuid().as_bytes());
    let hash = digest::digest(&digest::SHA256, &bytes);
    let mut weight = [0; 8];
    weight.copy_from_slice(&hash.as_ref()[..8]);
    weight
}

#[cfg(test)]
mod tests {
    use adit_protocol::EncodedKey;

    use super::*;

    fn details(secret: &str) -> RelayDetails {
        let ipv4 = Some("192.0.2.1:3478".parse().unwrap());
        RelayDetails { ipv4, ipv6: None, tcp_port: Some(3478), tls: None, secret: secret.to_owned() }
    }

    fn join(hub: &Hub, id: u128, secret: &str) -> Receiver<PortalToRelay> {
        let token = TokenId::from_uuid(Uuid::nil());
        let who = Attendee { token, key: EncodedKey([0; 32]), address: String::new() };
        hub.join_relay(relay(id), details(secret), who)
    }

    const fn relay(id: u128) -> RelayId {
        RelayId::from_uuid(Uuid::from_u128(id))
    }

    fn peer() -> GivenRelays {
        GivenRelays::new(Uuid::from_u128(7), None)
    }

    #[test]
    fn a_peer_gets_two_relays_and_keeps_them() {
        let (hub, mut peer) = (Hub::default(), peer());
        assert_eq!(peer.update(&hub), None);
        let _sessions: Vec<_> = (1..=2).map(|id| join(&hub, id, "a")).collect();
        assert_eq!(peer.update(&hub).unwrap().added.len(), 2);
        let _third = join(&hub, 3, "a");
        assert_eq!(peer.update(&hub), None, "a third relay moves nobody");
    }

    #[test]
    fn a_relay_that_returns_in_time_is_not_withdrawn() {
        let (hub, mut peer) = (Hub::default(), peer());
        let session = join(&hub, 1, "a");
        peer.update(&hub);
        assert!(hub.leave_relay(relay(1), session.session));
        assert_eq!(peer.update(&hub), None);
        let _again = join(&hub, 1, "a");
        hub.forget_relay(relay(1));
        assert_eq!(peer.update(&hub), None);
    }

    #[test]
    fn a_relay_that_stays_away_is_withdrawn_and_replaced() {
        let (hub, mut peer) = (Hub::default(), peer());
        let sessions: Vec<_> = (1..=3).map(|id| join(&hub, id, "a")).collect();
        let first = peer.update(&hub).unwrap().added[0].id;
        let session = sessions.iter().zip(1..).find(|(_, id)| relay(*id) == first).unwrap().0.session;
        hub.leave_relay(first, session);
        hub.forget_relay(first);
        let change = peer.update(&hub).unwrap();
        assert_eq!((change.removed, change.added.len()), (vec![first], 1));
    }

    #[test]
    fn a_new_secret_means_new_credentials_for_a_known_relay() {
        let (hub, mut peer) = (Hub::default(), peer());
        let _session = join(&hub, 1, "a");
        let before = peer.update(&hub).unwrap().added[0].clone();
        hub.rotate_relay_secret(relay(1), "b".to_owned());
        let change = peer.update(&hub).unwrap();
        assert_eq!((change.removed.len(), change.added[0].id), (0, relay(1)));
        assert_ne!(change.added[0].password, before.password);
        hub.rotate_relay_secret(relay(1), "b".to_owned());
        assert_eq!(peer.update(&hub), None);
    }

    #[test]
    fn a_draining_relay_is_handed_out_no_more_but_not_taken_away() {
        let (hub, mut old, mut new) = (Hub::default(), peer(), peer());
        let _session = join(&hub, 1, "a");
        old.update(&hub);
        hub.drain_relay(relay(1));
        assert_eq!(old.update(&hub), None);
        assert_eq!(new.update(&hub), None);
    }

    #[test]
    fn a_draining_relay_is_exchanged_for_another() {
        let (hub, mut peer) = (Hub::default(), peer());
        let _one = join(&hub, 1, "a");
        peer.update(&hub);
        hub.drain_relay(relay(1));
        let _other = join(&hub, 2, "b");
        let change = peer.update(&hub).unwrap();
        assert_eq!((change.removed, change.added[0].id), (vec![relay(1)], relay(2)));
    }

    #[test]
    fn no_credential_outlives_the_session() {
        let hub = Hub::default();
        let _session = join(&hub, 1, "a");
        let end = clock::now_ms() + 60_000;
        let mut peer = GivenRelays::new(Uuid::nil(), Some(end));
        assert_eq!(peer.update(&hub).unwrap().added[0].expires_at_ms, clock::wire_ms(end));
        assert_eq!(peer.renew_ms(), Some(i64::MAX));
    }
}
