//! The portal `adit-portal`: API, admin pages, sessions, identity, storage and audit.
//!
//! A request's way: `server` accepts, `api` or `session::upgrade` authenticates, a handler opens
//! a `store::Change`, the change is committed with its events, the `dispatcher` hands the events
//! to the `hub`, the hub to the sessions that they concern. Nothing is ever pushed that was not
//! stored before, and nothing that is stored is only pushed: peers that reconnect get it all.
//!
//! Deliberately absent: mail, and anything that needs the internet.

#![forbid(unsafe_code)]

pub mod acme;
mod api;
pub mod archive;
mod authorize;
pub mod bootstrap;
mod certificate;
pub mod cli;
mod clock;
mod connect_limit;
mod credential;
mod data_dir;
mod dispatcher;
mod doctor;
mod flow_log;
mod hub;
mod nodes;
mod plan;
mod portal;
mod presentable;
mod scim;
pub mod serve;
mod server;
mod session;
mod store;
mod ui;
mod web;

pub use store::Database;
