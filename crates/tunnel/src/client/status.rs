//! What front ends show: resources, connections, paths.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_peering::{PathInfo, PathKind, RelayTransport};
use adit_policy::{GatewayId, Resource, ResourceAddress, ResourceId};
use adit_protocol::RelayAccess;
use serde::Serialize;

use super::Client;
use super::access::Refusal;
use crate::statistics::Statistics;

/// How long a ping wants a connection that nobody else wants.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// The path of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// The relay's IP address; `None` when the path is direct.
    pub relay: Option<std::net::IpAddr>,
    /// What carries datagrams to that relay; `None` when the path is direct.
    pub transport: Option<RelayTransport>,
    /// Our end.
    pub local: SocketAddr,
    /// The gateway's end as we see it.
    pub remote: SocketAddr,
    /// The smoothed round trip in microseconds, once measured.
    pub round_trip_us: Option<u64>,
}

/// A connection to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// The gateway.
    pub gateway: GatewayId,
    /// Its name.
    pub name: String,
    /// Counts the connections to this gateway.
    pub epoch: u64,
    /// The path; `None` while connecting.
    pub path: Option<PathStatus>,
}

/// Where the client stands with a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ResourceState {
    /// Nobody wanted it lately.
    NoActivity,
    /// The portal was asked, or the connection is being made.
    Connecting,
    /// Packets flow.
    Connected {
        /// Through this gateway.
        gateway: GatewayId,
        /// On this path.
        path: PathStatus,
    },
    /// No gateway of its site is online.
    Offline,
    /// Policy says no.
    Forbidden,
}

/// A resource and where the client stands with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceStatus {
    /// Names it.
    pub id: ResourceId,
    /// Shown to people.
    pub name: String,
    /// Where it is.
    pub address: ResourceAddress,
    /// The name of its site.
    pub site: String,
    /// Where the client stands.
    #[serde(flatten)]
    pub state: ResourceState,
}

/// How a resource is reached right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// Where the client stands.
    #[serde(flatten)]
    pub state: ResourceState,
    /// Milliseconds since the last handshake with the gateway, if connected.
    pub handshake_age_ms: Option<u64>,
}

/// Why a resource cannot be pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// There is no such resource.
    #[error("there is no such resource")]
    UnknownResource,
    /// The machine was shut down.
    #[error("the tunnel is shut down")]
    ShutDown,
}

impl From<PathInfo> for PathStatus {
    fn from(path: PathInfo) -> Self {
        let (relay, transport) = match path.kind {
            PathKind::Direct => (None, None),
            PathKind::Relayed { relay, transport } => (Some(relay), Some(transport)),
        };
        let round_trip_us = path.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        Self { relay, transport, local: path.local, remote: path.remote, round_trip_us }
    }
}

impl Client {
    /// Every resource, sorted by id, and where the client stands with it at `now`.
    pub fn resources(&self, now: Instant) -> Vec<ResourceStatus> {
        self.resources.iter().map(|resource| self.resource_status(now, resource)).collect()
    }

    /// The relays that the portal named, sorted by id.
    pub fn relays(&self) -> impl Iterator<Item = &RelayAccess> {
        self.link.relays()
    }

    /// Every connection, sorted by gateway.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.gateways.iter().filter_map(|(id, _)| self.connection_status(id)).collect()
    }

    /// Says how a resource is reached, and begins to connect to it if it is not.
    ///
    /// The caller asks again until the state is no longer [`ResourceState::Connecting`].
    ///
    /// # Errors
    ///
    /// When there is no such resource, or nothing any more.
    pub fn ping(&mut self, now: Instant, resource: ResourceId) -> Result<Ping, PingError> {
        if self.is_shut_down {
            return Err(PingError::ShutDown);
        }
        if self.resources.get(resource).is_none() {
            return Err(PingError::UnknownResource);
        }
        if self.accesses.current(resource).is_none()
            && self.accesses.entry(resource).refusal_at(now).is_none()
        {
            self.accesses.entry(resource).wanted_until = Some(now + PING_PATIENCE);
            self.request(now, resource);
        }
        let gateway = self.accesses.current(resource).and_then(|held| self.gateways.get(held.gateway));
        let handshake = gateway.and_then(|gateway| self.link.last_handshake(gateway.connection));
        let handshake_age_ms = handshake
            .map(|at| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX));
        Ok(Ping { state: self.resource_state(now, resource), handshake_age_ms })
    }

    /// How much the machine holds.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.gateways.iter().count(),
            peers: self.link.peer_count(),
            leases: self.accesses.authorization_count(),
            waiting: self.accesses.waiting_count(),
            names: self.domains.len(),
            timers: self.timers.len(),
            ..Statistics::of(self.link.node())
        }
    }

    pub(super) fn connection_status(&self, id: GatewayId) -> Option<ConnectionStatus> {
        let gateway = self.gateways.get(id)?;
        // The node knows the newest round trip; events only tell of changes of the path.
        let path = gateway.path.map(|path| self.link.node().path(gateway.connection).unwrap_or(path));
        Some(ConnectionStatus {
            gateway: id,
            name: gateway.introduction.name.clone(),
            epoch: gateway.epoch(),
            path: path.map(PathStatus::from),
        })
    }

    fn resource_status(&self, now: Instant, resource: &Resource) -> ResourceStatus {
        ResourceStatus {
            id: resource.id,
            name: resource.name.clone(),
            address: resource.address.clone(),
            site: resource.site.name.clone(),
            state: self.resource_state(now, resource.id),
        }
    }

    fn resource_state(&self, now: Instant, resource: ResourceId) -> ResourceState {
        if let Some(held) = self.accesses.current(resource) {
            let path = self.connection_status(held.gateway).and_then(|connection| connection.path);
            return match path {
                Some(path) => ResourceState::Connected { gateway: held.gateway, path },
                None => ResourceState::Connecting,
            };
        }
        let Some(access) = self.accesses.get(resource) else { return ResourceState::NoActivity };
        match access.refusal_at(now) {
            Some((Refusal::Forbidden, _)) => ResourceState::Forbidden,
            Some((Refusal::Offline, _)) => ResourceState::Offline,
            None if access.request.is_some() => ResourceState::Connecting,
            None => ResourceState::NoActivity,
        }
    }
}
