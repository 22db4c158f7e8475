//! Messages between client and portal.

use adit_policy::{AuthorizationId, ClientId, GatewayId, RelayId, Resource, ResourceId, SiteId};
use serde::{Deserialize, Serialize};

use crate::flow::{FlowLogChanged, Flows, FlowsStored};
use crate::frame::messages;
use crate::{CandidateUpdate, Hello, Interface, PeerIntroduction, RelayAccess};

messages! {
    /// What a client says to the portal.
    ClientToPortal {
        /// The first message.
        Hello(Hello) = "hello",
        /// Asks for access to a resource.
        RequestAuthorization(RequestAuthorization) = "request_authorization",
        /// The client's own candidates changed.
        Candidates(CandidateUpdate) = "candidates",
        /// The client has no usable relay left.
        RequestRelays(Empty) = "request_relays",
        /// The client is done with an open connection (goodbye said or received, or failed).
        ConnectionClosed(ConnectionClosed) = "connection_closed",
        /// Reports of flows; to a portal that keeps a flow log only.
        Flows(Flows) = "flows",
        /// Ends the session on the server.
        SignOut(Empty) = "sign_out",
    }
}

messages! {
    /// What the portal says to a client.
    PortalToClient {
        /// The answer to hello: the complete state.
        Init(Init) = "init",
        /// A resource became visible or changed.
        ResourceChanged(Resource) = "resource_changed",
        /// A resource is no longer visible.
        ResourceRemoved(ResourceRemoved) = "resource_removed",
        /// The answer to a request: yes.
        AuthorizationCreated(Box<AuthorizationCreated>) = "authorization_created",
        /// The answer to a request: no.
        AuthorizationFailed(AuthorizationFailed) = "authorization_failed",
        /// An authorization ended before its time.
        AuthorizationRevoked(AuthorizationRevoked) = "authorization_revoked",
        /// A gateway's candidates changed.
        PeerCandidates(PeerCandidates) = "peer_candidates",
        /// The portal lost a gateway's control session: a hint, not a fact.
        GatewayGone(GatewayGone) = "gateway_gone",
        /// Relays came, went or have new credentials.
        RelaysChanged(RelaysChanged) = "relays_changed",
        /// The interface's configuration changed.
        InterfaceChanged(Interface) = "interface_changed",
        /// The sign-in that the session rests on, after the init and whenever it changes.
        SignIn(SignIn) = "sign_in",
        /// Reports of flows are stored.
        FlowsStored(FlowsStored) = "flows_stored",
        /// The flow log was switched on or off.
        FlowLogChanged(FlowLogChanged) = "flow_log_changed",
        /// The portal is about to close the session.
        Disconnect(Disconnect) = "disconnect",
    }
}

/// A message that says everything by its type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Asks for access to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAuthorization {
    /// Chosen by the client; the answer carries it. A repeated request keeps its id.
    pub request_id: u64,
    /// What the client wants to reach.
    pub resource: ResourceId,
    /// Gateways that the client has an open connection to, with the epoch of each.
    #[serde(default)]
    pub connected_gateways: Vec<ConnectedGateway>,
    /// Gateways not to choose unless there is no other; the worst first, so that of these the last is taken.
    #[serde(default)]
    pub avoid_gateways: Vec<GatewayId>,
    /// The gateway that carries flows to the resource already: a renewed lease belongs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_gateway: Option<GatewayId>,
}

/// A gateway that the client has an open connection to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedGateway {
    /// The gateway.
    pub id: GatewayId,
    /// The epoch of the connection.
    pub epoch: u64,
}

/// A connection of the client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionClosed {
    /// The gateway.
    pub gateway: GatewayId,
    /// The epoch of the connection.
    pub epoch: u64,
}

/// The complete state of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// The portal's clock, in Unix milliseconds; leases are measured against it.
    pub portal_time_ms: u64,
    /// The client's id.
    pub client: ClientId,
    /// The person or service account that is signed in.
    pub actor_name: String,
    /// How to configure the tunnel interface.
    pub interface: Interface,
    /// Every resource that the client may ask for.
    pub resources: Vec<Resource>,
    /// Relays to use.
    pub relays: Vec<RelayAccess>,
    /// Authorizations of this client that are still valid; it drops all others.
    pub authorizations: Vec<ValidAuthorization>,
    /// When the session ends, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expires_at_ms: Option<u64>,
    /// Whether the portal keeps a flow log: only then is it sent reports of flows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_flows: bool,
}

/// The sign-in that a client's session rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// When somebody last proved who they are, in Unix milliseconds; never with a static token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated_at_ms: Option<u64>,
    /// When the session ends, in Unix milliseconds; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Whether signing in again would give access to something that is hidden now, because the
    /// sign-in is too old for it.
    #[serde(default)]
    pub is_too_old: bool,
}

/// An authorization that the client holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidAuthorization {
    /// Names it.
    pub id: AuthorizationId,
    /// What it is for.
    pub resource: ResourceId,
    /// Through whom.
    pub gateway: GatewayId,
    /// When it ends, in Unix milliseconds.
    pub expires_at_ms: u64,
}

/// A resource is no longer visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRemoved {
    /// The resource.
    pub id: ResourceId,
}

/// Access was granted; the gateway is told at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCreated {
    /// The request that this answers.
    pub request_id: u64,
    /// Names the authorization.
    pub id: AuthorizationId,
    /// What it is for.
    pub resource: ResourceId,
    /// The site of the gateway.
    pub site: SiteId,
    /// When it ends, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// The gateway to use.
    pub gateway: PeerIntroduction<GatewayId>,
}

/// Access was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationFailed {
    /// The request that this answers.
    pub request_id: u64,
    /// What was asked for.
    pub resource: ResourceId,
    /// Why not.
    pub reason: FailureReason,
    /// Ask again no sooner than this, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Why access was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// There is no such resource, or the client may not see it.
    NotFound,
    /// Policy says no.
    Forbidden,
    /// No gateway of the site is online.
    Offline,
    /// The portal could not answer now.
    #[serde(other)]
    Unavailable,
}

/// An authorization ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRevoked {
    /// The authorization.
    pub id: AuthorizationId,
    /// What it was for.
    pub resource: ResourceId,
    /// Through whom.
    pub gateway: GatewayId,
}

/// A gateway's candidates changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCandidates {
    /// The gateway.
    pub gateway: GatewayId,
    /// The change.
    #[serde(flatten)]
    pub update: CandidateUpdate,
}

/// The portal lost a gateway's control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayGone {
    /// The gateway.
    pub gateway: GatewayId,
}

/// Relays came, went or have new credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaysChanged {
    /// Relays not to use any more.
    #[serde(default)]
    pub removed: Vec<RelayId>,
    /// Relays to use from now on; a known id has new credentials.
    #[serde(default)]
    pub added: Vec<RelayAccess>,
}

/// The portal is about to close the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Why.
    pub reason: DisconnectReason,
}

/// Why the portal closes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// The token has expired: final.
    ExpiredToken,
    /// The token was revoked or the session ended: final.
    RevokedToken,
    /// Another connection of the same device took over: come back only when asked to.
    Superseded,
    /// The portal restarts, or wants the peer to resynchronise: come back.
    #[serde(other)]
    Restart,
}

impl DisconnectReason {
    /// Whether the credentials are dead, so that coming back is useless.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::ExpiredToken | Self::RevokedToken)
    }
}
