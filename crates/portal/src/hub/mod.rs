//! Who is connected now: the meeting place of sessions, events and candidates.
//!
//! Everything here is in memory and worth nothing after a restart: peers reconnect and say
//! again what they said. One lock guards it all and is held for microseconds; nothing is
//! awaited under it. A peer is introduced under the same lock that candidates are registered
//! under, so that a candidate is either in the introduction or in a later message.

mod candidates;
mod line;
mod loads;
mod relays;
mod remote;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_policy::{ActorId, ClientId, GatewayId, RelayId, SiteId, TokenId};
use adit_protocol::client::{self, DisconnectReason};
use adit_protocol::flow::FlowLogChanged;
use adit_protocol::{Candidate, CandidateUpdate, EncodedKey, PortalToClient, PortalToGateway, gateway};
use semver::Version;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub(crate) use line::{Incumbent, Push, Receiver, SessionId};
pub(crate) use relays::{GivenRelays, RETURN_TIME, RelayDetails};
pub(crate) use remote::{Learned, Presence};

use candidates::apply;
use line::Line;
use loads::Loads;
use relays::Relay;
use remote::Remote;

/// No gateway may ask for more patience while it restarts.
const LONGEST_RETURN: Duration = Duration::from_secs(120);

/// Who a session belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Attendee {
    /// The token that it presented.
    pub(crate) token: TokenId,
    /// The key of this run.
    pub(crate) key: EncodedKey,
    /// Where it connects from.
    pub(crate) address: String,
}

/// A gateway that could serve a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnlineGateway {
    /// Which one.
    pub(crate) id: GatewayId,
    /// What it runs.
    pub(crate) version: Version,
    /// It is about to stop.
    pub(crate) is_draining: bool,
}

#[derive(Debug)]
struct ClientEntry {
    line: Line<PortalToClient>,
    actor: ActorId,
    candidates: BTreeSet<Candidate>,
}

#[derive(Debug)]
struct GatewayEntry {
    line: Line<PortalToGateway>,
    site: SiteId,
    version: Version,
    is_draining: bool,
    back_within_ms: Option<u64>,
    candidates: BTreeSet<Candidate>,
}

#[derive(Debug, Default)]
struct State {
    is_closing: bool,
    last_session: u64,
    clients: BTreeMap<ClientId, ClientEntry>,
    gateways: BTreeMap<GatewayId, GatewayEntry>,
    relays: BTreeMap<RelayId, Relay>,
    /// Clients and gateways of other nodes.
    remote: BTreeMap<Uuid, Remote>,
    /// Peers of this node of which the others do not know the newest.
    unannounced: BTreeSet<Uuid>,
    /// Sites whose gateway restarts, and until when it should be back.
    returning: BTreeMap<SiteId, Instant>,
}

impl State {
    fn next_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }
}

/// Who is connected now.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    announce: Notify,
    /// How many clients gateways serve.
    pub(crate) loads: Loads,
    /// Counts what pages that are looked at may have to show anew.
    activity: watch::Sender<u64>,
    /// Whether there may be other nodes.
    is_shared: bool,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves at worst a missing entry, which the peer's next
        // connection repairs; refusing everybody would be worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hub whose peers are announced to other nodes when `is_shared` is set.
    pub(crate) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// Has live pages look again.
    pub(crate) fn note_activity(&self) {
        self.activity.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever live pages should look again. However much happens, one value waits.
    pub(crate) fn activity(&self) -> watch::Receiver<u64> {
        self.activity.subscribe()
    }

    /// Whether the portal stops.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    fn changed(&self, state: &mut State, peer: Uuid) {
        self.note_activity();
        if self.is_shared {
            state.unannounced.insert(peer);
            self.announce.notify_one();
        }
    }

    /// Takes a client in; an older session of the same device ends.
    pub(crate) fn join_client(
        &self,
        id: ClientId,
        actor: ActorId,
        who: Attendee,
    ) -> Receiver<PortalToClient> {
        let mut state = self.lock();
        let (line, receiver) = Line::new(state.next_session(), who.token, who.key, who.address);
        if state.is_closing {
            line.end(DisconnectReason::Restart);
        }
        let entry = ClientEntry { line, actor, candidates: BTreeSet::new() };
        if let Some(old) = state.clients.insert(id, entry) {
            old.line.end(DisconnectReason::Superseded);
        }
        state.remote.remove(&id.as_uuid());
        self.changed(&mut state, id.as_uuid());
        metrics::gauge!("adit_portal_sessions", "kind" => "client").set(state.clients.len() as f64);
        receiver
    }

    /// Takes a gateway in; an older session of the same device ends.
    pub(crate) fn join_gateway(
        &self,
        id: GatewayId,
        site: SiteId,
        version: Version,
        who: Attendee,
    ) -> Receiver<PortalToGateway> {
        let mut state = self.lock();
        let (line, receiver) = Line::new(state.next_session(), who.token, who.key, who.address);
        if state.is_closing {
            line.end(DisconnectReason::Restart);
        }
        state.returning.remove(&site);
        let candidates = BTreeSet::new();
        let entry =
            GatewayEntry { line, site, version, is_draining: false, back_within_ms: None, candidates };
        if let Some(old) = state.gateways.insert(id, entry) {
            old.line.end(DisconnectReason::Superseded);
        }
        state.remote.remove(&id.as_uuid());
        self.changed(&mut state, id.as_uuid());
        metrics::gauge!("adit_portal_sessions", "kind" => "gateway").set(state.gateways.len() as f64);
        receiver
    }

    /// Lets a client go; `false` when a newer session has taken its place,
    /// here or at another node.
    pub(crate) fn leave_client(&self, id: ClientId, session: SessionId) -> bool {
        let mut state = self.lock();
        if state.clients.get(&id).is_none_or(|entry| entry.line.session != session) {
            return false;
        }
        state.clients.remove(&id);
        metrics::gauge!("adit_portal_sessions", "kind" => "client").set(state.clients.len() as f64);
        self.changed(&mut state, id.as_uuid());
        !state.remote.contains_key(&id.as_uuid())
    }

    /// Lets a gateway go; `false` when a newer session has taken its place,
    /// here or at another node.
    pub(crate) fn leave_gateway(&self, id: GatewayId, session: SessionId) -> bool {
        let mut state = self.lock();
        if state.gateways.get(&id).is_none_or(|entry| entry.line.session != session) {
            return false;
        }
        state.gateways.remove(&id);
        metrics::gauge!("adit_portal_sessions", "kind" => "gateway").set(state.gateways.len() as f64);
        self.changed(&mut state, id.as_uuid());
        !state.remote.contains_key(&id.as_uuid())
    }

    /// The live session of a device, asked whether it is alive. A draining gateway does not
    /// count: its successor is welcome.
    pub(crate) fn incumbent(&self, device: Uuid) -> Option<Incumbent> {
        let state = self.lock();
        if let Some(entry) = state.clients.get(&ClientId::from_uuid(device)) {
            return Some(entry.line.probe());
        }
        let entry = state.gateways.get(&GatewayId::from_uuid(device))?;
        (!entry.is_draining).then(|| entry.line.probe())
    }

    /// Whether a client is connected to this node.
    pub(crate) fn is_here(&self, client: ClientId) -> bool {
        self.lock().clients.contains_key(&client)
    }

    /// Whether a device, client or gateway, is connected, to whichever node.
    pub(crate) fn is_online(&self, device: Uuid) -> bool {
        let state = self.lock();
        state.clients.contains_key(&ClientId::from_uuid(device))
            || state.gateways.contains_key(&GatewayId::from_uuid(device))
            || state.remote.contains_key(&device)
    }

    /// Everything connected: clients, gateways and relays.
    pub(crate) fn online(&self) -> HashSet<Uuid> {
        let state = self.lock();
        let clients = state.clients.keys().map(ClientId::as_uuid);
        let gateways = state.gateways.keys().map(GatewayId::as_uuid);
        let relays = state.relays.iter().filter(|(_, relay)| relay.is_online()).map(|(id, _)| id.as_uuid());
        clients.chain(gateways).chain(relays).chain(state.remote.keys().copied()).collect()
    }

    /// The gateways of a site that are connected.
    pub(crate) fn gateways_of_site(&self, site: SiteId) -> Vec<OnlineGateway> {
        let state = self.lock();
        let of_site = state.gateways.iter().filter(|(_, entry)| entry.site == site);
        of_site
            .map(|(id, entry)| OnlineGateway {
                id: *id,
                version: entry.version.clone(),
                is_draining: entry.is_draining,
            })
            .chain(remote::gateways_of(&state.remote, site))
            .collect()
    }

    /// Chooses a gateway no more; it may be back within some time.
    pub(crate) fn set_draining(&self, id: GatewayId, back_within: Option<Duration>) {
        let mut state = self.lock();
        let Some(entry) = state.gateways.get_mut(&id) else { return };
        entry.is_draining = true;
        entry.back_within_ms = back_within.and_then(|time| u64::try_from(time.as_millis()).ok());
        let site = entry.site;
        self.changed(&mut state, id.as_uuid());
        if let Some(back_within) = back_within {
            state.returning.insert(site, Instant::now() + back_within.min(LONGEST_RETURN));
        }
    }

    /// Whether a gateway of the site restarts and should be back soon.
    pub(crate) fn is_gateway_returning(&self, site: SiteId) -> bool {
        self.lock().returning.get(&site).is_some_and(|until| *until > Instant::now())
    }

    /// Registers a client's candidates and tells the gateways that know the client.
    pub(crate) fn change_client_candidates(
        &self,
        id: ClientId,
        peers: &[GatewayId],
        update: &CandidateUpdate,
    ) {
        let mut state = self.lock();
        let Some(entry) = state.clients.get_mut(&id) else { return };
        let update = apply(&mut entry.candidates, update);
        self.changed(&mut state, id.as_uuid());
        let lines = peers.iter().filter_map(|peer| state.gateways.get(peer));
        for gateway in lines {
            let message = gateway::PeerCandidates { client: id, update: update.clone() };
            gateway.line.message(None, PortalToGateway::PeerCandidates(message));
        }
    }

    /// Registers a gateway's candidates and tells the clients that know the gateway.
    pub(crate) fn change_gateway_candidates(
        &self,
        id: GatewayId,
        peers: &[ClientId],
        update: &CandidateUpdate,
    ) {
        let mut state = self.lock();
        let Some(entry) = state.gateways.get_mut(&id) else { return };
        let update = apply(&mut entry.candidates, update);
        self.changed(&mut state, id.as_uuid());
        let lines = peers.iter().filter_map(|peer| state.clients.get(peer));
        for client in lines {
            let message = client::PeerCandidates { gateway: id, update: update.clone() };
            client.line.message(None, PortalToClient::PeerCandidates(message));
        }
    }

    /// What is known of where a client can be reached.
    pub(crate) fn client_candidates(&self, id: ClientId) -> Vec<Candidate> {
        let state = self.lock();
        match state.clients.get(&id) {
            Some(entry) => entry.candidates.iter().copied().collect(),
            None => state.remote.get(&id.as_uuid()).map(Remote::candidates).unwrap_or_default(),
        }
    }

    /// Introduces two peers to each other; both messages are made with the candidates of this
    /// moment. Each node tells those that are connected to it. `false` when the gateway is not connected
    /// to any node, and then nobody is told.
    pub(crate) fn introduce(
        &self,
        seq: i64,
        mut to_client: client::AuthorizationCreated,
        mut to_gateway: gateway::GatewayAuthorization,
    ) -> bool {
        let state = self.lock();
        let (client, gateway) = (to_gateway.client.id, to_client.gateway.id);
        let elsewhere = |peer: Uuid| state.remote.get(&peer);
        let (here, away) = (state.gateways.get(&gateway), elsewhere(gateway.as_uuid()));
        to_client.gateway.candidates = match (here, away) {
            (Some(entry), _) => entry.candidates.iter().copied().collect(),
            (None, Some(remote)) => remote.candidates(),
            (None, None) => return false,
        };
        let entry = state.clients.get(&client);
        to_gateway.client.candidates = match (entry, elsewhere(client.as_uuid())) {
            (Some(entry), _) => entry.candidates.iter().copied().collect(),
            (None, Some(remote)) => remote.candidates(),
            (None, None) => Vec::new(),
        };
        if let Some(gateway) = here {
            gateway.line.message(Some(seq), PortalToGateway::AuthorizationCreated(Box::new(to_gateway)));
        }
        if let Some(client) = entry {
            client.line.message(Some(seq), PortalToClient::AuthorizationCreated(Box::new(to_client)));
        }
        true
    }

    /// Sends a client a message, if it is connected.
    pub(crate) fn tell_client(&self, id: ClientId, seq: Option<i64>, message: PortalToClient) {
        if let Some(entry) = self.lock().clients.get(&id) {
            entry.line.message(seq, message);
        }
    }

    /// Sends a gateway a message, if it is connected.
    pub(crate) fn tell_gateway(&self, id: GatewayId, seq: Option<i64>, message: PortalToGateway) {
        if let Some(entry) = self.lock().gateways.get(&id) {
            entry.line.message(seq, message);
        }
    }

    /// Has the clients of these actors look again at what they may see.
    pub(crate) fn visibility_changed(&self, seq: i64, actors: &[ActorId]) {
        let actors: HashSet<ActorId> = actors.iter().copied().collect();
        let state = self.lock();
        for entry in state.clients.values().filter(|entry| actors.contains(&entry.actor)) {
            entry.line.push(Push::VisibilityChanged { seq });
        }
    }

    /// The clients of a token look at what they rest on again.
    pub(crate) fn token_renewed(&self, seq: i64, token: TokenId) {
        let state = self.lock();
        for entry in state.clients.values().filter(|entry| entry.line.token == token) {
            entry.line.push(Push::TokenRenewed { seq });
        }
    }

    /// Ends every session of a token for good.
    pub(crate) fn end_token(&self, token: TokenId) {
        let state = self.lock();
        let reason = DisconnectReason::RevokedToken;
        state.clients.values().filter(|entry| entry.line.token == token).for_each(|e| e.line.end(reason));
        state.gateways.values().filter(|entry| entry.line.token == token).for_each(|e| e.line.end(reason));
        state.relays.values().for_each(|relay| relay.end_token(token));
    }

    /// Tells those who are connected whether to report flows from now on, where that changed.
    pub(crate) fn flow_log_changed(&self, seq: i64, from_gateways: Option<bool>, from_clients: Option<bool>) {
        let state = self.lock();
        if let Some(keeps_flows) = from_gateways {
            let message = || PortalToGateway::FlowLogChanged(FlowLogChanged { keeps_flows });
            state.gateways.values().for_each(|entry| entry.line.message(Some(seq), message()));
        }
        if let Some(keeps_flows) = from_clients {
            let message = || PortalToClient::FlowLogChanged(FlowLogChanged { keeps_flows });
            state.clients.values().for_each(|entry| entry.line.message(Some(seq), message()));
        }
    }

    /// Sends all clients away for a moment, so that they get everything anew. Their tunnels stay.
    pub(crate) fn restart_clients(&self) {
        self.lock().clients.values().for_each(|entry| entry.line.end(DisconnectReason::Restart));
    }

    /// Ends the session of a device, which may come back.
    pub(crate) fn end_device(&self, device: Uuid) {
        let state = self.lock();
        if let Some(entry) = state.clients.get(&ClientId::from_uuid(device)) {
            entry.line.end(DisconnectReason::Restart);
        }
        if let Some(entry) = state.gateways.get(&GatewayId::from_uuid(device)) {
            entry.line.end(DisconnectReason::Restart);
        }
    }

    /// Sends everybody away, now and from now on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closing = true;
        self.note_activity();
        let reason = DisconnectReason::Restart;
        state.clients.values().for_each(|entry| entry.line.end(reason));
        state.gateways.values().for_each(|entry| entry.line.end(reason));
        state.relays.values().for_each(|relay| relay.end(reason));
    }

    /// How many sessions there are, relays included.
    pub(crate) fn session_count(&self) -> usize {
        let state = self.lock();
        let relays = state.relays.values().filter(|relay| relay.is_online()).count();
        state.clients.len() + state.gateways.len() + relays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_takes_the_place_of_an_older_one() {
        let hub = Hub::default();
        let id = ClientId::from_uuid(Uuid::from_u128(1));
        let who = || Attendee {
            token: TokenId::from_uuid(Uuid::nil()),
            key: EncodedKey([1; 32]),
            address: String::new(),
        };
        let actor = ActorId::from_uuid(Uuid::nil());
        let old = hub.join_client(id, actor, who());
        let new = hub.join_client(id, actor, who());
        assert_eq!(*old.end.borrow(), Some(DisconnectReason::Superseded));
        assert_eq!(*new.end.borrow(), None);
        assert!(!hub.leave_client(id, old.session), "the old session must not take the new one along");
        assert!(hub.is_online(id.as_uuid()));
        assert!(hub.leave_client(id, new.session));
        assert!(!hub.is_online(id.as_uuid()));
    }

    #[test]
    fn a_peer_that_does_not_keep_up_is_sent_away_instead_of_remembered_for() {
        let hub = Hub::default();
        let id = ClientId::from_uuid(Uuid::from_u128(1));
        let actor = ActorId::from_uuid(Uuid::nil());
        let who = Attendee {
            token: TokenId::from_uuid(Uuid::nil()),
            key: EncodedKey([1; 32]),
            address: String::new(),
        };
        let session = hub.join_client(id, actor, who);
        for seq in 0..2000 {
            hub.visibility_changed(seq, &[actor]);
        }
        assert_eq!(*session.end.borrow(), Some(DisconnectReason::Restart));
    }

    #[test]
    fn nobody_joins_a_hub_that_closes() {
        let hub = Hub::default();
        hub.close();
        let who = Attendee {
            token: TokenId::from_uuid(Uuid::nil()),
            key: EncodedKey([1; 32]),
            address: String::new(),
        };
        let site = SiteId::from_uuid(Uuid::nil());
        let session = hub.join_gateway(GatewayId::from_uuid(Uuid::nil()), site, Version::new(1, 0, 0), who);
        assert_eq!(*session.end.borrow(), Some(DisconnectReason::Restart));
    }
}
