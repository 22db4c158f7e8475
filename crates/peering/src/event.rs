//! What goes in and out of a [`Node`](crate::Node) besides datagrams.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::peer::{GoodbyeReason, PeerMessage};
use adit_protocol::{Candidate, RelayTls};
use adit_wireguard::Session;
use serde::Serialize;

use crate::ConnectionId;

/// Names a byte stream to a relay; never used twice by one [`Node`](crate::Node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A byte stream to a relay that the caller is to keep open.
///
/// The caller makes one attempt, says how it went ([`Node::handle_stream_opened`](crate::Node::handle_stream_opened),
/// [`Node::handle_stream_closed`](crate::Node::handle_stream_closed)), and closes the stream when it is on the list no
/// more. The next attempt has another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamTarget {
    /// Its name.
    pub id: StreamId,
    /// Where to connect, over TCP: whichever address answers first.
    pub addresses: Vec<SocketAddr>,
    /// How to speak TLS; plain TCP if absent.
    pub tls: Option<RelayTls>,
}

/// Something to hand to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The local address to send from. Datagrams for a relay carry the unspecified address of
    /// the family: the kernel picks.
    pub source: SocketAddr,
    /// Where the datagram goes.
    pub destination: SocketAddr,
    /// The stream to write to instead, if it is no datagram.
    pub stream: Option<StreamId>,
    /// The UDP payload, or whole messages for the stream.
    pub payload: Vec<u8>,
}

/// A fact to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Our own candidates changed: tell the portal.
    LocalCandidates {
        /// Candidates that are new.
        added: Vec<Candidate>,
        /// Candidates that no longer work.
        removed: Vec<Candidate>,
    },
    /// Packets can be sent from now on.
    Connected {
        /// The connection.
        id: ConnectionId,
        /// The first path.
        path: PathInfo,
    },
    /// Packets travel another way from now on; sessions are kept.
    PathChanged {
        /// The connection.
        id: ConnectionId,
        /// The new path.
        path: PathInfo,
    },
    /// The connection is gone and nothing of it is left.
    Closed {
        /// The connection; its id is never used again.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// The peer said something that is not this crate's business.
    Control {
        /// The connection.
        id: ConnectionId,
        /// The message's id; an answer carries the same.
        message_id: u32,
        /// The message.
        message: PeerMessage,
    },
    /// No relay works: ask the portal for others.
    RelaysNeeded,
}

/// Why a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer said goodbye.
    Goodbye {
        /// Why it did.
        reason: GoodbyeReason,
        /// It asks not to be chosen again for this long.
        retry_after: Option<Duration>,
    },
    /// No candidate pair worked in time.
    IceFailed,
    /// A path worked, but the WireGuard handshake never completed.
    WireGuardExpired,
    /// The gateway proved that it does not know our session any more.
    Reset,
    /// The peer stopped answering: all probes failed.
    Liveness,
    /// A newer introduction of the same peer replaced the connection.
    Replaced,
    /// [`Node::close`](crate::Node::close) or [`Node::forget`](crate::Node::forget) was called.
    Local,
}

impl CloseReason {
    /// The stable name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Goodbye { .. } => "goodbye",
            Self::IceFailed => "ice_failed",
            Self::WireGuardExpired => "wireguard_expired",
            Self::Reset => "reset",
            Self::Liveness => "liveness",
            Self::Replaced => "replaced",
            Self::Local => "local",
        }
    }
}

/// What carries datagrams between us and a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayTransport {
    /// UDP.
    Udp,
    /// TCP, because no relay answers over UDP.
    Tcp,
    /// TLS, because no relay answers over UDP.
    Tls,
}

/// Whether a relay is on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Straight to the peer.
    Direct,
    /// Through at least one relay.
    Relayed {
        /// The relay's IP address: ours if we send through ours, else the peer's.
        relay: IpAddr,
        /// What carries datagrams to it from us. How the peer reaches its own is not known here.
        transport: RelayTransport,
    },
}

/// What people and logs want to know about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// Direct or relayed.
    pub kind: PathKind,
    /// Our end: a local address, or the relayed address that our relay lends us.
    pub local: SocketAddr,
    /// The peer's end as we see it.
    pub remote: SocketAddr,
    /// The smoothed round trip, once measured.
    pub rtt: Option<Duration>,
}

/// How a worker reaches a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The local address to send from; unspecified when a relay is used.
    pub local: SocketAddr,
    /// The peer, or the relay when `channel` is set.
    pub remote: SocketAddr,
    /// The TURN channel number, if our relay is used.
    pub channel: Option<u16>,
    /// The stream to our relay, if it is not reached over UDP.
    pub stream: Option<StreamId>,
}

/// What workers must know, in order.
#[derive(Clone, Debug)]
pub enum Forwarding {
    /// Datagrams of this session can be opened now.
    SessionAdded {
        /// The connection.
        id: ConnectionId,
        /// The session.
        session: Arc<Session>,
    },
    /// Datagrams with this receiver index can no longer be opened.
    SessionRemoved {
        /// Our index of the session.
        receiver_index: u32,
    },
    /// Seal with this session from now on.
    SendSession {
        /// The connection.
        id: ConnectionId,
        /// The session.
        session: Arc<Session>,
    },
    /// Send on this path from now on.
    PathChanged {
        /// The connection.
        id: ConnectionId,
        /// The path.
        path: Path,
    },
    /// Packets of up to this many bytes arrive on the path from now on. A session begins with
    /// [`BASE_MTU`](crate::BASE_MTU).
    MtuChanged {
        /// The connection.
        id: ConnectionId,
        /// Length of the inner packet in bytes, at least [`BASE_MTU`](crate::BASE_MTU).
        mtu: u16,
    },
    /// Forget the peer.
    PeerRemoved {
        /// The connection.
        id: ConnectionId,
    },
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It was for this crate alone.
    Consumed,
    /// It carried an IP packet of a peer.
    Packet {
        /// Who sent it.
        connection: ConnectionId,
        /// Where the decrypted packet lies in the datagram, padding included.
        range: Range<usize>,
    },
}

/// What a worker noticed about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    /// First traffic after quiet.
    Active,
    /// An authenticated packet came from another address than the path's.
    Roamed {
        /// The path by which to answer.
        path: Path,
    },
}

/// A reason to doubt that a peer is alive. It starts probes and closes nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The portal lost the peer's control session.
    ControlSessionLost,
    /// Something else made the caller doubt.
    Doubt,
}
