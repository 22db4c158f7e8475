//! The server machine: everything behind the relay's sockets.
//!
//! The caller owns the sockets: one listener per address family, and one socket per relayed port.
//! It feeds what they receive to [`Server::handle_client`] and [`Server::handle_peer`]. Data to
//! forward comes back as a [`Forward`] that points into the caller's buffer, so a relayed packet
//! costs no allocation; everything else comes out of [`Server::poll_command`]. Drain it after every
//! input.
//!
//! - **No state before a verified request.** The nonce is a MAC over client address and time, so a
//!   flood of unauthenticated requests leaves memory where it was, and the replies to it are limited
//!   per address prefix.
//! - **No open door.** Peers in special-purpose networks are refused unless allowed by
//!   configuration; the relay's own addresses can be reached only at live relayed ports.
//! - **Nothing takes longer with more clients.** A datagram costs one lookup and one cache line, a
//!   deadline a place on a timer wheel, and the next one is at hand.
//! - **Fair shares.** Quotas per user for allocations, channels, permissions, packets and bytes.
//! - **Same answer twice.** A retransmitted request is answered as the first one was.
//!
//! A [`Client`] is known by its transport address and by how it reaches the relay: over UDP to the one
//! listener of its family, or over a connection (TCP or TLS) that the caller names. That is the
//! 5-tuple of RFC 8656. Peers are always reached over UDP.
//!
//! Deliberately absent: reserved ports (508), USERHASH (420; the password follows from the name), SOFTWARE
//! and reason phrases (replies stay small), ICMP, and TCP to peers (RFC 6062, 442).

mod allocate;
mod allocations;
mod authentication;
mod budget;
mod channels;
mod config;
mod consistency;
mod counters;
mod endpoint;
mod forwarding;
mod index;
mod interface;
mod links;
mod nonce;
mod peer_policy;
mod permissions;
mod ports;
mod recent;
mod refresh;
mod requests;
mod response;
mod routes;
mod siblings;
mod tables;
mod users;
mod wheel;

use crate::Family;
use crate::channel_data;
use crate::stun::{Class, ErrorCode, Message, Method};
use allocations::AllocationKey;
use budget::ReplyBudget;
use endpoint::HashKey;
use nonce::Nonces;
use peer_policy::PeerPolicy;
use ports::Ports;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use recent::RecentAnswers;
use response::Reply;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use tables::Tables;
use users::UserId;

pub use config::{Config, Limits};
pub use counters::{Counters, DropReason};
pub use forwarding::{HEADROOM, TAILROOM};
pub use interface::{
    Client, Command, EndReason, Event, Forward, RelayPort, Route, Socket, StreamId, Transport,
};
pub use siblings::Siblings;

/// The named deadlines of the machine.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Timer {
    /// The caller has not bound the ports of a new allocation.
    Binding(AllocationKey),
    Allocation(AllocationKey, Family),
    Channel(u32),
    Permission(u32),
    User(UserId),
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Self::Binding(_) => "turn server: ports not bound",
            Self::Allocation(..) => "turn server: allocation expiry",
            Self::Channel(_) => "turn server: channel expiry",
            Self::Permission(_) => "turn server: permission expiry",
            Self::User(_) => "turn server: a user is forgotten",
        }
    }
}

/// A TURN server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// A moment on both clocks; Unix time is told, never read.
    clock: (Instant, Duration),
    random: ChaCha20Rng,
    nonces: Nonces,
    budget: ReplyBudget,
    peer_policy: PeerPolicy,
    ports: Ports,
    tables: Tables,
    recent: RecentAnswers,
    /// Number of the present secret; the one before it has the number before.
    secret: u32,
    draining: bool,
    channel_numbers: RangeInclusive<u16>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Server {
    /// A server without allocations. `unix_now` is the time since the Unix epoch, against which
    /// credentials expire; `seed` must be secret and used once.
    pub fn new(now: Instant, unix_now: Duration, config: Config, seed: [u8; 32]) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let mut secret = || (random.next_u64(), random.next_u64());
        let siblings = Siblings::default();
        Self {
            clock: (now, unix_now),
            nonces: Nonces::new(now, secret()),
            budget: ReplyBudget::new(now, config.limits.unauthenticated_replies, secret()),
            peer_policy: PeerPolicy::new(&config),
            ports: Ports::new(&config, siblings.clone()),
            recent: RecentAnswers::new(HashKey::new(secret())),
            tables: Tables::new(now, &config.limits, config.announce_routes, siblings, || {
                HashKey::new(secret())
            }),
            secret: 1,
            draining: false,
            channel_numbers: channel_data::NUMBERS,
            events: VecDeque::new(),
            counters: Counters::default(),
            random,
            config,
        }
    }

    /// Makes this machine one of several of a relay, to be called before anything happens: the bounds of
    /// allocations then hold for all of them together, and a port that one has lent is a peer for all. Ports
    /// must not overlap.
    pub fn join(&mut self, siblings: Siblings) {
        self.ports = Ports::new(&self.config, siblings.clone());
        self.tables.siblings = siblings;
    }

    /// Corrects the time of day, for instance by the portal's clock, which stamps the credentials.
    pub fn set_unix_time(&mut self, now: Instant, unix_now: Duration) {
        self.clock = (now, unix_now);
    }

    /// Replaces the secret; credentials under the old one stay good until the next replacement.
    ///
    /// Allocations whose latest request was signed under the secret before the old one end, because
    /// nobody could refresh them any more.
    pub fn rotate_secret(&mut self, now: Instant, secret: Vec<u8>) {
        let previous = std::mem::replace(&mut self.config.secret, secret);
        self.config.previous_secret = Some(previous);
        self.secret += 1;
        let oldest = self.secret - 1;
        let revoked = self.tables.allocations.iter().filter(|(_, allocation)| allocation.secret < oldest);
        let revoked: Vec<AllocationKey> = revoked.map(|(key, _)| key).collect();
        for key in revoked {
            self.end_allocation(now, key, EndReason::Revoked);
        }
    }

    /// Processes a datagram that a listener received from `client`, or a message that
    /// [`framing`](crate::framing) cut from its connection.
    ///
    /// Returns the data to forward if it carried any; `range` then lies in `datagram`.
    pub fn handle_client(&mut self, now: Instant, client: Client, datagram: &[u8]) -> Option<Forward> {
        // RFC 8656, section 12, and RFC 7983: the first byte tells ChannelData from STUN. A number out of
        // bounds is never bound, so it needs no check of its own here.
        let outcome = if datagram.first().is_some_and(|first| matches!(first, 0x40..=0x7f)) {
            self.forward_channel_data(now, client, datagram)
        } else {
            match Message::parse(datagram) {
                Ok(message) => return self.handle_message(now, client, &message),
                Err(_) => Err(DropReason::Garbage),
            }
        };
        self.count_drop(outcome)
    }

    fn handle_message(&mut self, now: Instant, client: Client, message: &Message<'_>) -> Option<Forward> {
        let outcome = match (message.class(), message.method()) {
            (Class::Request, _) => match self.handle_request(now, client, message) {
                Ok(()) => return None,
                Err(reason) => Err(reason),
            },
            // RFC 8489, section 6.3.2: what is not understood is discarded.
            (Class::Indication, _) if self.unknown_attributes(message).next().is_some() => {
                Err(DropReason::Unexpected)
            }
            (Class::Indication, Method::SEND) => self.forward_send(now, client, message),
            // It only keeps a NAT mapping alive.
            (Class::Indication, Method::BINDING) => return None,
            _ => Err(DropReason::Unexpected),
        };
        self.count_drop(outcome)
    }

    /// Reports that a client's connection is closed: nothing can be delivered to it any more, so its
    /// allocation ends. Its [`StreamId`] may be used again.
    pub fn handle_client_gone(&mut self, now: Instant, client: Client) {
        if let Some(key) = self.tables.allocations.find(client.into()) {
            self.end_allocation(now, key, EndReason::Disconnected);
        }
    }

    /// Reports how [`Command::BindPort`] went; after a failure another port is tried.
    pub fn handle_port_bound(&mut self, now: Instant, port: RelayPort, bound: bool) {
        self.finish_port(now, port, bound);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.tables.timers.pop_due(now) {
            match timer {
                Timer::Binding(key) => self.give_up_binding(now, key),
                Timer::Allocation(key, family) => self.expire_half(now, key, family),
                Timer::Channel(index) => self.tables.expire_channel(index),
                Timer::Permission(index) => self.tables.expire_permission(index),
                Timer::User(id) => self.tables.expire_user(id),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.tables.timers.next().map(|(at, timer)| (at, timer.reason()))
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.tables.commands.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Lets clients bind any channel number of RFC 5766, of which RFC 8656 keeps only a part.
    pub fn accept_old_channel_numbers(&mut self) {
        self.channel_numbers = channel_data::OLD_NUMBERS;
    }

    /// Refuses new allocations from now on (508); existing ones are served as before.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        self.tables.allocations.len()
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.tables.channels.len()
    }

    /// How many permissions there are.
    pub fn permissions(&self) -> usize {
        self.tables.permissions.granted
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The time since the Unix epoch.
    fn unix_time(&self, now: Instant) -> Duration {
        let (then, unix) = self.clock;
        unix + now.saturating_duration_since(then)
    }

    fn count_drop<T>(&mut self, outcome: Result<T, DropReason>) -> Option<T> {
        outcome.map_err(|reason| self.counters.dropped[reason as usize] += 1).ok()
    }

    /// Sends a response the way the request came (RFC 8489, section 6.3.1.2), and counts it.
    fn respond(&mut self, client: Client, reply: Reply) {
        let code = reply.error.map_or(0, |ErrorCode(code)| code);
        // Every method that is answered fits into the type's last four bits (RFC 8489, section 5).
        let method = Method(reply.datagram.get(1).map_or(0, |low| u16::from(low & 0x0f)));
        *self.counters.responses.entry((method, code)).or_default() += 1;
        self.tables.commands.push_back(Command::Send {
            source: client.socket(),
            destination: client.address,
            payload: reply.datagram,
        });
    }

    /// Removes an allocation with everything that hangs from it, and gives back its ports.
    fn end_allocation(&mut self, now: Instant, key: AllocationKey, reason: EndReason) {
        for family in [Family::V4, Family::V6] {
            self.release_half(key, family);
        }
        let Some(allocation) = self.tables.remove(now, key) else { return };
        let client = allocation.client.into();
        match allocation.pending {
            None => self.events.push_back(Event::AllocationEnded { client, reason }),
            Some(pending) => {
                if let Some(timer) = pending.timer {
                    self.tables.timers.clear(timer);
                }
                for port in pending.into_waiting() {
                    self.release_port(port);
                }
            }
        }
    }

    /// One family's time is over, and with the last one the allocation's.
    fn expire_half(&mut self, now: Instant, key: AllocationKey, family: Family) {
        let Some(allocation) = self.tables.allocations.get_mut(key) else { return };
        if let Some(half) = &mut allocation.halves[family as usize] {
            half.timer = None;
        }
        if allocation.ports().count() > 1 {
            self.release_half(key, family);
        } else {
            self.end_allocation(now, key, EndReason::Expired);
        }
    }

    /// Gives back one family's port, if there is one.
    fn release_half(&mut self, key: AllocationKey, family: Family) {
        if let Some(port) = self.tables.end_half(key, family) {
            self.release_port(port);
        }
    }

    fn release_port(&mut self, port: RelayPort) {
        self.ports.release(port);
        self.tables.commands.push_back(Command::ReleasePort { port });
    }
}
