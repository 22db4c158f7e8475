//! The device: one local key, all peers, all handshakes and timers.

mod receive;
mod schedule;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use thiserror::Error;

use crate::agreement::{Agreement, KeyPair};
use crate::cookie::CookieIssuer;
use crate::hasher::{SeededMap, SeededState};
use crate::load::{LoadEstimator, SourceLimiter};
use crate::message::Message;
use crate::noise::PeerKeys;
pub use crate::peer::PeerId;
use crate::peer::{Peer, Slot};
use crate::tai64n::{RetiredTimestamps, TimestampSource};
use crate::timer::TimerQueue;
use crate::{
    Activity, Attention, Counters, DropReason, PresharedKey, PrivateKey, PublicKey, SealError, Session,
};

/// A datagram for a peer; the caller picks the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Whom it is for.
    pub peer: PeerId,
    /// The bytes to send.
    pub datagram: Vec<u8>,
}

/// What a datagram was.
#[derive(Debug)]
pub enum Received {
    /// A handshake message or a cookie reply, dealt with.
    Handshake {
        /// The peer, when the message was authentic.
        peer: Option<PeerId>,
        /// A message to send back to where the datagram came from.
        reply: Option<Vec<u8>>,
    },
    /// An authentic data datagram that was not seen before.
    Data {
        /// Who sent it.
        peer: PeerId,
        /// The session it came in.
        session: Arc<Session>,
        /// Where the plaintext lies in the datagram, padding included; empty for a keepalive.
        plaintext: Range<usize>,
    },
}

/// Why a peer cannot be reached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryReason {
    /// Nobody answered our initiations for 20 s.
    HandshakeUnanswered,
    /// The last session ended at 180 s and nothing had asked for another.
    Idle,
}

/// What happened, in order. Drain with [`Device::poll_event`].
#[derive(Debug, Clone)]
pub enum Event {
    /// A session may be used by workers, to open and (if it is also the newest) to seal.
    ///
    /// As responder this comes when the peer has first used the session, not before.
    SessionEstablished {
        /// Whose session.
        peer: PeerId,
        /// The session.
        session: Arc<Session>,
        /// Whether we sent the initiation.
        initiator: bool,
    },
    /// Seal with this session from now on; the one before only opens.
    SendSessionChanged {
        /// Whose session.
        peer: PeerId,
        /// The session that seals.
        session: Arc<Session>,
    },
    /// A session ended. If it was the sending one, the peer has none until the next event.
    SessionRemoved {
        /// Whose session.
        peer: PeerId,
        /// Our index of the session.
        receiver_index: u32,
    },
    /// The peer cannot be reached; it stays known until [`Device::remove_peer`].
    PeerExpired {
        /// Which peer.
        peer: PeerId,
        /// Why.
        reason: ExpiryReason,
    },
}

/// Why a peer was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddPeerError {
    /// A peer with this public key exists.
    #[error("a peer with this public key exists")]
    DuplicateKey,
    /// The public key is our own.
    #[error("the public key is our own")]
    OwnKey,
    /// The public key has low order and would make the handshake worthless.
    #[error("the public key has low order")]
    LowOrderKey,
}

/// All peers of one local key.
///
/// Inputs: [`handle_datagram`](Self::handle_datagram), [`handle_timeout`](Self::handle_timeout),
/// [`initiate`](Self::initiate), [`note_activity`](Self::note_activity), peers added and removed.
/// After each, drain [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event).
pub struct Device {
    local: KeyPair,
    epoch: Instant,
    random: ChaCha20Rng,
    agreement: Agreement,
    timestamps: TimestampSource,
    retired_timestamps: RetiredTimestamps,
    issuer: CookieIssuer,
    load: LoadEstimator,
    sources: SourceLimiter,
    peers: SeededMap<PeerId, Peer>,
    by_key: SeededMap<PublicKey, PeerId>,
    /// Pending initiations and sessions by our random index.
    by_index: SeededMap<u32, PeerId>,
    next_peer: u64,
    timers: TimerQueue,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Device {
    /// Makes a device without peers.
    ///
    /// `unix_now` is the time of day that belongs to `now`; the timestamps of initiations are
    /// made from both, so that later changes of the wall clock do not matter. `seed` must be
    /// secret and never used twice.
    #[must_use]
    pub fn new(now: Instant, unix_now: Duration, private_key: PrivateKey, seed: [u8; 32]) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let local = KeyPair::from_private(&private_key);
        let state = SeededState::new(&mut random);
        Self {
            issuer: CookieIssuer::new(now, local.public(), &mut random),
            sources: SourceLimiter::new(now, &mut random),
            retired_timestamps: RetiredTimestamps::new(&mut random),
            local,
            epoch: now,
            random,
            agreement: Agreement::default(),
            timestamps: TimestampSource::new(now, unix_now),
            load: LoadEstimator::new(now),
            peers: SeededMap::with_hasher(state.clone()),
            by_key: SeededMap::with_hasher(state.clone()),
            by_index: SeededMap::with_hasher(state),
            next_peer: 1,
            timers: TimerQueue::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Our public key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        *self.local.public()
    }

    /// Makes a peer known (one X25519 operation). Nothing is sent.
    ///
    /// # Errors
    /// The key is known already, is our own, or has low order.
    pub fn add_peer(
        &mut self,
        _now: Instant,
        public_key: PublicKey,
        preshared_key: PresharedKey,
    ) -> Result<PeerId, AddPeerError> {
        if public_key == *self.local.public() {
            return Err(AddPeerError::OwnKey);
        }
        if self.by_key.contains_key(&public_key) {
            return Err(AddPeerError::DuplicateKey);
        }
        let secret = self.agreement.agree(&self.local, &public_key).map_err(|_| AddPeerError::LowOrderKey)?;
        let keys = PeerKeys { public: public_key, preshared: preshared_key, static_secret: secret };
        let id = PeerId::from_raw(self.next_peer);
        self.next_peer += 1;
        let newest_timestamp = self.retired_timestamps.get(&public_key);
        self.peers.insert(id, Peer::new(keys, Activity::new(self.epoch), newest_timestamp));
        self.by_key.insert(public_key, id);
        Ok(id)
    }

    /// Forgets a peer with its sessions, timers and queued datagrams.
    pub fn remove_peer(&mut self, id: PeerId) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        self.by_key.remove(&peer.keys.public);
        if let Some(index) = peer.pending_index() {
            self.by_index.remove(&index);
        }
        if let Some(timestamp) = peer.newest_timestamp {
            self.retired_timestamps.keep(peer.keys.public, timestamp);
        }
        self.timers.clear(&mut peer.deadlines, id);
        self.transmits.retain(|transmit| transmit.peer != id);
        self.drop_sessions(id, peer.sessions.take_all());
    }

    /// The peer with a public key.
    #[must_use]
    pub fn peer_by_key(&self, public_key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// Tells the round-trip time of the path in use, from which handshake retries are timed.
    pub fn set_round_trip(&mut self, peer: PeerId, round_trip: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.round_trip = Some(round_trip);
        }
    }

    /// The session that seals for a peer.
    #[must_use]
    pub fn current_session(&self, peer: PeerId) -> Option<&Arc<Session>> {
        Some(&self.peers.get(&peer)?.sessions.current.as_ref()?.session)
    }

    /// Whether a handshake that we started is under way.
    #[must_use]
    pub fn is_handshaking(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.attempt.is_some())
    }

    /// What a peer's sessions carried.
    #[must_use]
    pub fn activity(&self, peer: PeerId) -> Option<&Activity> {
        self.peers.get(&peer).map(|peer| &*peer.activity)
    }

    /// Seals with the current session and accounts for it: [`Session::seal_in_place`] for
    /// callers on the device's own thread.
    ///
    /// # Errors
    /// `NoSession` when the peer is unknown or has no live session; else see [`SealError`].
    pub fn seal(
        &mut self,
        now: Instant,
        peer: PeerId,
        buffer: &mut [u8],
        plaintext_len: usize,
    ) -> Result<usize, SealError> {
        let session = self.current_session(peer).filter(|session| !session.is_expired(now));
        let session = session.ok_or(SealError::NoSession)?;
        let length = session.seal_in_place(buffer, plaintext_len)?;
        if session.activity().record_sent(now, 1, plaintext_len as u64) == Attention::Wanted {
            self.note_activity(now, peer);
        }
        Ok(length)
    }

    /// Takes one datagram that may be WireGuard, from `source`.
    ///
    /// # Errors
    /// Why it was dropped; it is counted too.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<Received, DropReason> {
        let result = match Message::classify(datagram) {
            Ok(Message::Initiation(message)) => self.receive_initiation(now, source, message),
            Ok(Message::Response(message)) => self.receive_response(now, source, message),
            Ok(Message::CookieReply(message)) => self.receive_cookie(now, message),
            Ok(Message::Data(message)) => self.receive_data(now, message),
            Err(reason) => Err(reason),
        };
        result.inspect_err(|reason| self.counters.note_drop(*reason))
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, _, timer)| (at, timer.name()))
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.key_agreements = self.agreement.operations;
        counters
    }

    /// An index that names nothing yet.
    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.random.next_u32();
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// Forgets sessions that left their slots.
    fn drop_sessions(&mut self, peer: PeerId, slots: Vec<Slot>) {
        for Slot { session, announced } in slots {
            let receiver_index = session.receiver_index();
            self.by_index.remove(&receiver_index);
            if announced {
                self.events.push_back(Event::SessionRemoved { peer, receiver_index });
            }
        }
    }

    /// Tells the workers of a session.
    fn announce(&mut self, peer: PeerId, session: &Arc<Session>) {
        let initiator = session.is_initiator();
        self.events.push_back(Event::SessionEstablished { peer, session: session.clone(), initiator });
    }
}

/// Prints sizes only: the fields hold secrets.
impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Device")
            .field("public_key", self.local.public())
            .field("peers", &self.peers.len())
            .field("indices", &self.by_index.len())
            .finish_non_exhaustive()
    }
}
