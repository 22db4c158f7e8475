//! What `adit dns status` shows: who answers for which names.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How names are resolved while the client is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DnsReport {
    /// Who sets the system's resolver, such as `systemd-resolved`.
    pub controller: String,
    /// Whether the system asks the tunnel's resolver.
    pub is_controlled: bool,
    /// Where the tunnel's resolver listens, at port 53.
    pub resolvers: Vec<IpAddr>,
    /// Whom it asks for names that belong to no resource.
    pub upstreams: Vec<SocketAddr>,
    /// Who named those.
    pub upstreams_from: UpstreamSource,
    /// What is added to short names.
    pub search_domains: Vec<String>,
    /// Patterns of the names that belong to resources.
    pub match_domains: Vec<String>,
}

/// Who named the upstream resolvers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UpstreamSource {
    /// An administrator, in the portal.
    Portal,
    /// The network that the device is in.
    System,
}
