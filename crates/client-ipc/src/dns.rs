//! What `adit dns` shows: who answers for which names, and what becomes of one.

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
    /// The settings of the daemon; they are asked over HTTPS.
    Https,
}

/// What the tunnel's resolver said to a question, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DnsQueryReport {
    /// What was asked for.
    pub name: String,
    /// The type of records that was asked for.
    pub r#type: String,
    /// The response code, such as `NOERROR`.
    pub rcode: String,
    /// The records of the answer.
    pub answers: Vec<DnsRecord>,
    /// Who answered.
    pub because: Answerer,
    /// The resource that the name belongs to.
    pub resource: Option<String>,
    /// The pattern by which it does.
    pub pattern: Option<String>,
    /// Who is asked for names that belong to no resource.
    pub upstreams: Vec<SocketAddr>,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DnsRecord {
    /// Whose it is.
    pub name: String,
    /// Seconds that it may be kept.
    pub ttl: u32,
    /// Its type.
    pub r#type: String,
    /// What it says, as in a zone file.
    pub data: String,
}

/// Who answers a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// The tunnel's resolver: the name belongs to a resource.
    Resource,
    /// The tunnel's resolver: an upstream's answer would lead programs past it.
    KeptBack,
    /// An upstream resolver.
    Upstream,
    /// Nobody: the tunnel's resolver refuses, or no upstream answers.
    Refused,
}
