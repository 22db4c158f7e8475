//! One peer: an ICE agent and a WireGuard tunnel that live and die together.
//!
//! # The protocol in one paragraph
//!
//! The portal introduces client and gateway at the same moment; both learn the other's
//! WireGuard key, ICE credentials and candidates. Each end then sends ICE connectivity checks
//! (RFC 8445) over every pair of candidates: host, server-reflexive and relayed, IPv4 and IPv6.
//! The client controls. A pair whose check is answered is a *path*; the client picks the best
//! path, tells the gateway by sending on it, and the gateway answers where the newest
//! authenticated packet came from. WireGuard runs over the path and does not notice when the
//! path changes.
//!
//! # Faster than one step after the other
//!
//! The client does not wait for a valid pair before it starts the WireGuard handshake: copies of
//! one initiation travel next to the first checks, one for each pair. A response is authentic, so
//! it proves its path as well as a check would. The gateway answers the copy that arrives first;
//! the others are recognised byte by byte before any cryptography. The first packet so leaves one
//! round trip after the introduction if the first try gets through.
//!
//! # How to drive it
//!
//! One [`Node`] holds all connections of a process. It is a pure machine: after each `handle_*`
//! or command, drain [`Node::poll_transmit`], [`Node::poll_event`] and [`Node::poll_forwarding`],
//! then ask [`Node::poll_timeout`] for the next deadline. Time must not run backwards.
//!
//! Worker threads carry the packets of established flows; they learn sessions and paths from
//! [`Forwarding`] and report back through [`Node::note_worker_event`] and the sessions' shared
//! activity. Everything a worker does not understand comes to [`Node::handle_datagram`].
//!
//! # Deliberately absent
//!
//! - Sockets, interface discovery and clocks: addresses and time are arguments.
//! - ICE restarts with new credentials: an epoch has one pair of credentials, made by the portal;
//!   a roam replaces candidates and checks again under the same ones.
//! - ICE's own consent expiry: a peer is declared dead by failed probes, never by the agent.
//! - Packet queues: the caller buffers packets until [`Event::Connected`].
//!
//! The ICE library draws STUN transaction ids from a generator that is not cryptographic and not
//! seeded by us. They only match responses, which are authenticated by the password; nothing
//! in the course of events depends on their values.

#![forbid(unsafe_code)]

mod address;
mod api;
mod connection;
mod drop_reason;
mod event;
mod ice;
mod initiations;
mod node;
mod outputs;
mod paths;
mod relays;
mod reset;
mod transactions;

/// Every path carries inner packets of this many bytes.
pub const BASE_MTU: u16 = 1280;

pub use api::{Config, ConnectionId, Introduction, OpenError, Role, SendError, Statistics};
pub use drop_reason::{Counters, DropReason};
pub use event::{
    CloseReason, Event, Forwarding, Hint, Inbound, Path, PathInfo, PathKind, RelayTransport, StreamId,
    StreamTarget, Transmit, WorkerEvent,
};
pub use node::Node;
