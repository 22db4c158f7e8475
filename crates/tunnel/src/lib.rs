//! The state machines of client and gateway: who may send what to whom, until when.
//!
//! [`Client`] turns the first packet of a flow into a request to the portal, the portal's
//! answer into a connection, and the connection into a flow that workers carry. [`Gateway`]
//! holds the leases that the portal gave out, admits the flows that a lease covers, and ends
//! them the moment it is over. Everything else here serves these two sentences.
//!
//! Both are pure: time, randomness and bytes come in, decisions go out. The same code runs
//! in the daemon, in the gateway and in tests with virtual time.
//!
//! # Invariants
//!
//! * No flow without a lease: a flow names its grant, and a grant ends with its lease.
//! * What a connection leaves behind when it closes is nothing but counters.
//! * Every queue and table is bounded, every packet that goes no further is counted under a
//!   [`DropReason`], and no deadline costs more because there are many.
//!
//! # Deliberately absent
//!
//! Sockets, devices, threads (`engine`); the work on packets of established flows
//! (`dataplane`); finding a path (`peering`); deciding who may what (`policy`, `portal`).

#![forbid(unsafe_code)]

mod address;
mod answers;
mod client;
mod clock;
mod deadlines;
mod drops;
mod flow_log;
mod gateway;
mod interface;
mod link;
mod network_table;
mod seeds;
mod statistics;
mod token_bucket;
mod traffic;

pub use adit_peering::{PathKind, RelayTransport, StreamId, StreamTarget, Transmit};
pub use client::{
    Client, ClientConfig, ClientEvent, ConnectionStatus, DnsFailure, DnsQueryId, DnsTransport, PathStatus,
    Ping, PingError, ResourceState, ResourceStatus,
};
pub use drops::{DropCounters, DropReason};
pub use gateway::{ClientStatus, Gateway, GatewayConfig, GatewayEvent, Handover, LookupId, ResolveFailure};
pub use interface::{DEFAULT_MTU, Interface};
pub use statistics::Statistics;
