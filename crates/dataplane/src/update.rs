//! What the control thread tells a worker.

use std::sync::Arc;
use std::time::Instant;

use adit_wireguard::Session;

use crate::{DropReason, Flow, FlowKey, FlowUsage, GrantId, Path, PeerId};

/// A change of forwarding state. Apply them in the order in which they were made.
#[derive(Debug, Clone)]
pub enum Update {
    /// Datagrams with this session's receiver index are from `peer`.
    SessionAdded {
        /// Whose session.
        peer: PeerId,
        /// The session.
        session: Arc<Session>,
    },
    /// The session is over, for opening and for sealing.
    SessionRemoved {
        /// Our index of the session.
        receiver_index: u32,
    },
    /// Seal packets for `peer` with this session from now on.
    SendSession {
        /// Whose session.
        peer: PeerId,
        /// The session.
        session: Arc<Session>,
    },
    /// Send datagrams for `peer` this way from now on.
    PathChanged {
        /// Which peer.
        peer: PeerId,
        /// The way.
        path: Path,
    },
    /// Packets for `peer` may have up to this many bytes from now on; before, they may have 1,280.
    MtuChanged {
        /// Which peer.
        peer: PeerId,
        /// Length of the inner packet in bytes.
        mtu: u16,
    },
    /// Forget the peer with its sessions and its path. Packets of its flows are misses until these
    /// are forgotten too, or moved.
    PeerRemoved {
        /// Which peer.
        peer: PeerId,
    },
    /// Packets of this flow may pass. Replaces flows that share one of its keys.
    FlowInstalled {
        /// The flow.
        flow: Box<Flow>,
        /// Its use, by all workers.
        usage: Arc<FlowUsage>,
    },
    /// All packets that came with updates so far have been sent, and so many misses of this worker have been dealt with.
    ///
    /// A new flow's packets are misses until this comes: those that the control thread still has must not be
    /// overtaken.
    Flushed {
        /// Misses of this worker dealt with since it was made; the one field that differs between workers.
        misses: u64,
    },
    /// Drop packets with this key until `until`, without asking again.
    FlowRefused {
        /// Which packets.
        key: FlowKey,
        /// Why.
        reason: DropReason,
        /// When to ask again.
        until: Instant,
    },
    /// Flows that rest on this grant end now.
    GrantRevoked {
        /// Which grant.
        grant: GrantId,
    },
    /// Flows that rest on one grant rest on another now, which allows the same.
    GrantMoved {
        /// What they rested on.
        from: GrantId,
        /// What they rest on.
        to: GrantId,
    },
    /// All flows from and to a peer, refusals included, become misses.
    FlowsForgotten {
        /// Which peer.
        peer: PeerId,
    },
    /// All flows from and to a peer belong to another one now, which is the same machine under a new name.
    FlowsMoved {
        /// Whose they were.
        from: PeerId,
        /// Whose they are.
        to: PeerId,
    },
}

impl Update {
    /// A flow that nobody has used yet.
    #[must_use]
    pub fn install(flow: Flow) -> Self {
        Self::FlowInstalled { flow: Box::new(flow), usage: Arc::default() }
    }

    /// Whether a worker has something to do because of it, packets or not: something ends, and it should say so.
    #[must_use]
    pub const fn ends_something(&self) -> bool {
        matches!(
            self,
            Self::SessionRemoved { .. }
                | Self::PeerRemoved { .. }
                | Self::GrantRevoked { .. }
                | Self::FlowsForgotten { .. }
        )
    }
}
