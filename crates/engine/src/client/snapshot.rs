//! What a running client shows of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_control_client::FatalReason;
use adit_protocol::client::SignIn;
use adit_tunnel::{ConnectionStatus, PathStatus, ResourceStatus};

use super::Collision;
use crate::netcheck::RelayPlace;

/// How the client stands with the portal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PortalState {
    /// No connection has stood yet.
    #[default]
    Connecting,
    /// Connected.
    Connected,
    /// The connection is lost; it comes back by itself.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The credentials are dead.
    Dead {
        /// Why.
        reason: FatalReason,
    },
}

/// How the tunnel interface stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum InterfaceState {
    /// The portal has not said how to configure it.
    #[default]
    Waiting,
    /// It is up.
    Up {
        /// Its address.
        ipv4: Ipv4Addr,
        /// Its address.
        ipv6: Ipv6Addr,
        /// Whether the system's resolver asks us.
        is_dns_controlled: bool,
        /// Who sets the system's resolver, in a word.
        resolver: &'static str,
    },
    /// It could not be set up.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamesState {
    /// Where our resolver listens.
    pub resolvers: Vec<IpAddr>,
    /// What is added to short names.
    pub search_domains: Vec<String>,
    /// Whom our resolver asks for names that belong to no resource.
    pub upstreams: Vec<SocketAddr>,
    /// Whether the portal named those; else the network did.
    pub are_upstreams_of_portal: bool,
    /// Whether they are asked over HTTPS.
    pub is_over_https: bool,
}

/// The whole state of a running client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// How it stands with the portal.
    pub portal: PortalState,
    /// How the tunnel interface stands.
    pub interface: InterfaceState,
    /// How names are resolved.
    pub names: NamesState,
    /// Who is signed in, once the portal said so.
    pub actor: Option<String>,
    /// When the session ends, in Unix milliseconds.
    pub session_expires_at_ms: Option<u64>,
    /// The sign-in that the session rests on, once the portal said so.
    pub sign_in: Option<SignIn>,
    /// Every resource.
    pub resources: Vec<ResourceStatus>,
    /// Every connection.
    pub connections: Vec<ConnectionStatus>,
    /// The relays that the portal named.
    pub relays: Vec<RelayPlace>,
    /// Addresses that are in use both in the tunnel and in networks of the host, the worst first.
    pub collisions: Vec<Collision>,
}

/// How a resource is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingResult {
    /// The resource's name.
    pub resource: String,
    /// The gateway's name.
    pub gateway: String,
    /// The path to it.
    pub path: PathStatus,
    /// Time since the last handshake.
    pub handshake_age: Option<Duration>,
    /// How long it took until the connection stood.
    pub connected_in: Duration,
}

/// Why a resource cannot be pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PingFailure {
    /// Nothing of the user's has this name or address.
    #[error("no resource of yours has this name or address")]
    UnknownResource,
    /// Policy says no.
    #[error("policy does not let you reach this resource")]
    Forbidden,
    /// No gateway of its site is online.
    #[error("no gateway of the resource's site is online")]
    Offline,
    /// It took too long.
    #[error("no path to the gateway was found in time")]
    Timeout,
    /// The client stopped.
    #[error("the client has stopped")]
    Stopped,
}
