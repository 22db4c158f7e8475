//! The gateways that the client is connected to, or was until a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use adit_peering::{ConnectionId, PathInfo};
use adit_policy::{GatewayId, SiteId};
use adit_protocol::PeerIntroduction;
use adit_protocol::client::ConnectedGateway;

/// More gateways than a client meets in seconds; bounds the memory of those to avoid.
const MAX_AVOIDED: usize = 64;

/// A connection to a gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) connection: ConnectionId,
    pub(crate) site: SiteId,
    /// How the portal introduced it.
    pub(crate) introduction: PeerIntroduction<GatewayId>,
    /// The path, once connected.
    pub(crate) path: Option<PathInfo>,
    /// The gateway will stop: new flows go elsewhere if they can.
    pub(crate) is_draining: bool,
    /// It restarts, and this connection waits for its successor: what was granted is kept for it.
    pub(crate) is_held: bool,
}

impl Gateway {
    /// Counts the connections with this gateway.
    pub(crate) const fn epoch(&self) -> u64 {
        self.introduction.epoch
    }
}

/// All gateways, by id and by connection.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    by_id: BTreeMap<GatewayId, Gateway>,
    by_connection: HashMap<ConnectionId, GatewayId>,
    avoided: BTreeMap<GatewayId, Instant>,
}

impl Gateways {
    pub(crate) fn insert(&mut self, id: GatewayId, gateway: Gateway) {
        self.by_connection.insert(gateway.connection, id);
        self.by_id.insert(id, gateway);
    }

    pub(crate) fn remove(&mut self, id: GatewayId) -> Option<Gateway> {
        let gateway = self.by_id.remove(&id)?;
        self.by_connection.remove(&gateway.connection);
        Some(gateway)
    }

    pub(crate) fn get(&self, id: GatewayId) -> Option<&Gateway> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: GatewayId) -> Option<&mut Gateway> {
        self.by_id.get_mut(&id)
    }

    /// Puts a new connection in the place of the one that is gone.
    pub(crate) fn reconnect(&mut self, id: GatewayId, connection: ConnectionId) {
        if let Some(gateway) = self.by_id.get_mut(&id) {
            self.by_connection.remove(&gateway.connection);
            self.by_connection.insert(connection, id);
            gateway.connection = connection;
            gateway.path = None;
            gateway.is_held = true;
        }
    }

    /// Whose connection this is.
    pub(crate) fn at(&self, connection: ConnectionId) -> Option<GatewayId> {
        self.by_connection.get(&connection).copied()
    }

    pub(crate) fn ids(&self) -> Vec<GatewayId> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GatewayId, &Gateway)> {
        self.by_id.iter().map(|(id, gateway)| (*id, gateway))
    }

    /// What the portal needs to know to reuse open connections.
    pub(crate) fn connected(&self) -> Vec<ConnectedGateway> {
        self.by_id.iter().map(|(id, gateway)| ConnectedGateway { id: *id, epoch: gateway.epoch() }).collect()
    }

    /// Asks the portal not to choose `id` until then, unless there is no other.
    pub(crate) fn avoid(&mut self, now: Instant, id: GatewayId, until: Instant) {
        self.avoided.retain(|_, until| *until > now);
        if self.avoided.len() < MAX_AVOIDED {
            self.avoided.insert(id, until);
        }
    }

    /// The gateways to avoid at `now`, the one to avoid longest first.
    pub(crate) fn avoided(&self, now: Instant) -> Vec<GatewayId> {
        let mut avoided: Vec<_> = self.avoided.iter().filter(|(_, until)| **until > now).collect();
        avoided.sort_unstable_by_key(|(id, until)| (std::cmp::Reverse(**until), **id));
        avoided.into_iter().map(|(id, _)| *id).collect()
    }
}
