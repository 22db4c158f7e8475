//! Messages between gateway and portal.

use adit_policy::{AuthorizationId, ClientId, GatewayId, Resource, ResourceId, Site};
use serde::{Deserialize, Serialize};

use crate::client::{Disconnect, Empty, RelaysChanged};
use crate::flow::{FlowLogChanged, Flows, FlowsStored};
use crate::frame::messages;
use crate::{CandidateUpdate, Hello, Interface, PeerIntroduction, RelayAccess};

messages! {
    /// What a gateway says to the portal.
    GatewayToPortal {
        /// The first message.
        Hello(Hello) = "hello",
        /// The gateway's own candidates changed.
        Candidates(CandidateUpdate) = "candidates",
        /// The gateway has no usable relay left.
        RequestRelays(Empty) = "request_relays",
        /// The gateway is about to stop: choose it no more.
        Draining(Draining) = "draining",
        /// The gateway's connection to a client is gone.
        ConnectionClosed(ConnectionClosed) = "connection_closed",
        /// What became of flows.
        Flows(Flows) = "flows",
    }
}

messages! {
    /// What the portal says to a gateway.
    PortalToGateway {
        /// The answer to hello: the complete state.
        Init(Init) = "init",
        /// A client may reach a resource; the client is told at the same time.
        AuthorizationCreated(Box<GatewayAuthorization>) = "authorization_created",
        /// An authorization ended before its time.
        AuthorizationRevoked(AuthorizationRevoked) = "authorization_revoked",
        /// A resource's name or filters changed.
        ResourceChanged(Resource) = "resource_changed",
        /// A client's candidates changed.
        PeerCandidates(PeerCandidates) = "peer_candidates",
        /// The portal lost a client's control session: a hint, not a fact.
        ClientGone(ClientGone) = "client_gone",
        /// Relays came, went or have new credentials.
        RelaysChanged(RelaysChanged) = "relays_changed",
        /// The interface's configuration changed.
        InterfaceChanged(Interface) = "interface_changed",
        /// The answer to `flows`.
        FlowsStored(FlowsStored) = "flows_stored",
        /// The flow log was switched on or off.
        FlowLogChanged(FlowLogChanged) = "flow_log_changed",
        /// The portal is about to close the session.
        Disconnect(Disconnect) = "disconnect",
    }
}

/// The gateway is about to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// A successor on the same host takes over within this time, in milliseconds; absent when none is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The complete state of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// The portal's clock, in Unix milliseconds; leases are measured against it.
    pub portal_time_ms: u64,
    /// The gateway's id.
    pub gateway: GatewayId,
    /// The site it serves.
    pub site: Site,
    /// How to configure the tunnel interface.
    pub interface: Interface,
    /// Relays to use.
    pub relays: Vec<RelayAccess>,
    /// Every valid authorization; the gateway drops all others.
    pub authorizations: Vec<GatewayAuthorization>,
    /// Whether the portal keeps a flow log: only then is it sent reports of flows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_flows: bool,
}

/// A client may reach a resource through this gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayAuthorization {
    /// Names the authorization.
    pub id: AuthorizationId,
    /// Who.
    pub client: PeerIntroduction<ClientId>,
    /// What.
    pub resource: Resource,
    /// Until when, in Unix milliseconds.
    pub expires_at_ms: u64,
}

/// An authorization ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRevoked {
    /// The authorization.
    pub id: AuthorizationId,
    /// Whose it was.
    pub client: ClientId,
    /// What it was for.
    pub resource: ResourceId,
}

/// A client's candidates changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCandidates {
    /// The client.
    pub client: ClientId,
    /// The change.
    #[serde(flatten)]
    pub update: CandidateUpdate,
}

/// The portal lost a client's control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientGone {
    /// The client.
    pub client: ClientId,
}

/// The gateway's connection to a client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionClosed {
    /// The client.
    pub client: ClientId,
    /// The epoch of the connection.
    pub epoch: u64,
}
