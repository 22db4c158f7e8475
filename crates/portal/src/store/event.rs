//! What happened and whom it concerns: the rows of the outbox.

use adit_policy::{ActorId, AuthorizationId, ClientId, GatewayId, ResourceId, TokenId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A fact that peers must hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A lease was stored: introduce the two peers.
    AuthorizationCreated {
        /// The lease.
        id: AuthorizationId,
        /// The client's request that it answers.
        request_id: u64,
    },
    /// A lease ended before its time.
    AuthorizationRevoked {
        /// The lease.
        id: AuthorizationId,
        /// Whose it was.
        client: ClientId,
        /// Who enforces it.
        gateway: GatewayId,
        /// What it was for.
        resource: ResourceId,
    },
    /// What these actors may see may have changed.
    VisibilityChanged {
        /// The actors.
        actors: Vec<ActorId>,
    },
    /// A resource's name or filters changed.
    ResourceChanged {
        /// The resource.
        id: ResourceId,
    },
    /// Settings that clients have from the portal changed: they come back for the new ones.
    SettingsChanged,
    /// The flow log was switched on or off, for one kind of reporters or both.
    FlowLogChanged {
        /// Whether gateways report now, if that changed.
        from_gateways: Option<bool>,
        /// Whether clients report now, if that changed.
        from_clients: Option<bool>,
    },
    /// A token was revoked: its sessions end for good.
    TokenRevoked {
        /// The token.
        id: TokenId,
    },
    /// The sign-in that a token rests on is a newer one, with another end.
    TokenRenewed {
        /// The token.
        id: TokenId,
    },
    /// A device was deleted: its session ends and it comes back as another device.
    DeviceDeleted {
        /// The device, client or gateway.
        id: Uuid,
    },
}
