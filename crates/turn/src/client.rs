//! The client machine: learns mapped addresses, keeps one allocation and its channels alive.
//!
//! One [`Client`] serves one relay, over one UDP socket per address family or over one connection
//! (TCP or TLS; [`Transport`] says which). Inputs are
//! [`handle_datagram`](Client::handle_datagram), [`handle_timeout`](Client::handle_timeout) and the
//! wishes of the caller ([`bind_channel`](Client::bind_channel), …); outputs are
//! [`poll_transmit`](Client::poll_transmit), [`poll_event`](Client::poll_event) and
//! [`poll_timeout`](Client::poll_timeout). Drain them after every input.
//!
//! The machine never gives up for good: after a failure it asks again with growing pauses, and a new
//! allocation binds all wanted channels again. What it wants survives what the relay forgets.
//!
//! - Binding requests go to every server address at the start and every 25 s. They learn the mapped
//!   addresses, keep the NAT's mapping alive and notice when it changes, which orphans an allocation.
//! - Requests follow the retransmission rules of RFC 8489 (section 6.2.1) with timers scaled by the
//!   measured round trip, and give up after about ten seconds instead of forty.
//! - Responses to authenticated requests must be authenticated, or they are ignored and counted.
//! - Over a connection nothing is sent twice (RFC 8489, section 6.2.2) and no mapped address is learned:
//!   it would be one of TCP. A Binding request every 25 s shows that the connection still leads
//!   somewhere; a request without an answer condemns it ([`Event::Unresponsive`]), and the caller makes
//!   another ([`handle_connected`](Client::handle_connected)).
//!
//! Deliberately absent: third-party relays that redirect (300 is a failure), and more than one
//! allocation. One allocation with two families carries both IPv4 and IPv6 peers.

mod allocation;
mod authentication;
mod interface;
mod peers;
mod requests;
mod responses;
mod round_trip;

use crate::channel_data;
use crate::deadlines::Deadlines;
use crate::stun::{self, AttributeKind, Class, Message, Method, TransactionId, Writer};
use crate::{Family, Transmit};
use allocation::Allocation;
use authentication::{Authentication, Credentials};
use peers::Peers;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use requests::Requests;
use round_trip::RoundTrip;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use interface::{Config, Counters, Event, FailureReason, Handled, Transport};

/// How often a Binding request keeps the NAT mapping alive.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// Longest payload accepted by [`Client::send`], leaving room for every header in a UDP datagram.
const MAX_PAYLOAD: usize = 65_000;

/// The named deadlines of the machine.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
enum Timer {
    Retransmission(TransactionId),
    Allocation,
    Keepalive(Family),
    Channel(SocketAddr),
    Permission(IpAddr),
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Self::Retransmission(_) => "turn client: request retransmission",
            Self::Allocation => "turn client: allocation refresh or retry",
            Self::Keepalive(_) => "turn client: binding keepalive",
            Self::Channel(_) => "turn client: channel refresh",
            Self::Permission(_) => "turn client: permission refresh",
        }
    }
}

/// What one server address is good for.
#[derive(Copy, Clone, Debug)]
struct Server {
    address: SocketAddr,
    mapped: Option<SocketAddr>,
    /// Since when it was asked without answering anything.
    asked: Option<Instant>,
}

/// A TURN client for one relay.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    /// Whether messages can be sent: over UDP always.
    is_connected: bool,
    v4: Option<Server>,
    v6: Option<Server>,
    software: String,
    random: ChaCha20Rng,
    authentication: Authentication,
    requests: Requests,
    allocation: Allocation,
    peers: Peers,
    round_trip: RoundTrip,
    timers: Deadlines<Timer>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Client {
    /// A client that starts asking for mapped addresses and an allocation at once, or as soon as it is
    /// [connected](Self::handle_connected) if it uses a connection.
    ///
    /// `seed` feeds transaction ids and the spread of retries; it must be secret and used once.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let server = |address: Option<SocketAddr>| {
            address.map(|address| Server { address, mapped: None, asked: None })
        };
        let (v4, v6) = (server(config.server_v4), server(config.server_v6));
        let family = if v4.is_some() { Family::V4 } else { Family::V6 };
        let mut client = Self {
            transport: config.transport,
            is_connected: config.transport == Transport::Udp,
            v4,
            v6,
            software: config.software,
            random: ChaCha20Rng::from_seed(seed),
            authentication: Authentication::new(Credentials {
                username: config.username,
                password: config.password,
            }),
            requests: Requests::default(),
            allocation: Allocation::new(family),
            peers: Peers::default(),
            round_trip: RoundTrip::default(),
            timers: Deadlines::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        };
        client.start(now);
        client
    }

    /// The connection to the relay is there, for the first time or again: asks for an allocation.
    ///
    /// Without effect over UDP.
    pub fn handle_connected(&mut self, now: Instant) {
        if self.transport == Transport::Stream && !self.is_connected {
            self.is_connected = true;
            self.start(now);
        }
    }

    /// The connection is gone, and the allocation with it; nothing is sent until there is another.
    ///
    /// Without effect over UDP.
    pub fn handle_disconnected(&mut self) {
        if self.transport == Transport::Udp || !self.is_connected {
            return;
        }
        self.is_connected = false;
        self.forget_requests();
        self.lose_allocation(FailureReason::Disconnected);
    }

    /// Processes a datagram received on one of the sockets that talk to the relay, or a whole message
    /// from the connection, which counts as coming from the configured address.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Handled {
        if !self.servers().any(|server| server.address == from) {
            return Handled::NotMine;
        }
        if channel_data::looks_like(datagram) {
            return self.handle_channel_data(datagram);
        }
        let Ok(message) = Message::parse(datagram) else {
            self.counters.garbage += 1;
            return Handled::Consumed;
        };
        match message.class() {
            Class::Success | Class::Error => self.handle_response(now, from, &message),
            Class::Indication => return self.handle_indication(&message),
            Class::Request => self.counters.garbage += 1,
        }
        Handled::Consumed
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Retransmission(id) => self.retransmit(now, id),
                Timer::Allocation => self.handle_allocation_timer(now),
                Timer::Keepalive(family) => self.send_binding(now, family),
                Timer::Channel(peer) => self.send_channel_bind(now, peer, 0),
                Timer::Permission(peer) => self.send_create_permission(now, peer, 0),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.reason()))
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Wants a channel (and with it a permission) for `peer`, until released. Idempotent.
    ///
    /// It is bound as soon as there is an allocation, and again after an allocation was lost.
    /// At most 4,096 peers; beyond that the answer is [`Event::ChannelFailed`].
    pub fn bind_channel(&mut self, now: Instant, peer: SocketAddr) {
        if !self.peers.want_channel(now, peer) {
            return;
        }
        if !self.peers.has_channel_entry(peer) {
            self.events.push_back(Event::ChannelFailed { peer });
        } else if self.allocation.is_active() {
            self.send_channel_bind(now, peer, 0);
        }
    }

    /// No longer wants a channel for `peer`; the relay forgets it after ten minutes.
    pub fn release_channel(&mut self, peer: SocketAddr) {
        self.peers.release_channel(peer);
        self.timers.clear(Timer::Channel(peer));
    }

    /// Wants a permission without a channel for every port of `peer`, until released. Idempotent.
    pub fn permit(&mut self, now: Instant, peer: IpAddr) {
        if self.peers.want_permission(peer) && self.allocation.is_active() {
            self.send_create_permission(now, peer, 0);
        }
    }

    /// No longer wants the permission; the relay forgets it after five minutes.
    pub fn release_permission(&mut self, peer: IpAddr) {
        self.peers.release_permission(peer);
        self.timers.clear(Timer::Permission(peer));
    }

    /// True once the relay lets this address through, by permission or by channel.
    pub fn is_permitted(&self, peer: IpAddr) -> bool {
        self.peers.is_permitted(peer)
    }

    /// The channel number of a peer, once bound.
    pub fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.peers.bound_channel(peer)
    }

    /// Wraps data for a peer: as ChannelData if its channel is bound, else as a Send indication if
    /// its address has a permission, else `None` (counted).
    pub fn send(&mut self, _now: Instant, peer: SocketAddr, payload: &[u8]) -> Option<Transmit> {
        let destination = self.server_for(Family::of(peer.ip()))?;
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        if let Some(number) = self.peers.bound_channel(peer) {
            let header = channel_data::header(number, payload.len() as u16);
            let mut payload = [&header, payload].concat();
            if self.transport == Transport::Stream {
                // RFC 8656, section 12.5: the next message begins at a multiple of four bytes.
                payload.resize(payload.len().next_multiple_of(4), 0);
            }
            return Some(Transmit { destination, payload });
        }
        if !self.peers.is_permitted(peer.ip()) {
            self.counters.unknown_peer += 1;
            return None;
        }
        let transaction = self.new_transaction_id();
        let payload = Writer::new(Method::SEND, Class::Indication, transaction)
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeKind::DATA, payload)
            .finish();
        Some(Transmit { destination, payload })
    }

    /// The addresses the relay lends us, one per family; empty without allocation.
    pub fn relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.allocation.relayed().iter().copied()
    }

    /// Our address as the server sees it over this family.
    pub fn mapped_address(&self, family: Family) -> Option<SocketAddr> {
        self.server(family)?.mapped
    }

    /// Since when the relay was asked and answered nothing at all, at any of its addresses; `None` if one
    /// of them owes us no answer. Requests that were given up count until something is answered.
    pub fn unanswered_since(&self) -> Option<Instant> {
        let asked: Option<Vec<Instant>> = self.servers().map(|server| server.asked).collect();
        asked?.into_iter().max()
    }

    /// The smoothed round trip to the relay.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Where data for peers of this family goes: the server address that holds the allocation, if
    /// the allocation has a relayed address of that family.
    pub fn server_for(&self, peer: Family) -> Option<SocketAddr> {
        let serves = |address: &SocketAddr| Family::of(address.ip()) == peer;
        self.relayed_addresses().find(serves)?;
        Some(self.server(self.allocation.family())?.address)
    }

    /// The server address in use: the name of the other end for a client with a connection.
    pub fn server_address(&self) -> Option<SocketAddr> {
        Some(self.server(self.allocation.family())?.address)
    }

    /// Replaces the credentials; an allocation made with the old ones is prolonged with the new ones
    /// at once, or made again where the relay does not allow that.
    pub fn set_credentials(&mut self, now: Instant, username: String, password: String) {
        let credentials = Credentials { username, password };
        if self.authentication.replace(credentials) {
            self.handle_new_credentials(now);
        }
    }

    /// The local address changed: forgets the allocation and starts again. Channels stay wanted.
    ///
    /// A client with a connection needs [another one](Self::handle_disconnected) instead.
    pub fn rebind(&mut self, now: Instant) {
        self.forget_requests();
        self.lose_allocation(FailureReason::Rebound);
        self.start(now);
    }

    /// Forgets whatever was said to the relay and what it said of the way there.
    fn forget_requests(&mut self) {
        self.requests.clear(&mut self.timers);
        self.timers.clear(Timer::Keepalive(Family::V4));
        self.timers.clear(Timer::Keepalive(Family::V6));
        self.round_trip = RoundTrip::default();
        for server in [&mut self.v4, &mut self.v6].into_iter().flatten() {
            (server.mapped, server.asked) = (None, None);
        }
    }

    /// Asks the relay whether the allocation still lives, by refreshing it now.
    ///
    /// For callers that suspect a restarted relay; a dead allocation ends in
    /// [`Event::AllocationLost`] one round trip later. Over UDP the relay's other address is asked too, for
    /// [`unanswered_since`](Self::unanswered_since).
    pub fn check(&mut self, now: Instant) {
        if self.allocation.is_active() {
            self.send_refresh(now, 0);
            self.ask_elsewhere(now, self.allocation.family());
        }
    }

    /// Asks the relay at its address of the other family: whether it is silent there as well.
    fn ask_elsewhere(&mut self, now: Instant, silent: Family) {
        if self.transport == Transport::Udp && !self.allocation.is_closed() {
            let other = if silent == Family::V4 { Family::V6 } else { Family::V4 };
            self.send_binding(now, other);
        }
    }

    /// Ends the allocation (Refresh with lifetime zero) and stops all timers but its repetition.
    pub fn close(&mut self, now: Instant) {
        self.requests.clear(&mut self.timers);
        self.timers.clear(Timer::Allocation);
        self.timers.clear(Timer::Keepalive(Family::V4));
        self.timers.clear(Timer::Keepalive(Family::V6));
        self.forget_peer_timers();
        let was_active = self.allocation.is_active() && self.is_connected;
        self.allocation.close();
        if was_active {
            self.send_deallocate(now, false, 0);
        }
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Starts Binding and Allocate at every configured address.
    fn start(&mut self, now: Instant) {
        if self.allocation.is_closed() || !self.is_connected {
            return;
        }
        for family in [Family::V4, Family::V6] {
            match self.transport {
                Transport::Udp => self.send_binding(now, family),
                // The allocation tells all there is to know at the start.
                Transport::Stream => self.timers.set(Timer::Keepalive(family), now + KEEPALIVE),
            }
        }
        self.begin_allocation(now);
    }

    fn handle_channel_data(&mut self, datagram: &[u8]) -> Handled {
        let Some((number, payload)) = channel_data::parse(datagram) else {
            self.counters.garbage += 1;
            return Handled::Consumed;
        };
        let Some(peer) = self.peers.peer_of(number) else {
            self.counters.unknown_peer += 1;
            return Handled::Consumed;
        };
        Handled::Data { peer, payload }
    }

    /// A Data indication brings data from a peer without a channel (RFC 8656, section 11.6).
    fn handle_indication(&mut self, message: &Message<'_>) -> Handled {
        if message.method() != Method::DATA {
            self.counters.garbage += 1;
            return Handled::Consumed;
        }
        let peer = message.xor_address(AttributeKind::XOR_PEER_ADDRESS);
        let data = message.find(AttributeKind::DATA);
        let (Some(peer), Some(data)) = (peer, data) else {
            self.counters.garbage += 1;
            return Handled::Consumed;
        };
        if !self.peers.is_permitted(peer.ip()) {
            self.counters.unknown_peer += 1;
            return Handled::Consumed;
        }
        let start = data.as_ptr() as usize - message.bytes().as_ptr() as usize;
        let payload = start..start + data.len();
        Handled::Data { peer, payload }
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        [&self.v4, &self.v6].into_iter().flatten()
    }

    fn server(&self, family: Family) -> Option<&Server> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    fn server_mut(&mut self, family: Family) -> Option<&mut Server> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// Notes the address the server sees, and tells the caller if it is news.
    fn note_mapped_address(&mut self, family: Family, address: SocketAddr) {
        if self.transport == Transport::Stream {
            return;
        }
        let Some(server) = self.server_mut(family) else { return };
        if server.mapped.replace(address) != Some(address) {
            self.events.push_back(Event::MappedAddress { address });
        }
    }

    fn new_transaction_id(&mut self) -> TransactionId {
        let mut id = [0; 12];
        self.random.fill_bytes(&mut id);
        TransactionId(id)
    }
}

/// True if a datagram from the relay's address could be for a [`Client`].
pub fn looks_like(datagram: &[u8]) -> bool {
    stun::looks_like(datagram) || channel_data::looks_like(datagram)
}
