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
//! - **Next deadline at hand**, however many allocations there are.
//! - **Same answer twice.** A retransmitted request is answered as the first one was.
//!
//! A [`Client`] is known by its transport address and by how it reaches the relay: over UDP to the one
//! listener of its family, or over a connection (TCP or TLS) that the caller names. That is the
//! 5-tuple of RFC 8656. Peers are always reached over UDP.
//!
//! Deliberately absent: reserved ports (508), DONT-FRAGMENT and USERHASH (420), ICMP, and TCP to peers
//! (RFC 6062, 442).

mod allocate;
mod allocations;
mod authentication;
mod budget;
mod forwarding;
mod hashing;
mod interface;
mod nonce;
mod peer_policy;
mod ports;
mod recent;
mod requests;
mod response;
mod routes;

use crate::deadlines::Deadlines;
use crate::stun::{Class, ErrorCode, Message, Method};
use crate::{Family, channel_data};
use allocate::Pending;
use allocations::{AllocationKey, Allocations};
use budget::ReplyBudget;
use nonce::Nonces;
use peer_policy::PeerPolicy;
use ports::Ports;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use recent::RecentAnswers;
use response::Reply;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

pub use forwarding::{HEADROOM, TAILROOM};
pub use interface::{
    Client, Command, Config, Counters, DropReason, EndReason, Event, Forward, Limits, RelayPort, Route,
    Socket, StreamId, Transport,
};

/// The named deadlines of the machine.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
enum Timer {
    Allocation(AllocationKey),
    Channel(AllocationKey, u16),
    Permission(AllocationKey, IpAddr),
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Self::Allocation(_) => "turn server: allocation expiry",
            Self::Channel(..) => "turn server: channel expiry",
            Self::Permission(..) => "turn server: permission expiry",
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
    allocations: Allocations,
    /// Allocations that wait for their ports.
    pending: BTreeMap<AllocationKey, Pending>,
    recent: RecentAnswers,
    timers: Deadlines<Timer>,
    draining: bool,
    /// Generation of the next route.
    next_route: u64,
    channel_numbers: RangeInclusive<u16>,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Server {
    /// A server without allocations. `unix_now` is the time since the Unix epoch, against which
    /// credentials expire; `seed` must be secret and used once.
    pub fn new(now: Instant, unix_now: Duration, config: Config, seed: [u8; 32]) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let secret = |random: &mut ChaCha20Rng| (random.next_u64(), random.next_u64());
        Self {
            clock: (now, unix_now),
            nonces: Nonces::new(now, secret(&mut random)),
            budget: ReplyBudget::new(now, config.limits.unauthenticated_replies, secret(&mut random)),
            peer_policy: PeerPolicy::new(&config),
            ports: Ports::new(&config),
            allocations: Allocations::new(secret(&mut random)),
            pending: BTreeMap::new(),
            recent: RecentAnswers::default(),
            timers: Deadlines::new(),
            draining: false,
            next_route: 0,
            channel_numbers: channel_data::NUMBERS,
            commands: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            random,
            config,
        }
    }

    /// Corrects the time of day, for instance by the portal's clock, which stamps the credentials.
    pub fn set_unix_time(&mut self, now: Instant, unix_now: Duration) {
        self.clock = (now, unix_now);
    }

    /// Replaces the secret; credentials under the old one stay good until the next replacement.
    pub fn rotate_secret(&mut self, secret: Vec<u8>) {
        let previous = std::mem::replace(&mut self.config.secret, secret);
        self.config.previous_secret = Some(previous);
    }

    /// Processes a datagram that a listener received from `client`, or a message that
    /// [`framing`](crate::framing) cut from its connection.
    ///
    /// Returns the data to forward if it carried any; `range` then lies in `datagram`.
    pub fn handle_client(&mut self, now: Instant, client: Client, datagram: &[u8]) -> Option<Forward> {
        // A number out of bounds is never bound, so it needs no check of its own here.
        if datagram.first().is_some_and(|first| matches!(first, 0x40..=0x7f)) {
            return self.forward_channel_data(client, datagram);
        }
        let Ok(message) = Message::parse(datagram) else {
            return self.drop(DropReason::Garbage);
        };
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => self.forward_send(client, &message),
            // A Binding indication only keeps a NAT mapping alive.
            (Class::Indication, Method::BINDING) => None,
            (Class::Request, _) => {
                self.handle_request(now, client, &message);
                None
            }
            _ => self.drop(DropReason::Unexpected),
        }
    }

    /// Reports that a client's connection is closed: nothing can be delivered to it any more, so its
    /// allocation ends. Its [`StreamId`] may be used again.
    pub fn handle_client_gone(&mut self, _now: Instant, client: Client) {
        if let Some(key) = self.allocations.key_of(client) {
            self.end_allocation(key, EndReason::Disconnected);
        }
    }

    /// Reports how [`Command::BindPort`] went; after a failure another port is tried.
    pub fn handle_port_bound(&mut self, _now: Instant, port: RelayPort, bound: bool) {
        self.finish_port(port, bound);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Allocation(key) => self.end_allocation(key, EndReason::Expired),
                Timer::Channel(key, number) => {
                    self.lower_route(key, number);
                    self.allocations.remove_channel(key, number);
                }
                Timer::Permission(key, peer) => {
                    self.lower_routes_to(key, peer);
                    self.allocations.remove_permission(key, peer);
                }
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.reason()))
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
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
        self.allocations.len()
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.allocations.channels()
    }

    /// How many permissions there are.
    pub fn permissions(&self) -> usize {
        self.allocations.permissions()
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

    fn drop<T>(&mut self, reason: DropReason) -> Option<T> {
        self.counters.dropped[reason as usize] += 1;
        None
    }

    /// Sends a response on the listener the client used, and counts it.
    fn respond(&mut self, client: Client, reply: Reply) {
        match reply.error {
            Some(ErrorCode(code)) => *self.counters.errors.entry(code).or_default() += 1,
            None => self.counters.successes += 1,
        }
        self.send_to_client(client, reply.datagram);
    }

    fn send_to_client(&mut self, client: Client, payload: Vec<u8>) {
        self.commands.push_back(Command::Send {
            source: client.socket(),
            destination: client.address,
            payload,
        });
    }

    /// Removes an allocation, its routes and its timers, and gives back its ports.
    fn end_allocation(&mut self, key: AllocationKey, reason: EndReason) {
        let Some(allocation) = self.allocations.remove(key) else {
            return;
        };
        self.timers.clear(Timer::Allocation(key));
        for number in allocation.channels.keys() {
            self.timers.clear(Timer::Channel(key, *number));
        }
        for peer in &allocation.permissions {
            self.timers.clear(Timer::Permission(key, *peer));
        }
        for route in allocation.routes.into_values() {
            self.commands.push_back(Command::RemoveRoute { route });
        }
        let pending = self.pending.remove(&key);
        let was_pending = pending.is_some();
        let waiting = pending.into_iter().flat_map(Pending::into_waiting);
        for port in allocation.ports.into_iter().chain(waiting) {
            self.ports.release(port);
            self.commands.push_back(Command::ReleasePort { port });
        }
        if !was_pending {
            let client = allocation.client;
            self.events.push_back(Event::AllocationEnded { client, reason });
        }
    }

    /// Gives back one half of a dual allocation.
    fn release_family(&mut self, key: AllocationKey, family: Family) {
        let Some(half) = self.allocations.remove_family(key, family) else {
            return;
        };
        for number in half.channels {
            self.lower_route(key, number);
            self.timers.clear(Timer::Channel(key, number));
        }
        for peer in half.permissions {
            self.timers.clear(Timer::Permission(key, peer));
        }
        self.ports.release(half.port);
        self.commands.push_back(Command::ReleasePort { port: half.port });
    }
}
