//! Peers that are connected to other nodes of the same installation.
//!
//! Each node tells the others of its own peers, and keeps here what the others said. The newest
//! session of a device wins: rows of the database decide which one that is, so a node that
//! learns that its peer is connected elsewhere ends its own session.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use adit_policy::{ActorId, ClientId, GatewayId, RelayId, SiteId};
use adit_protocol::client::{self, DisconnectReason};
use adit_protocol::{Candidate, CandidateUpdate, EncodedKey, PortalToClient, PortalToGateway, gateway};
use semver::Version;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::relays::{Relay, RelayDetails};
use super::{Hub, OnlineGateway, State};

/// What nodes tell each other of one connected peer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Presence {
    /// A client.
    Client {
        /// Whose it is.
        actor: ActorId,
        /// The key of this run.
        key: EncodedKey,
        /// Where it connects from.
        address: String,
        /// Where it can be reached.
        candidates: BTreeSet<Candidate>,
    },
    /// A gateway.
    Gateway {
        /// Which site it serves.
        site: SiteId,
        /// What it runs.
        version: Version,
        /// The key of this run.
        key: EncodedKey,
        /// Where it connects from.
        address: String,
        /// It is about to stop.
        is_draining: bool,
        /// It restarts and is back within this time, in milliseconds.
        back_within_ms: Option<u64>,
        /// Where it can be reached.
        candidates: BTreeSet<Candidate>,
    },
    /// A relay.
    Relay {
        /// Where it listens, and under which secret: nodes encrypt that before they write it down.
        details: RelayDetails,
        /// It is about to stop.
        is_draining: bool,
    },
}

/// A relay's presence holds its secret.
impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client { .. } => "Client(…)",
            Self::Gateway { .. } => "Gateway(…)",
            Self::Relay { .. } => "Relay(…)",
        })
    }
}

/// A client or a gateway of another node.
#[derive(Debug)]
pub(super) struct Remote {
    node: Uuid,
    presence: Presence,
}

impl Remote {
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        match &self.presence {
            Presence::Client { candidates, .. } | Presence::Gateway { candidates, .. } => {
                candidates.iter().copied().collect()
            }
            Presence::Relay { .. } => Vec::new(),
        }
    }

    pub(super) fn gateway_of(&self, site: SiteId) -> Option<(Version, bool)> {
        match &self.presence {
            Presence::Gateway { site: own, version, is_draining, .. } if *own == site => {
                Some((version.clone(), *is_draining))
            }
            _ => None,
        }
    }
}

/// What the peers of this node should hear of a change at another node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing.
    Nothing,
    /// A client can be reached elsewhere.
    ClientCandidates(ClientId, CandidateUpdate),
    /// A gateway can be reached elsewhere.
    GatewayCandidates(GatewayId, CandidateUpdate),
    /// A client lost its session.
    ClientGone(ClientId),
    /// A gateway lost its session.
    GatewayGone(GatewayId),
    /// A relay lost its session; [`Hub::forget_relay`] follows after a while.
    RelayGone(RelayId),
}

impl State {
    fn presence(&self, peer: Uuid) -> Option<Presence> {
        if let Some(entry) = self.clients.get(&ClientId::from_uuid(peer)) {
            return Some(Presence::Client {
                actor: entry.actor,
                key: entry.line.key,
                address: entry.line.address.clone(),
                candidates: entry.candidates.clone(),
            });
        }
        if let Some(entry) = self.gateways.get(&GatewayId::from_uuid(peer)) {
            return Some(Presence::Gateway {
                site: entry.site,
                version: entry.version.clone(),
                key: entry.line.key,
                address: entry.line.address.clone(),
                is_draining: entry.is_draining,
                back_within_ms: entry.back_within_ms,
                candidates: entry.candidates.clone(),
            });
        }
        self.relays.get(&RelayId::from_uuid(peer)).and_then(Relay::presence)
    }

    fn end_local(&mut self, peer: Uuid) {
        if let Some(entry) = self.clients.get(&ClientId::from_uuid(peer)) {
            entry.line.end(DisconnectReason::Superseded);
        }
        if let Some(entry) = self.gateways.get(&GatewayId::from_uuid(peer)) {
            entry.line.end(DisconnectReason::Superseded);
        }
    }

    fn forget(&mut self, node: Uuid, peer: Uuid) -> Learned {
        let relay = RelayId::from_uuid(peer);
        if self.relays.get_mut(&relay).is_some_and(|relay| relay.leave_node(node)) {
            return Learned::RelayGone(relay);
        }
        if self.remote.get(&peer).is_none_or(|remote| remote.node != node) {
            return Learned::Nothing;
        }
        match self.remote.remove(&peer).map(|remote| remote.presence) {
            Some(Presence::Client { .. }) => Learned::ClientGone(ClientId::from_uuid(peer)),
            Some(Presence::Gateway { .. }) => Learned::GatewayGone(GatewayId::from_uuid(peer)),
            Some(Presence::Relay { .. }) | None => Learned::Nothing,
        }
    }
}

/// What a set of candidates became.
fn difference(before: &BTreeSet<Candidate>, after: &BTreeSet<Candidate>) -> CandidateUpdate {
    CandidateUpdate {
        added: after.difference(before).copied().collect(),
        removed: before.difference(after).copied().collect(),
    }
}

impl Hub {
    /// Waits until there is something to tell the other nodes.
    pub(crate) async fn unannounced(&self) {
        self.announce.notified().await;
    }

    /// What the other nodes do not know yet; `None` for peers that are gone.
    pub(crate) fn take_unannounced(&self) -> Vec<(Uuid, Option<Presence>)> {
        let mut state = self.lock();
        let peers = std::mem::take(&mut state.unannounced);
        peers.into_iter().map(|peer| (peer, state.presence(peer))).collect()
    }

    /// Has these peers announced once more, because it failed.
    pub(crate) fn announce_again(&self, peers: impl Iterator<Item = Uuid>) {
        self.lock().unannounced.extend(peers);
        self.announce.notify_one();
    }

    /// Has every peer of this node announced.
    pub(crate) fn announce_all(&self) {
        let mut state = self.lock();
        let own = |relay: &Relay| relay.presence().is_some();
        let peers: Vec<Uuid> = state
            .clients
            .keys()
            .map(ClientId::as_uuid)
            .chain(state.gateways.keys().map(GatewayId::as_uuid))
            .chain(state.relays.iter().filter(|(_, relay)| own(relay)).map(|(id, _)| id.as_uuid()))
            .collect();
        state.unannounced.extend(peers);
        self.announce.notify_one();
    }

    /// Takes note of what another node says of a peer; `None` when it is gone.
    pub(crate) fn learn(&self, node: Uuid, peer: Uuid, presence: Option<Presence>) -> Learned {
        let mut state = self.lock();
        self.note_activity();
        let Some(presence) = presence else { return state.forget(node, peer) };
        if state.unannounced.contains(&peer) && state.presence(peer).is_some() {
            // It is here, which the others do not know yet: our row will take the place of theirs.
            return Learned::Nothing;
        }
        state.end_local(peer);
        let before = state.remote.get(&peer).map(|remote| &remote.presence);
        let none = BTreeSet::new();
        let learned = match (&presence, before) {
            (Presence::Relay { details, is_draining }, _) => {
                state.learn_relay(node, RelayId::from_uuid(peer), details.clone(), *is_draining);
                return Learned::Nothing;
            }
            (Presence::Client { candidates, .. }, before) => {
                let known = match before {
                    Some(Presence::Client { candidates, .. }) => candidates,
                    _ => &none,
                };
                Learned::ClientCandidates(ClientId::from_uuid(peer), difference(known, candidates))
            }
            (Presence::Gateway { candidates, .. }, before) => {
                let known = match before {
                    Some(Presence::Gateway { candidates, .. }) => candidates,
                    _ => &none,
                };
                Learned::GatewayCandidates(GatewayId::from_uuid(peer), difference(known, candidates))
            }
        };
        if let Presence::Gateway { site, back_within_ms, is_draining, .. } = &presence {
            match (is_draining, back_within_ms) {
                (true, Some(ms)) => {
                    let within = Duration::from_millis(*ms).min(super::LONGEST_RETURN);
                    state.returning.insert(*site, Instant::now() + within);
                }
                (true, None) => {}
                (false, _) => {
                    state.returning.remove(site);
                }
            }
        }
        state.remote.insert(peer, Remote { node, presence });
        match learned {
            Learned::ClientCandidates(_, update) | Learned::GatewayCandidates(_, update)
                if update == CandidateUpdate::default() =>
            {
                Learned::Nothing
            }
            learned => learned,
        }
    }

    /// Forgets all peers of a node.
    pub(crate) fn forget_node(&self, node: Uuid) -> Vec<Learned> {
        let mut state = self.lock();
        let remote = state.remote.iter().filter(|(_, remote)| remote.node == node).map(|(id, _)| *id);
        let relays = state.relays.iter().filter(|(_, relay)| relay.is_at(node)).map(|(id, _)| id.as_uuid());
        let peers: Vec<Uuid> = remote.chain(relays).collect();
        peers.into_iter().map(|peer| state.forget(node, peer)).collect()
    }

    /// Tells gateways of this node where a client of another node can be reached.
    pub(crate) fn pass_client_candidates(&self, id: ClientId, peers: &[GatewayId], update: &CandidateUpdate) {
        let state = self.lock();
        for entry in peers.iter().filter_map(|peer| state.gateways.get(peer)) {
            let message = gateway::PeerCandidates { client: id, update: update.clone() };
            entry.line.message(None, PortalToGateway::PeerCandidates(message));
        }
    }

    /// Tells clients of this node where a gateway of another node can be reached.
    pub(crate) fn pass_gateway_candidates(
        &self,
        id: GatewayId,
        peers: &[ClientId],
        update: &CandidateUpdate,
    ) {
        let state = self.lock();
        for entry in peers.iter().filter_map(|peer| state.clients.get(peer)) {
            let message = client::PeerCandidates { gateway: id, update: update.clone() };
            entry.line.message(None, PortalToClient::PeerCandidates(message));
        }
    }

    /// A device's session at another node: which node, its key, and where it connects from.
    pub(crate) fn remote_incumbent(&self, device: Uuid) -> Option<(Uuid, EncodedKey, String)> {
        let state = self.lock();
        let remote = state.remote.get(&device)?;
        match &remote.presence {
            Presence::Client { key, address, .. }
            | Presence::Gateway { key, address, is_draining: false, .. } => {
                Some((remote.node, *key, address.clone()))
            }
            Presence::Gateway { .. } | Presence::Relay { .. } => None,
        }
    }

    /// Sends everybody away to come back with complete state.
    pub(crate) fn resynchronise(&self) {
        let state = self.lock();
        let reason = DisconnectReason::Restart;
        state.clients.values().for_each(|entry| entry.line.end(reason));
        state.gateways.values().for_each(|entry| entry.line.end(reason));
        state.relays.values().for_each(|relay| relay.end(reason));
    }
}

/// The gateways of a site at other nodes.
pub(super) fn gateways_of(
    remote: &BTreeMap<Uuid, Remote>,
    site: SiteId,
) -> impl Iterator<Item = OnlineGateway> {
    remote.iter().filter_map(move |(id, remote)| {
        let (version, is_draining) = remote.gateway_of(site)?;
        Some(OnlineGateway { id: GatewayId::from_uuid(*id), version, is_draining })
    })
}
