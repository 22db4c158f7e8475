//! A whole portal in this process, spoken to as peers and administrators do: over sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod api;
mod archive;
mod backend;
mod command_line;
mod conditions;
mod crash;
mod devices;
mod ground;
mod hostile;
mod program;
mod relays;
mod revocation;
mod sign_in;
mod world;
