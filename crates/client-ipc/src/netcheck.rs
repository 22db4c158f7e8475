//! What `adit netcheck` finds: which ways out the network leaves open.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the network lets through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetcheckReport {
    /// The portal's URL.
    pub portal_url: String,
    /// Whether the portal answers over HTTPS.
    pub portal: Attempt,
    /// How far this host's clock is ahead of the portal's, in milliseconds and to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Every address of every relay; none while nobody is signed in.
    pub relays: Vec<RelayReport>,
    /// IPv4 as relays see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyReport>,
    /// IPv6 as relays see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyReport>,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// It worked, in so many milliseconds.
    WorkedInMs(f64),
    /// It did not.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people.
    pub detail: String,
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Somebody said no.
    Refused,
    /// Nobody said anything in time.
    NoAnswer,
    /// There is no way there.
    Unreachable,
    /// Whoever answered could not prove who it is.
    Certificate,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// How one address of a relay is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RelayReport {
    /// The relay.
    pub relay: Uuid,
    /// Its address, with the port for UDP.
    pub address: SocketAddr,
    /// Over UDP.
    pub udp: Attempt,
    /// Over TCP, if it listens there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Attempt>,
    /// Over TLS, if it listens there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Attempt>,
}

/// How one address family looks from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FamilyReport {
    /// The address that a relay saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<SocketAddr>,
    /// Whether it depends on who looks, as far as that could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
    /// The largest packet that got to a relay whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<PathMtu>,
}

/// How addresses are translated on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// Not at all.
    None,
    /// Every relay sees the same.
    Independent,
    /// Relays see different addresses or ports: direct connections to others of the kind fail.
    Dependent,
}

/// How large packets may be on the way to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PathMtu {
    /// The largest packet that was answered, in bytes with its IP header; of a few usual sizes.
    pub bytes: u16,
    /// Whether larger ones vanished although nothing told this host.
    pub is_silent: bool,
}
