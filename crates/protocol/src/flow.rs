//! Reports of flows, from a gateway or a client to the portal.
//!
//! A gateway reports its clients' flows, a client its own: two accounts of the same traffic, from both ends of the tunnel.
//! Each numbers its reports and keeps them on disk until the portal says that they are stored. It sends them in the order of their numbers, one batch at a time: [`Flows`], answered by [`FlowsStored`] after the commit. A batch whose
//! answer was lost is sent again; the portal skips the numbers that it has seen. A flow that lives long is reported several
//! times under one id, each time with everything it carried so far.
//!
//! Deliberately absent: payload, and anything per packet. A portal whose `init`, or [`FlowLogChanged`] since, does not say
//! that it keeps a flow log is sent none. A reporter that does not know that message goes by the `init` of its next session;
//! until then what it sends is answered and thrown away.

use std::net::IpAddr;

use adit_policy::{AuthorizationId, ClientId, GatewayId, ResourceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most reports of one batch; a longer one is refused.
pub const MAX_FLOWS: usize = 256;

/// The most bytes that the name of one flow may have: that of a DNS name.
pub const MAX_FLOW_NAME: usize = 253;

/// A batch of reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// The numbering that the numbers belong to; another one begins when the disk was lost.
    pub spool: Uuid,
    /// In the order of their numbers, at most [`MAX_FLOWS`].
    pub flows: Vec<NumberedFlow>,
}

/// A report and its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedFlow {
    /// Larger than that of the report before; numbers of reports that were dropped for want of space are missing.
    pub number: u64,
    /// What is reported.
    #[serde(flatten)]
    pub report: FlowReport,
}

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum FlowReport {
    /// The reporter began anew: flows that it reported open and not closed are over.
    Restarted,
    /// A flow, as it stands.
    Flow(Box<FlowRecord>),
}

/// One flow of a client through a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Names the flow; a UUIDv7 of the time at which it opened.
    pub id: Uuid,
    /// The authorization that let it pass when it opened.
    pub authorization: AuthorizationId,
    /// Whose it is, from a gateway; a client's flows are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The gateway that it goes through, from a client; a gateway's flows go through itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayId>,
    /// What it leads to.
    pub resource: ResourceId,
    /// IP protocol number.
    pub protocol: u8,
    /// The client's tunnel address.
    pub source: IpAddr,
    /// The client's port, or the identifier of an ICMP echo; 0 for protocols without ports.
    pub source_port: u16,
    /// Where it really goes, from a gateway; from a client where it goes as far as the client knows, which for a name is a
    /// proxy address.
    pub destination: IpAddr,
    /// The port there; 0 for protocols without ports.
    pub destination_port: u16,
    /// The name that the client asked for, of a DNS resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the tunnel reached the gateway when this was reported; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<FlowPath>,
    /// When it opened, in Unix milliseconds of the portal's clock.
    pub opened_ms: u64,
    /// When this was reported, or when it ended; the same clock.
    pub at_ms: u64,
    /// Why it ended; absent as long as it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<FlowEnd>,
    /// IP packets from the client so far.
    pub sent_packets: u64,
    /// Bytes of these, IP headers included.
    pub sent_bytes: u64,
    /// IP packets to the client so far.
    pub received_packets: u64,
    /// Bytes of these, IP headers included.
    pub received_bytes: u64,
}

/// How a tunnel reaches a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowPath {
    /// Peer to peer.
    Direct,
    /// Through a relay.
    Relayed,
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEnd {
    /// The TCP connection was closed or reset.
    Closed,
    /// Nothing came for as long as its protocol and state allow.
    Idle,
    /// Its authorization was revoked or has expired, or the resource changed.
    AuthorizationEnded,
    /// The connection with the other end is gone.
    ConnectionLost,
    /// The reporter's table was full.
    Evicted,
    /// Another flow took its place.
    Replaced,
    /// The reporter stopped.
    ShuttingDown,
    /// It is not known why, or it is a reason of a later revision.
    #[serde(other)]
    Other,
}

impl FlowPath {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

impl FlowEnd {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::AuthorizationEnded => "authorization_ended",
            Self::ConnectionLost => "connection_lost",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::ShuttingDown => "shutting_down",
            Self::Other => "other",
        }
    }
}

/// Reports up to a number are stored for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsStored {
    /// Of this numbering.
    pub spool: Uuid,
    /// The number of the last report that was stored.
    pub number: u64,
}

/// The flow log was switched on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogChanged {
    /// Whether the portal is sent reports of flows from now on.
    pub keeps_flows: bool,
}
