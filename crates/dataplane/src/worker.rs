//! The worker: forwarding state and the work on each packet.

mod inbound;
mod other_family;
mod outbound;
mod route;

use std::ops::Range;
use std::time::{Duration, Instant};

use other_family::Translator;
pub use outbound::Datagrams;
use rand::{RngCore as _, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::allowance::Allowance;
use crate::fragments::Fragments;
use crate::hasher::SeededState;
use crate::peers::Peers;
use crate::table::FlowTable;
use crate::{Counters, DropReason, Event, Path, PeerId, Update};

/// How large a worker may grow, and its seed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Secret randomness for hashing; never used twice.
    pub seed: [u8; 32],
    /// Flows and cached refusals kept at most, 1 to 16,777,216. Memory grows with use, up to
    /// 256 bytes each.
    pub max_flows: usize,
}

/// What to do with a packet from the TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// Send the datagrams at the start of the buffer to the path's remote address.
    Send {
        /// Whom they are for.
        peer: PeerId,
        /// The way.
        path: Path,
        /// The datagrams, channel headers included.
        datagrams: Datagrams,
    },
    /// The packet is longer than what the path carries, and cannot be cut: its sender should be told.
    TooBig {
        /// The most bytes that a packet may have.
        mtu: u16,
    },
    /// No flow, or no session or path to send it: the control thread decides.
    Miss,
    /// Dropped and counted.
    Drop(DropReason),
}

/// What to do with a datagram from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// Write `datagram[range]` to the TUN device.
    Tun(Range<usize>),
    /// An authentic packet without a flow, or a peer-to-peer control message: the control
    /// thread decides. The packet is as the peer sent it.
    Miss {
        /// Who sent it.
        peer: PeerId,
        /// The decrypted packet, without padding.
        range: Range<usize>,
    },
    /// A keepalive; nothing to do.
    Keepalive,
    /// Not data of a known session: give the datagram, unchanged, to the control thread.
    NotMine,
    /// Dropped and counted.
    Drop(DropReason),
}

/// How much a worker holds at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Flows and cached refusals.
    pub flows: usize,
    /// Peers with a session or a path.
    pub peers: usize,
    /// Sessions, of all peers.
    pub sessions: usize,
}

/// Forwarding state of one worker thread and the work on each packet.
///
/// Inputs: [`apply`](Self::apply), [`outbound`](Self::outbound), [`inbound`](Self::inbound),
/// [`handle_timeout`](Self::handle_timeout). Outputs: what those return, and
/// [`poll_event`](Self::poll_event). `now` is the time of the batch and must not run backwards.
#[derive(Debug)]
pub struct Worker {
    start: Instant,
    table: FlowTable,
    fragments: Fragments,
    peers: Peers,
    counters: Counters,
    /// Of packets from the TUN device.
    misses: Allowance,
    translator: Translator,
}

impl Worker {
    /// A worker without peers and flows. Workers of one tunnel are made with the same `now`.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let Config { seed, max_flows } = config;
        let mut random = ChaCha20Rng::from_seed(seed);
        let state = SeededState::new(&mut random);
        Self {
            start: now,
            table: FlowTable::new(state.clone(), max_flows),
            fragments: Fragments::new(state.clone()),
            peers: Peers::new(state),
            counters: Counters::default(),
            misses: Allowance::of_device(),
            translator: Translator::new(random.next_u32() as u16),
        }
    }

    /// Applies one change.
    pub fn apply(&mut self, now: Instant, update: Update) {
        let millis = self.millis(now);
        match update {
            Update::SessionAdded { peer, session } => self.peers.add_session(peer, session),
            Update::SessionRemoved { receiver_index } => self.peers.remove_session(receiver_index),
            Update::SendSession { peer, session } => self.peers.set_send_session(peer, session),
            Update::PathChanged { peer, path } => self.peers.set_path(peer, path),
            Update::MtuChanged { peer, mtu } => self.peers.set_mtu(peer, mtu),
            Update::PeerRemoved { peer } => self.peers.remove(peer),
            Update::FlowInstalled { flow, usage } => {
                if let Err(reason) = self.table.install(millis, &flow, usage) {
                    self.counters.note_drop(reason);
                }
            }
            Update::Flushed { misses } => self.table.flush(misses),
            Update::FlowRefused { key, reason, until } => {
                let until = self.millis(until);
                self.table.refuse(millis, key, reason, until);
            }
            Update::GrantRevoked { grant } => self.table.revoke(grant),
            Update::GrantMoved { from, to } => self.table.rename_grant(millis, from, to),
            Update::FlowsForgotten { peer } => self.table.forget(peer),
            Update::FlowsMoved { from, to } => self.table.rename_peer(millis, from, to),
        }
    }

    /// Notes that the control thread has been given what was a miss just now. One that it could not take is none.
    pub fn note_miss(&mut self) {
        self.table.note_miss();
    }

    /// Ends flows whose time is over. Does a bounded amount of work; call it again when
    /// [`poll_timeout`](Self::poll_timeout) is still due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.table.expire(self.millis(now));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let at = self.start.checked_add(Duration::from_millis(self.table.next_deadline()?))?;
        Some((at, "dataplane flow expiry"))
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.peers.poll_event().or_else(|| self.table.poll_event())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.evictions = self.table.evictions;
        counters.events_lost = self.table.events_lost;
        counters
    }

    /// How much the worker holds.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let (peers, sessions) = self.peers.sizes();
        Sizes { flows: self.table.len(), peers, sessions }
    }

    /// The worker's clock: milliseconds since it was made.
    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}
