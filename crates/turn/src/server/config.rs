//! How the server machine is set up.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// How the relay serves.
#[derive(Clone)]
pub struct Config {
    /// IPv4 address under which clients and peers reach the relay; none: no IPv4 allocations.
    pub public_v4: Option<Ipv4Addr>,
    /// IPv6 address under which clients and peers reach the relay; none: no IPv6 allocations.
    pub public_v6: Option<Ipv6Addr>,
    /// Addresses of this machine that peers must not name, besides the public ones.
    pub own_addresses: Vec<IpAddr>,
    /// Port of the listeners.
    pub listener_port: u16,
    /// Ports to lend.
    pub ports: RangeInclusive<u16>,
    /// Realm of the credentials.
    pub realm: String,
    /// Secret under which passwords are checked.
    pub secret: Vec<u8>,
    /// Secret before that, still accepted.
    pub previous_secret: Option<Vec<u8>>,
    /// Networks that peers may be in although they are special-purpose.
    pub allowed_peers: Vec<IpNet>,
    /// Tell of every [`Route`](super::Route), for a caller that can forward some packets by itself. Without
    /// effect where [`Limits`] bound the rates of users, since only the machine keeps them.
    pub announce_routes: bool,
    /// Relayed ports send IPv4 with the DF bit set, as DONT-FRAGMENT asks for. Without it, requests with
    /// that attribute draw 420, and such Send indications are dropped (RFC 8656, sections 7.2 and 11.2).
    pub dont_fragment: bool,
    /// Bounds of every table.
    pub limits: Limits,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("public_v4", &self.public_v4)
            .field("public_v6", &self.public_v6)
            .field("listener_port", &self.listener_port)
            .field("ports", &self.ports)
            .field("realm", &self.realm)
            .field("allowed_peers", &self.allowed_peers)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds of the server's tables and rates. A relay with several machines has them once for each.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Allocations in all; beyond it 508.
    pub allocations: usize,
    /// Allocations per user; beyond it 486.
    pub allocations_per_user: usize,
    /// Channels per allocation; beyond it 508. No more than 4,096 fit.
    pub channels_per_allocation: usize,
    /// Permissions per allocation; beyond it 508.
    pub permissions_per_allocation: usize,
    /// Channels and permissions per user, each; beyond it 508.
    pub grants_per_user: usize,
    /// Channels and permissions in all, each; beyond it 508.
    pub grants: usize,
    /// Datagrams relayed per second for one user, in each direction; none: as many as there are.
    /// Those beyond it are dropped.
    pub packets_per_second: Option<u64>,
    /// Bytes of data relayed per second for one user, in each direction; none: as many as there are.
    /// What is beyond it is dropped.
    pub bytes_per_second: Option<u64>,
    /// Replies to unauthenticated requests per second and address prefix (/24 or /48); beyond it the
    /// request is dropped.
    pub unauthenticated_replies: u32,
}

impl Limits {
    /// Whether users may relay only so much per second.
    pub fn has_rates(&self) -> bool {
        self.packets_per_second.is_some() || self.bytes_per_second.is_some()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 16_000,
            allocations_per_user: 32,
            channels_per_allocation: 4096,
            permissions_per_allocation: 4096,
            grants_per_user: 16_384,
            grants: 262_144,
            packets_per_second: None,
            bytes_per_second: None,
            unauthenticated_replies: 200,
        }
    }
}
