//! The machine that holds all connections of a process.

mod drain;
mod inbound;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_protocol::peer::{GoodbyeReason, PeerMessage};
use adit_protocol::{Candidate, RelayAccess};
use adit_wireguard::{Device, PeerId, PublicKey};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::address::{LocalAddresses, normalized};
use crate::connection::{Connection, Context, Opening};
use crate::initiations::Initiations;
use crate::outputs::Outputs;
use crate::relays::Relays;
use crate::reset::ResetIssuer;
use crate::transactions::Transactions;

use crate::{
    CloseReason, Config, ConnectionId, Counters, Event, Forwarding, Hint, Introduction, OpenError, PathInfo,
    Role, SendError, Statistics, StreamId, StreamTarget, Transmit, WorkerEvent,
};

/// Connections that one node holds at most.
const MAX_CONNECTIONS: usize = 16_384;

/// A gateway listens to ICMP errors about relays at most this often: each is a look at every connection.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);

/// All connections of a client or gateway.
#[derive(Debug)]
pub struct Node {
    machines: Machines,
    random: ChaCha20Rng,
    initiations: Initiations,
    connections: BTreeMap<ConnectionId, Slot>,
    index: Index,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    next_id: u64,
    /// The candidates that the caller was last told.
    announced: Vec<Candidate>,
    /// When the network last said that somebody is unreachable, and we listened.
    unreachable_at: Option<Instant>,
}

/// What connections act on; apart from the connections, so that both can be borrowed at once.
#[derive(Debug)]
struct Machines {
    role: Role,
    locals: LocalAddresses,
    relays: Relays,
    device: Device,
    transactions: Transactions,
    resets: Option<ResetIssuer>,
    out: Outputs,
    counters: Counters,
}

impl Machines {
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
        let machines = Machines {
            role: config.role,
            locals: LocalAddresses::default(),
            relays,
            device,
            transactions: Transactions::default(),
            resets: config.reset_secret.map(|secret| ResetIssuer::new(now, &secret)),
            out: Outputs::default(),
            counters: Counters::default(),
        };
        Self {
            machines,
            random,
            initiations: Initiations::default(),
            connections: BTreeMap::new(),
            index: Index::default(),
            deadlines: BTreeSet::new(),
            next_id: 1,
            announced: Vec::new(),
            unreachable_at: None,
        }
    }

    /// Our WireGuard public key.
    pub fn public_key(&self) -> PublicKey {
        self.machines.device.public_key()
    }

    /// Client or gateway.
    pub fn role(&self) -> Role {
        self.machines.role
    }

    /// Sets the whole list of local socket addresses, best first.
    ///
    /// A change is a roam: candidates are replaced, relays bound again and checks repeated;
    /// sessions and connections are kept.
    pub fn set_local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
        let locals = LocalAddresses::new(addresses);
        if locals == self.machines.locals {
            return;
        }
        self.machines.locals = locals;
        self.machines.relays.rebind(now, &self.machines.locals);
        self.touch_all(now, |connection, context| connection.note_locals_changed(context, true));
        self.announce(now);
        self.drain(now);
    }

    /// The way out changed while the addresses did not: what was sent since may have gone nowhere.
    ///
    /// Everything that a roam would try is tried again; sessions and connections are kept.
    pub fn handle_route_change(&mut self, now: Instant) {
        if self.machines.locals.as_slice().is_empty() {
            return;
        }
        self.machines.relays.rebind(now, &self.machines.locals);
        self.touch_all(now, |connection, context| connection.note_locals_changed(context, true));
        self.drain(now);
    }

    /// Sets the whole list of relays. Known ones keep their allocation and get new credentials.
    pub fn set_relays(&mut self, now: Instant, relays: &[RelayAccess]) {
        self.machines.relays.set(now, relays, &self.machines.locals);
        self.drain(now);
    }

    /// Our candidates, to be registered with the portal.
    pub fn local_candidates(&self) -> Vec<Candidate> {
        self.machines.relays.candidates(&self.machines.locals)
    }

    /// The byte streams that the caller is to have, all of them, if they changed since the last call.
    ///
    /// To be asked after [`poll_transmit`](Self::poll_transmit) has nothing left: last words for a stream come before
    /// its end.
    pub fn poll_streams(&mut self) -> Option<Vec<StreamTarget>> {
        self.machines.relays.poll_streams()
    }

    /// A stream can be written to; old names are ignored.
    pub fn handle_stream_opened(&mut self, now: Instant, id: StreamId) {
        self.machines.relays.note_stream_opened(now, id);
        self.drain(now);
    }

    /// A stream could not be made, or is gone; old names are ignored.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.machines.relays.note_stream_closed(now, id);
        self.drain(now);
    }

    /// Streams are not taken away from connections that have no other path, as nobody waits for that.
    fn postpone_streams(&mut self, now: Instant) {
        let mut overdue = self.machines.relays.overdue_streams(now);
        if !overdue.is_empty() {
            let slots = self.connections.values();
            let in_use: BTreeSet<_> =
                slots.filter_map(|slot| slot.connection.relay_in_use(&self.machines.relays)).collect();
            overdue.retain(|key| in_use.contains(key));
            self.machines.relays.postpone(now, &overdue);
        }
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
            .machines
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

    /// Whether packets of applications travelled lately; false for a connection that is not there.
    pub fn is_active(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|slot| slot.connection.is_active())
    }

    /// Starts probes at once.
    pub fn hint(&mut self, now: Instant, id: ConnectionId, hint: Hint) {
        tracing::debug!(connection = id.0, ?hint, "doubt");
        self.touch(now, id, |connection, context| connection.doubt(context));
        self.drain(now);
    }

    /// The network says that datagrams to `remote` do not arrive (ICMP). Connections whose path ends there, or
    /// goes through the relay there, are probed; the word of a stranger closes nothing.
    ///
    /// A gateway listens only to what concerns relays: it has nothing to gain from haste, and thousands of
    /// connections to look at.
    pub fn handle_unreachable(&mut self, now: Instant, remote: SocketAddr) {
        let remote = normalized(remote);
        let is_relay = self.machines.relays.is_server(remote);
        let is_heard = self.unreachable_at.is_none_or(|at| now >= at + UNREACHABLE_PAUSE);
        if self.machines.role == Role::Gateway && !(is_relay && is_heard) {
            return;
        }
        self.unreachable_at = Some(now);
        self.touch_all(now, |connection, context| {
            if connection.leads_to(context.relays, remote) {
                connection.doubt_gently(context);
                connection.doubt_mtu(context);
            }
        });
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
        connection.path_info(&self.machines.relays).filter(|_| connection.is_connected())
    }

    /// The epoch of an open connection.
    pub fn epoch(&self, id: ConnectionId) -> Option<u64> {
        Some(self.connections.get(&id)?.connection.epoch())
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.postpone_streams(now);
        self.machines.relays.handle_timeout(now);
        self.machines.device.handle_timeout(now);
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
        let others = [self.machines.relays.poll_timeout(), self.machines.device.poll_timeout()];
        others.into_iter().chain([connection]).flatten().min_by_key(|(at, _)| *at)
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.machines.out.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.machines.out.events.pop_front()
    }

    /// The next fact for the workers.
    pub fn poll_forwarding(&mut self) -> Option<Forwarding> {
        self.machines.out.forwarding.pop_front()
    }

    /// What was dropped, and why.
    pub fn counters(&self) -> &Counters {
        &self.machines.counters
    }

    /// What the WireGuard machine counted.
    pub fn wireguard_counters(&self) -> adit_wireguard::Counters {
        self.machines.device.counters()
    }

    /// How much the node holds.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.connections.len(),
            sessions: self.index.by_session.len(),
            channels: self.machines.relays.channels(),
            timers: self.deadlines.len(),
            transactions: self.machines.transactions.len(),
            relays: self.machines.relays.len(),
        }
    }

    fn context(&mut self, now: Instant) -> Context<'_> {
        self.machines.context(now)
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
        let mut context = self.machines.context(now);
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
        tracing::info!(
            connection = id.0,
            epoch = connection.epoch(),
            reason = reason.name(),
            detail = ?reason,
            "connection closed"
        );
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
        self.machines.out.event(Event::Closed { id, reason });
        // The device's SessionRemoved events are drained before the peer itself is named.
        self.drain_device(now);
        self.machines.out.forwarding(Forwarding::PeerRemoved { id });
    }
}
