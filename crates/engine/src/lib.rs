//! The threads: drive a tunnel machine and its worker with the platform and the portal session.
//!
//! Each process has one control thread, which runs the pure machine, the session with the
//! portal and everything slow, and worker threads, which move packets:
//!
//! ```text
//!            updates (bounded, in order, bell)
//!  control ────────────────────────────────────► worker
//!  thread  ◄──────────────────────────────────── threads
//!     │        misses, datagrams, events           │
//!     └── portal, DNS, routes, timers              └── TUN, UDP
//! ```
//!
//! Workers never wait for the control thread: what does not fit the queue is dropped and counted.
//!
//! Deliberately absent: decisions (`tunnel`), packet work (`dataplane`), and what a program
//! makes of the state it is shown.

#![forbid(unsafe_code)]

pub mod client;
mod delivery;
mod dial;
mod doh;
mod driver;
mod export;
mod flows;
pub mod gateway;
mod identity;
mod interface;
mod lookup;
pub mod netcheck;
mod offloads;
mod outgoing;
mod portal;
mod sockets;
mod streams;
mod upstream;
mod worker;
mod workers;

pub use doh::{DohError, DohServer};
pub use identity::{Identity, IdentityError, host_name};
pub use offloads::{OffloadKind, Offloads, UnknownOffload};
pub use portal::PortalConfig;
pub use workers::{default_workers, parse_workers};
