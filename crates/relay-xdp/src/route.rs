//! Routes: channels that the program may forward, as the relay names them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

/// A bound channel whose peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Never given to another route, by whatever thread of the relay.
    pub name: u64,
    /// The client, who reaches the UDP listener of its family.
    pub client: SocketAddr,
    /// The channel's number, not zero.
    pub channel: u16,
    /// The relayed port, on the relay's address of the peer's family.
    pub port: u16,
    /// The peer.
    pub peer: SocketAddr,
    /// The peer is a relayed address of this relay: what the client sends goes straight to the holder of that
    /// address, if there is a route back, and else to the sockets.
    pub is_within_relay: bool,
}

/// The relay's addresses and ports, as the program must know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4 address that frames for the relay bear; behind a one-to-one NAT not the public one.
    pub local_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub local_v6: Option<Ipv6Addr>,
    /// Port of the UDP listeners.
    pub listener_port: u16,
    /// Ports to lend.
    pub ports: RangeInclusive<u16>,
}

/// Why a route stays with the relay's sockets whatever the state of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// Link-local, mapped, or no address of a single host.
    #[error("an address that only a socket can reach")]
    Address,
    /// The relay has no address of that family.
    #[error("the relay has no address of that family")]
    Family,
    /// The port is not one to lend.
    #[error("the port is not among those to lend")]
    Port,
}
