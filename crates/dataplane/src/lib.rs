//! Flow table, forwarding state and the per-packet work of a worker.
//!
//! A [`Worker`] moves packets between the TUN device and peers. It decides nothing: the
//! control thread authorizes a flow on its first packet and installs the decision as one
//! entry, keyed by where packets come from and their 5-tuple. From then on the worker looks
//! up, rewrites addresses and ports, seals or opens in place, and counts.
//!
//! ```text
//! TUN ─► outbound ─ parse ─ flow ─ rewrite ─ cut ─ seal ─ [channel header] ─► UDP
//! UDP ─► inbound  ─ [channel header] ─ session ─ open ─ parse ─ flow ─ rewrite ─► TUN
//! ```
//!
//! A flow whose ends speak different IP families leaves this way behind the lookup: its packets are translated first.
//!
//! What it cannot handle it gives away: a packet without a flow is a *miss*, a datagram that
//! is not data of a known session is *not mine*; both go to the control thread. Everything
//! else that does not pass is dropped with a [`DropReason`] and counted. A packet never
//! passes because something is unknown.
//!
//! # How to drive it
//!
//! Feed [`Update`]s in the order in which the control thread made them. Call
//! [`Worker::outbound`] and [`Worker::inbound`] (or [`Worker::inbound_message`], for what a relay sent over a byte
//! stream) with the time of the batch. Drain
//! [`Worker::poll_event`] after each batch and call [`Worker::handle_timeout`] at
//! [`Worker::poll_timeout`].
//!
//! Several workers serve one tunnel, each with the packets of its own TUN queue and UDP sockets, when all of them get
//! the same updates. A packet may come to any of them; what the two directions of a flow must know of each other is
//! shared ([`FlowUsage`]).
//!
//! # Deliberately absent
//!
//! - Policy, routing and NAT decisions: they arrive inside flows.
//! - Handshakes, STUN, goodbyes: not mine, or a miss.
//! - Byte streams: whole messages come in, and whoever sends pads them (RFC 8656, section 12.5).
//! - Reassembly: later fragments follow the flow of their first fragment, if that came first.
//! - Packets from one peer to another: everything comes from or goes to our TUN device.
//! - Reassignment of a flow while it lives: revoke and install again.

#![forbid(unsafe_code)]

mod allowance;
mod counters;
mod drop_reason;
mod event;
mod flow;
mod fragments;
mod hasher;
mod path;
mod peers;
mod table;
mod update;
mod usage;
mod worker;

pub use counters::Counters;
pub use drop_reason::DropReason;
pub use event::{EndCause, Event};
pub use flow::{Flow, FlowCounters, FlowKey, GrantId, NextHop, Origin, PeerId};
pub use path::{Path, StreamId};
pub use update::Update;
pub use usage::FlowUsage;
pub use worker::{Config, Datagrams, Inbound, Outbound, Sizes, Worker};

/// Bytes that a TURN channel header takes in front of a datagram.
pub const CHANNEL_HEADER: usize = 4;

/// Bytes around an inner packet in a datagram, without a channel header.
pub const OVERHEAD: usize = adit_wireguard::OVERHEAD;

/// Bytes that a packet of `length` bytes in `segments` segments takes at most once it is sealed.
#[must_use]
pub const fn room(length: usize, segments: usize) -> usize {
    length
        + segments
            * (LONGEST_HEADERS + CHANNEL_HEADER + adit_wireguard::OVERHEAD + adit_wireguard::PADDING - 1)
}

/// IP and TCP headers, which each segment repeats, at their longest.
const LONGEST_HEADERS: usize = 60 + 60;
