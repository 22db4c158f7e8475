//! The client daemon `aditd` and the command line `adit`.
//!
//! The daemon owns session, token, tunnel, DNS and routes; the command line only talks to
//! it over `client-ipc` and may come and go.

pub mod cli;
pub mod daemon;
