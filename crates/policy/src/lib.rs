//! Who may reach what, until when, and why.
//!
//! This crate holds the vocabulary that every program shares: identifiers, resources and
//! their traffic filters, policies with conditions, and the decision that turns them into a lease. It is
//! pure: the caller passes the time in.
//!
//! Deliberately absent: storage, wire framing and enforcement. The portal stores and
//! decides, `protocol` carries, `tunnel` enforces.

#![forbid(unsafe_code)]

mod address;
mod condition;
mod decision;
mod filter;
mod id;
#[cfg(feature = "openapi")]
mod openapi;
mod provider;
mod region;
mod resource;

pub use address::AddressError;
pub use condition::{
    Among, Circumstances, ClockTime, ConditionError, ConditionKind, Conditions, Day, Schedule, Unmet, Window,
};
pub use decision::{Decision, Grant, PolicyRule, Refusal, Subject, Verdict, decide, explain};
pub use filter::{Filter, FilterError, PortRange, Traffic, permits};
pub use id::{
    AccountId, ActorId, AuthorizationId, ClientId, GatewayId, GroupId, ParseIdError, PolicyId, ProviderId,
    RelayId, ResourceId, SiteId, TokenId,
};
pub use provider::{ParseProviderError, ProviderName};
pub use region::{ParseRegionError, Region};
pub use resource::{Resource, ResourceAddress, Site};
