//! What the server machine is told, and what it tells.

use crate::Family;
use std::net::SocketAddr;
use std::ops::Range;

/// A port lent to a client, on the relay's address of one family.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct RelayPort {
    /// Which of the relay's addresses.
    pub family: Family,
    /// The UDP port.
    pub number: u16,
}

/// Names a client's TCP or TLS connection; chosen by the caller, unique among those that are open.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct StreamId(pub u32);

/// How a client reaches the relay.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum Transport {
    /// Datagrams to the UDP listener of the family of the client's address.
    Udp,
    /// A connection over TCP or TLS.
    Stream(StreamId),
}

/// A client's transport address: with the listener or connection it uses, the 5-tuple that RFC 8656
/// (section 2) knows an allocation by.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Client {
    /// How it reaches the relay.
    pub transport: Transport,
    /// Its address as the relay sees it.
    pub address: SocketAddr,
}

impl Client {
    /// A client that sends datagrams.
    pub fn udp(address: SocketAddr) -> Self {
        Self { transport: Transport::Udp, address }
    }

    /// A client with a connection.
    pub fn stream(id: StreamId, address: SocketAddr) -> Self {
        Self { transport: Transport::Stream(id), address }
    }

    /// The caller's socket that leads to the client.
    pub fn socket(self) -> Socket {
        match self.transport {
            Transport::Udp => Socket::Listener(Family::of(self.address.ip())),
            Transport::Stream(id) => Socket::Stream(id),
        }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // IPv4 stays IPv4 where a kernel shows it inside IPv6.
        let address = SocketAddr::new(self.address.ip().to_canonical(), self.address.port());
        match self.transport {
            Transport::Udp => write!(formatter, "udp {address}"),
            Transport::Stream(_) => write!(formatter, "stream {address}"),
        }
    }
}

/// A channel of a UDP client whose packets need no decision, so that they may be forwarded in both
/// directions without the machine: channel and peer's permission are alive.
///
/// The machine forwards packets of a route as any others; whoever forwards by routes may lose one at
/// any time. What it forwards goes past the counters, so there are no routes where rates are limited.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct Route {
    /// Never used twice by one machine, so that a stale copy can be told from a new route.
    pub generation: u64,
    /// The client's address; it reaches the UDP listener of its family.
    pub client: SocketAddr,
    /// The channel number.
    pub channel: u16,
    /// The relayed port.
    pub port: RelayPort,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The peer is a relayed address of this relay. Its holder may get the data directly if it has a
    /// route back; otherwise the machine must decide.
    pub is_within_relay: bool,
}

/// One of the caller's sockets.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum Socket {
    /// The UDP listener of a family.
    Listener(Family),
    /// A client's connection.
    Stream(StreamId),
    /// The socket of a lent port.
    Relay(RelayPort),
}

/// Data to pass on: the bytes lie in the buffer that was handed in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// The socket to send from.
    pub source: Socket,
    /// Where the datagram goes; with a connection, its other end.
    pub destination: SocketAddr,
    /// The bytes in the caller's buffer: a datagram, or a whole message for a connection.
    pub range: Range<usize>,
}

/// Something to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Send a datagram, or a message on a connection.
    Send {
        /// The socket to send from.
        source: Socket,
        /// Where it goes; with a connection, its other end.
        destination: SocketAddr,
        /// The UDP payload, or the bytes for the connection.
        payload: Vec<u8>,
    },
    /// Open a socket on this port and report to [`Server::handle_port_bound`](super::Server::handle_port_bound); the client waits.
    BindPort {
        /// The port.
        port: RelayPort,
    },
    /// Close the socket of this port; it may not even have been reported as bound.
    ReleasePort {
        /// The port.
        port: RelayPort,
    },
    /// A route has come up; said before the client hears of its channel, and only if
    /// [`Config::announce_routes`] asks for it.
    AddRoute {
        /// The route.
        route: Route,
    },
    /// A route that was added is over.
    RemoveRoute {
        /// The route.
        route: Route,
    },
}

/// A fact for logs and metrics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A client has relayed addresses now.
    AllocationCreated {
        /// The client.
        client: Client,
        /// Its relayed ports.
        ports: Vec<RelayPort>,
    },
    /// An allocation is gone, with all its routes.
    AllocationEnded {
        /// The client.
        client: Client,
        /// Why.
        reason: EndReason,
    },
}

/// Why an allocation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum EndReason {
    /// The client said so.
    Released,
    /// It was not refreshed in time, or its credentials ended.
    Expired,
    /// The client's connection was closed.
    Disconnected,
    /// The secret under which it was made is no longer accepted.
    Revoked,
}
