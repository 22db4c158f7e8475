//! DNS on the device: names of resources answered here, all others forwarded.
//!
//! Applications ask a resolver address inside the tunnel; [`Server`] is what answers there. Per query it decides:
//!
//! - The name matches the [`Pattern`] of a resource: the [`StubResolver`] answers with stable [`ProxyAddresses`]; the
//!   gateway resolves the name where the resource lives. Nothing about such a name ever leaves the device, whatever the
//!   record type.
//! - Anything else goes to an upstream resolver through the [`Forwarder`], which has timeouts, fallback to the next
//!   upstream, fallback to TCP and a [`Cache`].
//!
//! Everything is a machine without IO: raw IP packets and `now` go in; IP packets, [`UpstreamQuery`]s and deadlines
//! come out. After each input, drain `poll_packet` and `poll_upstream_query`.
//!
//! Deliberately absent: recursion, validation of DNSSEC (the DO and CD bits pass through), zones, DNS over HTTPS.

#![forbid(unsafe_code)]

mod answer;
mod cache;
mod forwarder;
mod name;
mod pattern;
mod pattern_index;
mod proxy_addresses;
mod query;
mod response;
mod server;
mod stub;
pub mod tcp;

pub use cache::Cache;
pub use forwarder::{Answer, Forwarder, ResponseError, UpstreamFailure, UpstreamId, UpstreamQuery};
pub use name::{Name, NameError};
pub use pattern::{Pattern, PatternError};
pub use pattern_index::PatternIndex;
pub use proxy_addresses::{ADDRESSES_PER_NAME, Assignment, Exhausted, IDLE, ProxyAddresses};
pub use query::{DropReason, Query, Refusal, Transport};
pub use server::{Owner, Server, Settings};
pub use stub::{Decision, StubResolver, is_kept_from_upstreams};
