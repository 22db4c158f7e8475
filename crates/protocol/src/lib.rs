//! Wire contracts: what portal, client, gateway and relay say to each other.
//!
//! * Control messages travel between the portal and everybody else, over a WebSocket, as
//!   JSON text, one message per frame (see [`frame`]).
//! * A device signs in over HTTP (see [`sign_in`]).
//! * Peer control messages travel between client and gateway, inside the tunnel (see
//!   [`peer`]).
//!
//! [`REVISIONS`] logs every change to either. Unknown fields and unknown types are ignored
//! by both sides, so a revision may add but never change what stands.
//!
//! Deliberately absent: transport, retries and authentication (`control-client`, `portal`).

#![forbid(unsafe_code)]

pub mod client;
mod connection;
pub mod flow;
pub mod frame;
pub mod gateway;
pub mod peer;
pub mod problem;
pub mod relay;
mod relay_access;
pub mod sign_in;

pub use client::{ClientToPortal, PortalToClient};
pub use connection::{
    Candidate, CandidateKind, CandidateUpdate, EncodedKey, Hello, IceCredentials, Interface, InvalidKey,
    PeerIntroduction, SecretKey,
};
pub use frame::{DecodeError, Decoded, Message};
pub use gateway::{GatewayToPortal, PortalToGateway};
pub use relay::{PortalToRelay, RelayToPortal};
pub use relay_access::{RelayAccess, RelayTls};

/// The version that every frame carries; it changes only if the framing itself does.
pub const FRAME_VERSION: u8 = 1;

/// The largest control message in bytes; a larger one is refused by either side.
///
/// The init of a gateway holds all of its authorizations, about 1.2 kB each.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The largest control message to the portal in bytes: strangers' memory is rationed harder.
pub const MAX_MESSAGE_TO_PORTAL: usize = 1024 * 1024;

/// Every revision of the contracts: date, number, what changed.
pub const REVISIONS: &[(&str, u16, &str)] = &[
    ("2026-11-22", 1, "first revision"),
    (
        "2026-11-24",
        2,
        "a draining gateway may say when its successor takes over; which gateways to avoid most, and to prefer",
    ),
    ("2026-11-27", 3, "peers ask each other which sizes of packets arrive"),
    ("2026-11-27", 4, "relays may listen on TCP and TLS too"),
    ("2026-11-28", 5, "devices sign in over HTTP; a client is told when a newer sign-in would give it more"),
    ("2026-11-28", 6, "gateways report flows to a portal that keeps a log of them"),
    ("2026-11-28", 7, "clients report their flows too"),
    ("2026-11-28", 8, "whoever is connected hears at once that the flow log was switched on or off"),
];

/// The newest revision that this build speaks; sent in every hello.
pub const REVISION: u16 = REVISIONS[REVISIONS.len() - 1].1;
