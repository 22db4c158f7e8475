//! The relay's path through the kernel (XDP).
//!
//! ```text
//! client ── ChannelData ──► interface ─► program ─► interface ── plain UDP ──► peer
//!                                           │ anything else
//!                                           ▼
//!                                  kernel ─► sockets ─► relay
//! ```
//!
//! The relay's machine decides who may send what to whom; here its decisions become [`Route`]s in a table, and a
//! program in the kernel forwards the frames of a route without waking the relay. The program takes only frames that
//! it understands to the last byte; all others go up untouched, where everything works as well. So a route may be
//! missing at any time (a full table, an unusual address, a kernel that refuses), and that only means slower.
//!
//! What may *not* be is a route that outlives its channel. Three things see to it:
//!
//! - a route is removed when the machine says so; the name in it keeps a late removal from hitting a newer route,
//! - a route is good only while its relayed port has the generation it had, so [`Engine::release_port`] ends all
//!   routes of a port with one write,
//! - the program forwards only while the relay renews its lease, so a relay that stands still forwards nothing after
//!   [`LEASE`]; and when the process ends, however it ends, the kernel detaches the program by itself.
//!
//! Deliberately absent: quotas and per-route counters (users with a quota have no routes), forwarding from one
//! interface to another, tagged frames (VLAN), IPv4 options and IPv6 extension headers, fragments, TCP.
//!
//! Without the feature `program` the crate builds without clang, and attaching says what is missing.

#[cfg(not(feature = "program"))]
#[path = "absent.rs"]
mod engine;
#[cfg(feature = "program")]
mod engine;

mod counters;
#[cfg(feature = "program")]
mod entries;
mod error;
pub mod interface;
#[cfg(feature = "program")]
mod layout;
#[cfg(feature = "program")]
mod loopback;
#[cfg(feature = "program")]
pub mod measure;
mod route;
#[cfg(feature = "program")]
mod watch;

use std::time::Duration;

pub use counters::{Counters, Direction, PassReason};
pub use engine::Engine;
pub use error::{InsertError, XdpError};
pub use route::{Addresses, Route, Unroutable};

/// Whether this build contains the program.
pub const IS_BUILT_IN: bool = cfg!(feature = "program");

/// How long the program forwards after the last [`Engine::renew_lease`].
pub const LEASE: Duration = Duration::from_secs(10);

/// Most interfaces that the program is attached to.
pub const MAX_INTERFACES: usize = 8;

/// Where on its way in a frame meets the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes anything of it. Not every driver can.
    Driver,
    /// In the kernel's common part, behind the driver. Works with every interface, and is slower.
    Generic,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        })
    }
}

/// What to attach, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of the interfaces by which clients and peers come in, at most [`MAX_INTERFACES`].
    pub interfaces: Vec<String>,
    /// How.
    pub mode: Mode,
    /// The relay's addresses and ports.
    pub addresses: Addresses,
    /// Most routes at a time; more are served by the sockets. Each takes 256 bytes of kernel memory while it is
    /// there.
    pub capacity: u32,
    /// Random and secret.
    pub secret: (u64, u64),
}
