//! The machine that holds all connections of a process.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_protocol::peer::{GoodbyeReason, PeerMessage};
use adit_protocol::{Candidate, IceCredentials, RelayAccess};
use adit_wireguard::{PresharedKey, PrivateKey, PublicKey};

use crate::{Counters, DropReason, Event, Forwarding, Hint, Inbound, PathInfo, Transmit, WorkerEvent};

/// Names a connection; never used twice by one [`Node`].
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

/// What a [`Node`] needs to know.
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
    /// The peer's key is our own.
    #[error("the peer's key is our own")]
    OwnKey,
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

/// All connections of a client or gateway.
#[derive(Debug)]
pub struct Node {
    role: Role,
    public_key: PublicKey,
    counters: Counters,
}

#[expect(unused_variables, reason = "the bodies follow")]
impl Node {
    /// A node without connections, addresses or relays.
    ///
    /// `unix_now` is the time of day at `now`, for WireGuard's timestamps.
    pub fn new(now: Instant, unix_now: Duration, config: Config) -> Self {
        Self { role: config.role, public_key: config.private_key.public_key(), counters: Counters::default() }
    }

    /// Our WireGuard public key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Client or gateway.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Sets the whole list of local socket addresses, best first.
    ///
    /// A change is a roam: candidates are replaced, relays bound again and checks repeated;
    /// sessions and connections are kept.
    pub fn set_local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {}

    /// Sets the whole list of relays. Known ones keep their allocation and get new credentials.
    pub fn set_relays(&mut self, now: Instant, relays: &[RelayAccess]) {}

    /// Our candidates, to be registered with the portal.
    pub fn local_candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    /// Begins to connect to an introduced peer.
    ///
    /// An older connection with the same key is forgotten ([`crate::CloseReason::Replaced`]).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, now: Instant, introduction: Introduction) -> Result<ConnectionId, OpenError> {
        Err(OpenError::TooManyConnections)
    }

    /// Adds candidates of the peer; unknown connections are ignored.
    pub fn add_remote_candidates(&mut self, now: Instant, id: ConnectionId, candidates: &[Candidate]) {}

    /// Removes candidates of the peer; unknown connections are ignored.
    pub fn remove_remote_candidates(&mut self, now: Instant, id: ConnectionId, candidates: &[Candidate]) {}

    /// Says goodbye on every validated path and forgets the connection.
    pub fn close(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: GoodbyeReason,
        retry_after: Option<Duration>,
    ) {
    }

    /// Forgets the connection without a word.
    pub fn forget(&mut self, now: Instant, id: ConnectionId) {}

    /// Starts probes at once.
    pub fn hint(&mut self, now: Instant, id: ConnectionId, hint: Hint) {}

    /// Seals an IP packet and sends it on the selected path.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_packet(&mut self, now: Instant, id: ConnectionId, packet: &[u8]) -> Result<(), SendError> {
        Err(SendError::UnknownConnection)
    }

    /// Sends a peer control message with a new id, which is returned.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_control(
        &mut self,
        now: Instant,
        id: ConnectionId,
        message: &PeerMessage,
    ) -> Result<u32, SendError> {
        Err(SendError::UnknownConnection)
    }

    /// Sends a peer control message with a given id: an answer, or a repetition.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_control_with_id(
        &mut self,
        now: Instant,
        id: ConnectionId,
        message_id: u32,
        message: &PeerMessage,
    ) -> Result<(), SendError> {
        Err(SendError::UnknownConnection)
    }

    /// Takes a datagram that came in on `local` from `from`.
    ///
    /// # Errors
    /// The reason why it was dropped; it is counted.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        Err(DropReason::UnknownKind)
    }

    /// Takes a decrypted peer control packet that a worker handed over.
    ///
    /// # Errors
    /// The reason why it was dropped; it is counted.
    pub fn handle_control_packet(
        &mut self,
        now: Instant,
        id: ConnectionId,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        Err(DropReason::UnknownConnection)
    }

    /// Takes what a worker noticed; unknown connections are ignored.
    pub fn note_worker_event(&mut self, now: Instant, id: ConnectionId, event: WorkerEvent) {}

    /// The path in use, if connected.
    pub fn path(&self, id: ConnectionId) -> Option<PathInfo> {
        None
    }

    /// The epoch of an open connection.
    pub fn epoch(&self, id: ConnectionId) -> Option<u64> {
        None
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// The next fact for the workers.
    pub fn poll_forwarding(&mut self) -> Option<Forwarding> {
        None
    }

    /// What was dropped, and why.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much the node holds.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}
