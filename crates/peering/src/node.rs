//! The machine that holds all connections of a process.

mod drain;
mod inbound;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_protocol::peer::{GoodbyeReason, PeerMessage};
use adit_protocol::{Candidate, CandidateKind, IceCredentials, RelayAccess};
use adit_wireguard::{Device, PeerId, PresharedKey, PrivateKey, PublicKey};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::CloseReason;
use crate::address::LocalAddresses;
use crate::connection::{Connection, Context, Opening};
use crate::initiations::Initiations;
use crate::outputs::Outputs;
use crate::relays::Relays;
use crate::reset::ResetIssuer;
use crate::transactions::Transactions;

use crate::{Counters, Event, Forwarding, Hint, PathInfo, Transmit, WorkerEvent};

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

/// Connections that one node holds at most.
const MAX_CONNECTIONS: usize = 16_384;

/// All connections of a client or gateway.
#[derive(Debug)]
pub struct Node {
    role: Role,
    public_key: PublicKey,
    random: ChaCha20Rng,
    locals: LocalAddresses,
    relays: Relays,
    device: Device,
    transactions: Transactions,
    resets: Option<ResetIssuer>,
    initiations: Initiations,
    connections: BTreeMap<ConnectionId, Slot>,
    index: Index,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    next_id: u64,
    /// The candidates that the caller was last told.
    announced: Vec<Candidate>,
    out: Outputs,
    counters: Counters,
}

/// A connection and the deadline under which it is queued.
#[derive(Debug)]
struct Slot {
    connection: Connection,
    deadline: Option<(Instant, &'static str)>,
    /// The peer's index of the session that we send with.
    session_index: Option<u32>,
}

/// Ways to find a connection.
#[derive(Debug, Default)]
struct Index {
    /// By our ICE user name fragment.
    by_user: BTreeMap<String, ConnectionId>,
    by_peer: BTreeMap<PeerId, ConnectionId>,
    by_key: BTreeMap<PublicKey, ConnectionId>,
    /// By the peer's index of the session that we send with; for resets.
    by_session: BTreeMap<u32, ConnectionId>,
}

impl Node {
    /// A node without connections, addresses or relays.
    ///
    /// `unix_now` is the time of day at `now`, for WireGuard's timestamps.
    pub fn new(now: Instant, unix_now: Duration, config: Config) -> Self {
        let mut random = ChaCha20Rng::from_seed(config.seed);
        let mut seed = [0; 32];
        random.fill_bytes(&mut seed);
        let relays = Relays::new(ChaCha20Rng::from_rng(&mut random));
        let device = Device::new(now, unix_now, config.private_key, seed);
        Self {
            role: config.role,
            public_key: device.public_key(),
            random,
            locals: LocalAddresses::default(),
            relays,
            device,
            transactions: Transactions::default(),
            resets: config.reset_secret.map(|secret| ResetIssuer::new(now, &secret)),
            initiations: Initiations::default(),
            connections: BTreeMap::new(),
            index: Index::default(),
            deadlines: BTreeSet::new(),
            next_id: 1,
            announced: Vec::new(),
            out: Outputs::default(),
            counters: Counters::default(),
        }
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
    pub fn set_local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
        let locals = LocalAddresses::new(addresses);
        if locals == self.locals {
            return;
        }
        self.locals = locals;
        self.relays.rebind(now, &self.locals);
        self.touch_all(now, |connection, context| connection.note_locals_changed(context, true));
        self.announce(now);
        self.drain(now);
    }

    /// Sets the whole list of relays. Known ones keep their allocation and get new credentials.
    pub fn set_relays(&mut self, now: Instant, relays: &[RelayAccess]) {
        self.relays.set(now, relays, &self.locals);
        self.drain(now);
    }

    /// Our candidates, to be registered with the portal.
    pub fn local_candidates(&self) -> Vec<Candidate> {
        let host =
            |address: &SocketAddr| Candidate { kind: CandidateKind::Host, address: *address, base: None };
        let mut candidates: Vec<_> = self.locals.as_slice().iter().map(host).collect();
        for candidate in self.relays.candidates(&self.locals) {
            if !candidates.iter().any(|other| other.address == candidate.address) {
                candidates.push(candidate);
            }
        }
        candidates
    }

    /// Begins to connect to an introduced peer.
    ///
    /// An older connection with the same key is forgotten ([`crate::CloseReason::Replaced`]).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, now: Instant, introduction: Introduction) -> Result<ConnectionId, OpenError> {
        if let Some(id) = self.index.by_key.get(&introduction.public_key).copied() {
            self.remove(now, id, CloseReason::Replaced);
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err(OpenError::TooManyConnections);
        }
        if self.index.by_user.contains_key(&introduction.local_ice.ufrag) {
            return Err(OpenError::DuplicateCredentials);
        }
        let peer = self
            .device
            .add_peer(now, introduction.public_key, introduction.preshared_key.clone())
            .map_err(|_| OpenError::UnusableKey)?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let opening =
            Opening { id, peer, tie_breaker: self.random.next_u64(), first_message: self.random.next_u32() };
        let connection = Connection::open(&mut self.context(now), &opening, &introduction);
        self.index.by_user.insert(connection.user().to_owned(), id);
        self.index.by_peer.insert(peer, id);
        self.index.by_key.insert(introduction.public_key, id);
        self.connections.insert(id, Slot { connection, deadline: None, session_index: None });
        self.touch(now, id, |_, _| ());
        self.drain(now);
        Ok(id)
    }

    /// Adds candidates of the peer; unknown connections are ignored.
    pub fn add_remote_candidates(&mut self, now: Instant, id: ConnectionId, candidates: &[Candidate]) {
        self.touch(now, id, |connection, context| connection.add_remotes(context, candidates));
        self.drain(now);
    }

    /// Removes candidates of the peer; unknown connections are ignored.
    pub fn remove_remote_candidates(&mut self, now: Instant, id: ConnectionId, candidates: &[Candidate]) {
        self.touch(now, id, |connection, context| connection.remove_remotes(context, candidates));
        self.drain(now);
    }

    /// Says goodbye on every validated path and forgets the connection.
    pub fn close(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: GoodbyeReason,
        retry_after: Option<Duration>,
    ) {
        self.touch(now, id, |connection, context| connection.say_goodbye(context, reason, retry_after));
        self.forget(now, id);
    }

    /// Forgets the connection without a word.
    pub fn forget(&mut self, now: Instant, id: ConnectionId) {
        self.remove(now, id, CloseReason::Local);
        self.drain(now);
    }

    /// Starts probes at once.
    pub fn hint(&mut self, now: Instant, id: ConnectionId, hint: Hint) {
        tracing::debug!(connection = id.0, ?hint, "doubt");
        self.touch(now, id, |connection, context| connection.doubt(context));
        self.drain(now);
    }

    /// Seals an IP packet and sends it on the selected path.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_packet(&mut self, now: Instant, id: ConnectionId, packet: &[u8]) -> Result<(), SendError> {
        let sent = self.touch(now, id, |connection, context| connection.send_packet(context, packet));
        self.drain(now);
        sent.unwrap_or(Err(SendError::UnknownConnection))
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
        let sent = self.touch(now, id, |connection, context| connection.send_message(context, message));
        self.drain(now);
        sent.unwrap_or(Err(SendError::UnknownConnection))
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
        let sent = self.touch(now, id, |connection, context| {
            connection.send_message_with_id(context, message_id, message)
        });
        self.drain(now);
        sent.unwrap_or(Err(SendError::UnknownConnection))
    }

    /// Takes what a worker noticed; unknown connections are ignored.
    pub fn note_worker_event(&mut self, now: Instant, id: ConnectionId, event: WorkerEvent) {
        let roamed = match event {
            WorkerEvent::Active => None,
            WorkerEvent::Roamed { path } => self.pair_of(path),
        };
        self.touch(now, id, |connection, context| {
            context.device.note_activity(now, connection.peer());
            connection.note_activity(context);
            if let Some(pair) = roamed {
                connection.note_transport(context, pair);
            }
        });
        self.drain(now);
    }

    /// The path in use, if connected.
    pub fn path(&self, id: ConnectionId) -> Option<PathInfo> {
        let connection = &self.connections.get(&id)?.connection;
        connection.path_info(&self.relays).filter(|_| connection.is_connected())
    }

    /// The epoch of an open connection.
    pub fn epoch(&self, id: ConnectionId) -> Option<u64> {
        Some(self.connections.get(&id)?.connection.epoch())
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.relays.handle_timeout(now);
        self.device.handle_timeout(now);
        self.drain(now);
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.touch(now, id, Connection::handle_timeout);
            self.drain(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let connection = self.deadlines.first().and_then(|(_, id)| self.connections.get(id)?.deadline);
        let others = [self.relays.poll_timeout(), self.device.poll_timeout()];
        others.into_iter().chain([connection]).flatten().min_by_key(|(at, _)| *at)
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// The next fact for the workers.
    pub fn poll_forwarding(&mut self) -> Option<Forwarding> {
        self.out.forwarding.pop_front()
    }

    /// What was dropped, and why.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the WireGuard machine counted.
    pub fn wireguard_counters(&self) -> adit_wireguard::Counters {
        self.device.counters()
    }

    /// How much the node holds.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.connections.len(),
            sessions: self.index.by_session.len(),
            channels: self.relays.channels(),
            timers: self.deadlines.len(),
            transactions: self.transactions.len(),
            relays: self.relays.len(),
        }
    }

    fn context(&mut self, now: Instant) -> Context<'_> {
        Context {
            now,
            role: self.role,
            locals: &self.locals,
            relays: &mut self.relays,
            device: &mut self.device,
            transactions: &mut self.transactions,
            resets: self.resets.as_ref(),
            out: &mut self.out,
            counters: &mut self.counters,
        }
    }

    /// Does something with a connection, sends what follows from it, and removes the
    /// connection if that was its end.
    fn touch<R>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        action: impl FnOnce(&mut Connection, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let slot = self.connections.get_mut(&id)?;
        // Spelled out, as the borrow of the connection excludes a method of `self`.
        let mut context = Context {
            now,
            role: self.role,
            locals: &self.locals,
            relays: &mut self.relays,
            device: &mut self.device,
            transactions: &mut self.transactions,
            resets: self.resets.as_ref(),
            out: &mut self.out,
            counters: &mut self.counters,
        };
        let result = action(&mut slot.connection, &mut context);
        slot.connection.flush(&mut context);
        if let Some(reason) = slot.connection.closing() {
            self.remove(now, id, reason);
            return Some(result);
        }
        let deadline = slot.connection.poll_timeout();
        let before = std::mem::replace(&mut slot.deadline, deadline);
        if before != deadline {
            if let Some((at, _)) = before {
                self.deadlines.remove(&(at, id));
            }
            if let Some((at, _)) = deadline {
                self.deadlines.insert((at, id));
            }
        }
        Some(result)
    }

    /// For rare changes that concern every connection.
    fn touch_all(&mut self, now: Instant, action: impl Fn(&mut Connection, &mut Context<'_>)) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.touch(now, id, &action);
        }
    }

    /// Takes a connection out of every table.
    fn remove(&mut self, now: Instant, id: ConnectionId, reason: CloseReason) {
        let Some(slot) = self.connections.remove(&id) else { return };
        let Slot { connection, deadline, session_index } = slot;
        if let Some((at, _)) = deadline {
            self.deadlines.remove(&(at, id));
        }
        self.index.by_user.remove(connection.user());
        self.index.by_peer.remove(&connection.peer());
        self.index.by_key.remove(connection.public_key());
        if let Some(index) = session_index {
            self.index.by_session.remove(&index);
        }
        connection.leave(&mut self.context(now));
        self.out.event(Event::Closed { id, reason });
        // The device's SessionRemoved events are drained before the peer itself is named.
        self.drain_device(now);
        self.out.forwarding(Forwarding::PeerRemoved { id });
    }
}
