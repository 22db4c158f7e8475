//! The worker: forwarding state and the work on each packet.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use crate::{Counters, DropReason, Event, Path, PeerId, Update};

/// How large a worker may grow, and its seed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Secret randomness for hashing; never used twice.
    pub seed: [u8; 32],
    /// Flows and cached refusals kept at most, 1 to 16,777,216.
    pub max_flows: usize,
}

/// What to do with a packet from the TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// Send `buffer[range]` to the path's remote address.
    Send {
        /// Whom it is for.
        peer: PeerId,
        /// The way.
        path: Path,
        /// The datagram within the buffer, channel header included.
        range: Range<usize>,
    },
    /// No flow, or no session to send it in: the control thread decides. The packet is unchanged.
    Miss,
    /// Dropped and counted.
    Drop(DropReason),
}

/// What to do with a datagram from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// Write `datagram[range]` to the TUN device.
    Tun(Range<usize>),
    /// An authentic packet without a flow, or a peer-to-peer control message: the control thread decides.
    Miss {
        /// Who sent it.
        peer: PeerId,
        /// The decrypted packet.
        range: Range<usize>,
    },
    /// A keepalive; nothing to do.
    Keepalive,
    /// Not data of a known session: give the datagram, unchanged, to the control thread.
    NotMine,
    /// Dropped and counted.
    Drop(DropReason),
}

/// Forwarding state of one worker thread and the work on each packet.
#[derive(Debug)]
pub struct Worker {
    counters: Counters,
}

impl Worker {
    /// A worker without peers and flows.
    #[must_use]
    pub fn new(_now: Instant, _config: Config) -> Self {
        Self { counters: Counters::default() }
    }

    /// Applies one change.
    pub fn apply(&mut self, _now: Instant, _update: Update) {}

    /// Takes the packet at `buffer[HEADROOM..HEADROOM + packet_len]` from the TUN device.
    ///
    /// On [`Outbound::Send`] it has been rewritten and sealed in place.
    pub fn outbound(&mut self, _now: Instant, _buffer: &mut [u8], _packet_len: usize) -> Outbound {
        Outbound::Miss
    }

    /// Takes a datagram from the network, received at `local` from `from`.
    pub fn inbound(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _from: SocketAddr,
        _datagram: &mut [u8],
    ) -> Inbound {
        Inbound::NotMine
    }

    /// Ends flows whose time is over. Does a bounded amount of work; call it again when
    /// [`poll_timeout`](Self::poll_timeout) is still due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
