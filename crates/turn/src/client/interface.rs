//! What the client machine is told, and what it tells.

use crate::stun::ErrorCode;
use std::net::SocketAddr;
use std::ops::Range;
use thiserror::Error;

/// How a [`Client`](super::Client) talks to its relay. Peers are reached over UDP in any case.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// One connection, TCP or TLS, that delivers everything in order or breaks.
    Stream,
}

/// What a [`Client`](super::Client) needs to know.
#[derive(Clone, Eq, PartialEq)]
pub struct Config {
    /// How the relay is reached.
    pub transport: Transport,
    /// The relay's listener, IPv4. A client with a connection needs one address of either family, as a
    /// name for the other end.
    pub server_v4: Option<SocketAddr>,
    /// The relay's listener, IPv6.
    pub server_v6: Option<SocketAddr>,
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: String,
    /// Value of SOFTWARE in Allocate requests; empty for none.
    pub software: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("transport", &self.transport)
            .field("server_v4", &self.server_v4)
            .field("server_v6", &self.server_v6)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What became of a datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Handled {
    /// It has nothing to do with this relay; look at it elsewhere.
    NotMine,
    /// It was a control message, or garbage from the relay.
    Consumed,
    /// Application data that the relay forwarded.
    Data {
        /// Who sent it to our relayed address.
        peer: SocketAddr,
        /// Where it lies in the datagram.
        payload: Range<usize>,
    },
}

/// A fact to act on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The server sees us at this address, new or changed.
    MappedAddress {
        /// Our server-reflexive address.
        address: SocketAddr,
    },
    /// The relay lends us addresses.
    AllocationCreated {
        /// One per address family.
        relayed: Vec<SocketAddr>,
    },
    /// An allocation could not be made; the machine tries again later.
    AllocationFailed {
        /// Why.
        reason: FailureReason,
    },
    /// The allocation is gone, and with it every channel; the machine makes a new one.
    AllocationLost {
        /// Why.
        reason: FailureReason,
    },
    /// The relay answers nothing over the connection: it should be closed and another one made.
    Unresponsive,
    /// Data for the peer can go as ChannelData now.
    ChannelBound {
        /// The peer.
        peer: SocketAddr,
        /// Its channel number.
        number: u16,
    },
    /// The relay refused the channel; it is forgotten until asked for again.
    ChannelFailed {
        /// The peer.
        peer: SocketAddr,
    },
}

/// Why an allocation failed or was lost.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Error)]
pub enum FailureReason {
    /// The server did not answer.
    #[error("the relay did not answer")]
    Timeout,
    /// The server answered, but never with valid integrity.
    #[error("the relay's answers were not authentic")]
    WrongIntegrity,
    /// The server refused.
    #[error("the relay refused: {0}")]
    Rejected(ErrorCode),
    /// The answer lacked what it must have.
    #[error("the relay's answer was malformed")]
    Malformed,
    /// The server offered algorithms in a way that only a tampered message does
    /// (RFC 8489, section 9.2.5).
    #[error("somebody removed the password algorithms from the relay's answer")]
    BidDown,
    /// The NAT gave us another address, so the relay no longer knows us.
    #[error("the mapped address changed")]
    MappedAddressChanged,
    /// [`Client::rebind`](super::Client::rebind) was called.
    #[error("the local address changed")]
    Rebound,
    /// The connection to the relay was closed.
    #[error("the connection to the relay was closed")]
    Disconnected,
    /// The configuration names no server address.
    #[error("the relay has no address")]
    NoServer,
}

/// Things worth counting.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Datagrams from the server that were neither STUN nor ChannelData.
    pub garbage: u64,
    /// Responses without a matching request.
    pub unmatched_responses: u64,
    /// Responses ignored because integrity was wrong or missing.
    pub wrong_integrity: u64,
    /// Data for or from peers without channel and permission.
    pub unknown_peer: u64,
    /// Requests sent again.
    pub retransmissions: u64,
}
