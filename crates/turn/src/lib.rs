//! STUN and TURN: codec, client machine and server machine.
//!
//! A relay lends a peer an address that the other side can reach. The client *allocates* a relayed
//! address on the relay, grants *permissions* to peers, and *binds channels* so that a datagram
//! through the relay costs four bytes of header instead of a whole STUN message.
//!
//! ```text
//! client ── ChannelData / Send ──► listener │ relay │ relayed address ── plain UDP ──► peer
//! client ◄─ ChannelData / Data ─── listener │       │ relayed address ◄─ plain UDP ─── peer
//! ```
//!
//! - [`stun`]: messages of RFC 8489, read without copying, with both integrity algorithms.
//! - [`channel_data`]: the framing of RFC 8656, section 12.
//! - [`framing`]: both of them in a byte stream.
//! - [`client`]: keeps one allocation and its channels alive.
//! - [`server`]: everything behind the relay's sockets.
//!
//! All of it is pure: time, randomness and datagrams are arguments. Callers drain all `poll_*`
//! outputs after every input.
//!
//! Deliberately absent: TCP allocations (RFC 6062), reserved ports, mobility (RFC 8016), third-party authorization (RFC 7635), and string preparation
//! of user names and passwords (ours are ASCII, made by the portal).

#![forbid(unsafe_code)]

pub mod channel_data;
pub mod client;
pub mod credentials;
mod deadlines;
pub mod framing;
pub mod server;
pub mod stun;

use std::net::{IpAddr, SocketAddr};

/// A datagram to hand to the network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// Where the datagram goes.
    pub destination: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// An IP address family, as numbered in REQUESTED-ADDRESS-FAMILY (RFC 8656, section 18.6).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The number that stands for the family in STUN attributes.
    pub fn code(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The family with this number, if it is one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }
}
