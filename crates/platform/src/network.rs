//! The tunnel interface in the host's network: addresses, MTU, routes, and the rules that keep our own
//! packets out of the tunnel.
//!
//! A client's routes live in tables of their own. A policy rule sends every packet there *that does not carry
//! our mark*, so the daemon's sockets, which set the mark, always use the host's ordinary routes and never
//! loop through the tunnel ([`Bypass`]). A gateway has no such rules: its routes go to the main table, and
//! only ever for the tunnel's own ranges.
//!
//! On a host without IPv6 the IPv6 half of a state is left out and [`Applied::ipv6`] says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use ipnet::IpNet;

#[cfg(target_os = "linux")]
mod guard;
mod linux;
#[cfg(target_os = "linux")]
mod rules;

#[cfg(target_os = "linux")]
pub use linux::LinuxNetwork;

/// The mark of our sockets; only the bits of [`FWMARK_MASK`] count, the others may be used by other software.
pub const FWMARK: u32 = 0xad00_0000;

/// The bits of a packet mark that are ours.
pub const FWMARK_MASK: u32 = 0xff00_0000;

/// Tunnels that a host may have at once, each of a profile of its own; they are numbered from 0.
pub const PROFILES: u8 = 5;

/// What the interface of the tunnel with this number is called unless something else was asked for.
#[must_use]
pub fn default_interface(number: u8) -> String {
    format!("adit{number}")
}

/// How unmarked packets get to the tunnel's routes.
///
/// The mark is the same for all tunnels of a host: none of them ever runs inside of another, so there are no circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Packets with this mark (under [`FWMARK_MASK`]) ignore the tunnel.
    pub fwmark: u32,
    /// Table of the tunnel's routes; the next number holds its default routes.
    pub table: u32,
    /// Priority of the rule for the tunnel's routes.
    pub priority: u32,
    /// Priority of the two rules for its default routes: after the routes of all tunnels.
    pub default_priority: u32,
}

impl Bypass {
    /// That of the tunnel with this number, which is below [`PROFILES`]. Where the routes of two tunnels overlap, those
    /// of the lower number win; default routes come after all others.
    #[must_use]
    pub fn of_profile(number: u8) -> Self {
        let number = u32::from(number);
        Self {
            fwmark: FWMARK,
            table: 0xad17 + 2 * number,
            priority: 5_100 + number,
            default_priority: 5_110 + 2 * number,
        }
    }
}

impl Default for Bypass {
    fn default() -> Self {
        Self::of_profile(0)
    }
}

/// Everything the tunnel interface should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// Name of the interface, which must exist.
    pub interface: String,
    /// MTU in bytes; below 1,280 the kernel takes IPv6 away.
    pub mtu: u32,
    /// The longest super-packet that the kernel should make for the interface, in bytes; `None` leaves it what it is.
    pub super_packet: Option<u32>,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Destinations that lead into the interface.
    pub routes: Vec<IpNet>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// False when the host has no usable IPv6 and that half was left out.
    pub ipv6: bool,
    /// Interfaces whose strict reverse path filter this call has loosened for as long as the tunnel is up.
    pub loosened: Vec<String>,
}

/// Why the state could not be set.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no such interface.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    /// The process may not configure interfaces.
    #[error("no permission to {0} (run as root or with CAP_NET_ADMIN)")]
    NoPermission(String),
    /// The record of changes cannot be kept, so nothing more was changed.
    #[error("cannot {action}: {error}")]
    System {
        /// What was being done.
        action: String,
        /// What the operating system said.
        error: std::io::Error,
    },
}

/// Sets the whole network state of the tunnel interface.
pub trait NetworkControl: Send {
    /// Makes the host look like `desired`, changing only what differs. Call it again after the host's network
    /// changed.
    fn apply<'a>(&'a mut self, desired: &'a NetworkState) -> BoxFuture<'a, Result<Applied, NetworkError>>;

    /// Takes everything back; the interface may be gone already.
    fn clear(&mut self) -> BoxFuture<'_, Result<(), NetworkError>>;

    /// Takes back what a crashed run has left behind, except what keeps traffic from going past a tunnel that had a
    /// default route: that stays until `apply` or `clear`. Call it before the first `apply`.
    fn recover(&mut self) -> BoxFuture<'_, Result<(), NetworkError>>;
}

/// Records what it was told, for tests; clones share the record.
#[derive(Clone, Debug, Default)]
pub struct FakeNetwork {
    calls: Arc<Mutex<Vec<NetworkCall>>>,
}

/// One call of a [`FakeNetwork`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkCall {
    /// `apply` with this state.
    Apply(NetworkState),
    /// `clear`.
    Clear,
    /// `recover`.
    Recover,
}

impl FakeNetwork {
    fn lock(&self) -> MutexGuard<'_, Vec<NetworkCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<NetworkCall> {
        self.lock().clone()
    }

    /// The state in force; `None` before the first `apply` and after `clear`.
    #[must_use]
    pub fn state(&self) -> Option<NetworkState> {
        match self.lock().last() {
            Some(NetworkCall::Apply(state)) => Some(state.clone()),
            _ => None,
        }
    }
}

impl NetworkControl for FakeNetwork {
    fn apply<'a>(&'a mut self, desired: &'a NetworkState) -> BoxFuture<'a, Result<Applied, NetworkError>> {
        self.lock().push(NetworkCall::Apply(desired.clone()));
        Box::pin(std::future::ready(Ok(Applied { ipv6: true, loosened: Vec::new() })))
    }

    fn clear(&mut self) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.lock().push(NetworkCall::Clear);
        Box::pin(std::future::ready(Ok(())))
    }

    fn recover(&mut self) -> BoxFuture<'_, Result<(), NetworkError>> {
        self.lock().push(NetworkCall::Recover);
        Box::pin(std::future::ready(Ok(())))
    }
}
