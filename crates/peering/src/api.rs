//! The types that callers of a [`Node`](crate::Node) fill in or get back.

use std::net::Ipv6Addr;

use adit_protocol::{Candidate, IceCredentials};
use adit_wireguard::{PresharedKey, PrivateKey, PublicKey};

/// Names a connection; never used twice by one [`Node`](crate::Node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    /// The number behind the name, for tables of other crates.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Which end of every connection this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Controls ICE, initiates WireGuard, decides the path.
    Client,
    /// Is controlled, responds, answers on the path that the client uses.
    Gateway,
}

/// What a [`Node`](crate::Node) needs to know.
#[derive(Debug)]
pub struct Config {
    /// Client or gateway.
    pub role: Role,
    /// Our WireGuard key.
    pub private_key: PrivateKey,
    /// Feeds every random choice; must be secret and used once.
    pub seed: [u8; 32],
    /// Gateways: the secret behind reset tokens; it must survive restarts. `None` sends no tickets.
    pub reset_secret: Option<[u8; 32]>,
}

/// What the portal says to introduce a peer.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The peer's WireGuard key.
    pub public_key: PublicKey,
    /// Mixed into every handshake.
    pub preshared_key: PresharedKey,
    /// Counts the connections of this pair of peers.
    pub epoch: u64,
    /// Our ICE credentials, made by the portal.
    pub local_ice: IceCredentials,
    /// The peer's ICE credentials, made by the portal.
    pub remote_ice: IceCredentials,
    /// The peer's candidates as far as the portal knows them.
    pub candidates: Vec<Candidate>,
    /// Our tunnel address: the source of peer control messages.
    pub local_tunnel_address: Ipv6Addr,
    /// The peer's tunnel address: the destination of peer control messages.
    pub remote_tunnel_address: Ipv6Addr,
}

/// Why a connection could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// 16,384 connections are open.
    #[error("too many connections")]
    TooManyConnections,
    /// Another open connection has the same ICE user name fragment.
    #[error("the ICE user name fragment is in use")]
    DuplicateCredentials,
    /// The peer's key is our own, or worthless (low order).
    #[error("the peer's key is our own or worthless")]
    UnusableKey,
}

/// Why a packet could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such connection.
    #[error("no such connection")]
    UnknownConnection,
    /// The connection has no session or no path yet.
    #[error("not connected yet")]
    NotConnected,
    /// The packet is longer than a datagram can be.
    #[error("packet too large")]
    TooLarge,
}

/// How much the node holds; all zero but the relays after the last connection closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Open connections.
    pub connections: usize,
    /// WireGuard sessions.
    pub sessions: usize,
    /// TURN channels wanted by connections.
    pub channels: usize,
    /// Connections' timers.
    pub timers: usize,
    /// Checks and probes waiting for a response.
    pub transactions: usize,
    /// Relays configured.
    pub relays: usize,
}
