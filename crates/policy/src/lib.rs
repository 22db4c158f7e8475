//! Who may reach what, until when, and why.
//!
//! This crate holds the vocabulary that every program shares: identifiers, resources and
//! their traffic filters, policies, and the decision that turns them into a lease. It is
//! pure: the caller passes the time in.
//!
//! Deliberately absent: storage, wire framing and enforcement. The portal stores and
//! decides, `protocol` carries, `tunnel` enforces.

#![forbid(unsafe_code)]

mod address;
mod decision;
mod filter;
mod id;
mod resource;

pub use address::AddressError;
pub use decision::{Decision, Grant, PolicyRule, Refusal, Subject, decide};
pub use filter::{Filter, FilterError, PortRange, Traffic, permits};
pub use id::{
    AccountId, ActorId, AuthorizationId, ClientId, GatewayId, GroupId, ParseIdError, PolicyId, RelayId,
    ResourceId, SiteId, TokenId,
};
pub use resource::{Resource, ResourceAddress, Site};
