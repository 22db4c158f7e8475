//! What a worker tells the control thread.

use crate::{FlowCounters, FlowKey, Path, PeerId};

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// No packet for as long as its protocol and state allow.
    Idle,
    /// The connection was closed or reset.
    Closed,
    /// The table was full and this flow had the least time left.
    Evicted,
    /// Its grant was revoked.
    Revoked,
    /// Its peer was removed, or its flows forgotten.
    PeerGone,
    /// A newer flow took one of its keys.
    Replaced,
}

/// Something that happened. Drain with [`Worker::poll_event`](crate::Worker::poll_event).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// First traffic of a peer after quiet: tell its WireGuard device with `note_activity`.
    PeerActive {
        /// Which peer.
        peer: PeerId,
    },
    /// An authentic datagram came another way than we send. Told once per way.
    Roamed {
        /// Which peer.
        peer: PeerId,
        /// The way it came, seen from here: answers would take it.
        path: Path,
    },
    /// A flow is gone; its next packet is a miss.
    FlowEnded {
        /// The key of its forward direction.
        key: FlowKey,
        /// Why.
        cause: EndCause,
        /// What it carried.
        counters: FlowCounters,
    },
}
