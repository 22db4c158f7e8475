//! One relay as it is reached one way: its TURN client and who holds which channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_protocol::RelayAccess;
use adit_turn::client::{Client, Config, Event, Handled, Transport};
use adit_turn::stun::{AttributeKind, Class, Method, TransactionId, Writer};
use adit_turn::{Family, Transmit};
use rand_chacha::ChaCha20Rng;

use super::stream::Stream;
use super::{RelayChange, RelayKey, ToRelay};
use crate::ConnectionId;
use crate::address::{LocalAddresses, family};
use crate::event::{RelayTransport, StreamId, StreamTarget};

/// Not longer than what fits a relay's own datagrams comfortably.
const MAX_INDICATION: usize = 2048;

/// There are 4,096 channel numbers (RFC 8656, section 12).
const MANY_CHANNELS: usize = 4000;

/// Said to the relay, for its logs.
const SOFTWARE: &str = "adit";

/// A channel that connections want.
#[derive(Debug, Default)]
struct Channel {
    holders: BTreeSet<ConnectionId>,
    number: Option<u16>,
}

/// A relay that we use.
#[derive(Debug)]
pub(super) struct Relay {
    key: RelayKey,
    access: RelayAccess,
    client: Client,
    families: Vec<Family>,
    /// How it is reached, if not over UDP.
    stream: Option<Stream>,
    /// Since when it is tried from the present local addresses.
    bound_at: Instant,
    lent: Vec<SocketAddr>,
    channels: BTreeMap<SocketAddr, Channel>,
    by_number: BTreeMap<u16, SocketAddr>,
    failed: bool,
    retires_at: Option<Instant>,
}

impl Relay {
    pub(super) fn new(
        now: Instant,
        key: RelayKey,
        access: RelayAccess,
        locals: &LocalAddresses,
        seed: [u8; 32],
    ) -> Self {
        Self::with(now, key, access, usable_families(locals), None, seed)
    }

    /// The same relay once more, over a stream.
    pub(super) fn over_stream(
        now: Instant,
        key: RelayKey,
        access: RelayAccess,
        families: Vec<Family>,
        stream: Stream,
        seed: [u8; 32],
    ) -> Self {
        Self::with(now, key, access, families, Some(stream), seed)
    }

    fn with(
        now: Instant,
        key: RelayKey,
        access: RelayAccess,
        families: Vec<Family>,
        stream: Option<Stream>,
        seed: [u8; 32],
    ) -> Self {
        Self {
            key,
            client: Client::new(now, config(&access, &families, transport(stream.as_ref())), seed),
            access,
            families,
            stream,
            bound_at: now,
            lent: Vec::new(),
            channels: BTreeMap::new(),
            by_number: BTreeMap::new(),
            failed: false,
            retires_at: None,
        }
    }

    pub(super) fn key(&self) -> RelayKey {
        self.key
    }

    /// When it will be given up, if it is off the list.
    pub(super) fn retires_at(&self) -> Option<Instant> {
        self.retires_at
    }

    pub(super) fn set_retirement(&mut self, at: Option<Instant>) {
        self.retires_at = at;
    }

    /// Whether it is the relay of this access, at the same place.
    pub(super) fn is_same(&self, access: &RelayAccess) -> bool {
        let (ours, is_stream) = (&self.access, self.is_stream());
        let same_streams = ours.tcp_port == access.tcp_port && ours.tls == access.tls;
        let same_addresses = ours.ipv4 == access.ipv4 && ours.ipv6 == access.ipv6;
        ours.id == access.id && same_addresses && (same_streams || !is_stream)
    }

    pub(super) fn access(&self) -> &RelayAccess {
        &self.access
    }

    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    pub(super) fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.stream.as_mut()
    }

    /// Whether it could be reached over a stream too.
    pub(super) fn may_have_stream(&self) -> bool {
        Stream::is_possible(&self.access, &self.families)
    }

    /// The stream that leads to it now.
    pub(super) fn open_stream(&self) -> Option<StreamId> {
        self.stream.as_ref()?.open_id()
    }

    pub(super) fn stream_target(&self) -> Option<StreamTarget> {
        self.stream.as_ref()?.target()
    }

    pub(super) fn transport(&self) -> RelayTransport {
        self.stream.as_ref().map_or(RelayTransport::Udp, Stream::transport)
    }

    /// Whether it has an address of a family that we have too.
    pub(super) fn is_reachable(&self) -> bool {
        let addresses = [self.access.ipv4, self.access.ipv6].into_iter().flatten();
        addresses.into_iter().any(|address| self.families.contains(&family(address)))
    }

    pub(super) fn bound_at(&self) -> Instant {
        self.bound_at
    }

    /// Whether it was asked and has not answered, or cannot be asked.
    pub(super) fn is_silent(&self) -> bool {
        self.unanswered_since().is_some() || self.is_stream() && self.open_stream().is_none()
    }

    /// Since when it was asked and answered nothing.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.client.unanswered_since()
    }

    /// Whether the relay listens, or lends, at an address.
    pub(super) fn is_at(&self, ip: IpAddr) -> bool {
        let listeners = [self.access.ipv4, self.access.ipv6];
        listeners.iter().flatten().chain(&self.lent).any(|address| address.ip() == ip)
    }

    /// Takes new credentials of the same relay.
    pub(super) fn renew(&mut self, now: Instant, access: &RelayAccess) {
        if self.access != *access {
            self.client.set_credentials(now, access.username.clone(), access.password.clone());
            self.access = access.clone();
        }
    }

    /// Starts again from new local addresses.
    pub(super) fn rebind(&mut self, now: Instant, locals: &LocalAddresses, seed: [u8; 32]) {
        let families = usable_families(locals);
        self.bound_at = now;
        if let Some(stream) = &mut self.stream {
            // The connection began at an address that may be ours no more.
            self.client.handle_disconnected();
            stream.rebind(now, &self.access, &families, !locals.as_slice().is_empty());
        }
        if families == self.families {
            if self.stream.is_none() {
                self.client.rebind(now);
            }
            return;
        }
        // The client's server addresses are fixed, and other families are reachable now.
        let lent = self.close(now);
        let transport = transport(self.stream.as_ref());
        self.client = Client::new(now, config(&self.access, &families, transport), seed);
        self.families = families;
        self.lent = lent;
        for peer in self.channels.keys() {
            self.client.bind_channel(now, *peer);
        }
    }

    /// Ends the allocation and returns the addresses that are ours no more.
    pub(super) fn close(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.client.close(now);
        self.forget_numbers();
        std::mem::take(&mut self.lent)
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Handled {
        if self.is_stream() {
            return Handled::NotMine;
        }
        self.client.handle_datagram(now, from, datagram)
    }

    pub(super) fn handle_message(&mut self, now: Instant, from: StreamId, message: &[u8]) -> Handled {
        let Some(name) = self.client.server_address().filter(|_| self.open_stream() == Some(from)) else {
            return Handled::NotMine;
        };
        self.client.handle_datagram(now, name, message)
    }

    pub(super) fn note_stream_opened(&mut self, now: Instant, id: StreamId) {
        if self.stream.as_mut().is_some_and(|stream| stream.note_opened(now, id)) {
            self.client.handle_connected(now);
        }
    }

    pub(super) fn note_stream_closed(&mut self, now: Instant, id: StreamId, random: &mut ChaCha20Rng) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.id() == Some(id)) {
            stream.note_failed(now, random);
            self.client.handle_disconnected();
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let attempt = self.stream.as_ref().and_then(Stream::due);
        let attempt = attempt.map(|at| (at, "turn client: connect a stream"));
        [self.client.poll_timeout(), attempt].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    pub(super) fn poll_transmit(&mut self) -> Option<ToRelay> {
        let transmit = self.client.poll_transmit()?;
        self.addressed(transmit)
    }

    /// Adds the way to the relay; `None` if there is none at the moment.
    fn addressed(&self, transmit: Transmit) -> Option<ToRelay> {
        let stream = self.open_stream();
        (stream.is_some() == self.is_stream()).then_some(ToRelay { stream, transmit })
    }

    /// Turns the client's events into changes.
    pub(super) fn collect(
        &mut self,
        now: Instant,
        changes: &mut VecDeque<RelayChange>,
        random: &mut ChaCha20Rng,
    ) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::MappedAddress { .. } => changes.push_back(RelayChange::Mapped),
                Event::AllocationCreated { relayed } => {
                    self.lose(changes);
                    self.failed = false;
                    self.lent = relayed;
                    changes.push_back(RelayChange::Lent(self.key));
                }
                Event::AllocationFailed { reason } => {
                    tracing::debug!(relay = ?self.access.id, %reason, "no allocation");
                    self.failed = true;
                    self.lose(changes);
                }
                Event::AllocationLost { reason } => {
                    tracing::debug!(relay = ?self.access.id, %reason, "allocation lost");
                    self.lose(changes);
                }
                Event::Unresponsive => {
                    tracing::debug!(relay = ?self.access.id, "the stream leads nowhere");
                    if let Some(stream) = &mut self.stream {
                        stream.note_failed(now, random);
                    }
                }
                Event::ChannelBound { peer, number } => self.note_bound(peer, number, changes),
                Event::ChannelFailed { peer } => {
                    // A relay that refuses the channel refuses the peer; but if it is only that all
                    // numbers are taken, data can still go in Send indications.
                    if self.channels.contains_key(&peer) && self.channels.len() > MANY_CHANNELS {
                        self.client.permit(now, peer.ip());
                    }
                }
            }
        }
        if self.lent.is_empty() {
            return;
        }
        // A client that was replaced has no address yet, whatever the old one had.
        if self.client.relayed_addresses().next().is_none() {
            self.lose(changes);
        }
    }

    fn note_bound(&mut self, peer: SocketAddr, number: u16, changes: &mut VecDeque<RelayChange>) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.number = Some(number);
            self.by_number.insert(number, peer);
            changes.push_back(RelayChange::Bound(channel.holders.iter().copied().collect()));
        }
    }

    fn lose(&mut self, changes: &mut VecDeque<RelayChange>) {
        self.forget_numbers();
        let lent = std::mem::take(&mut self.lent);
        if !lent.is_empty() {
            changes.push_back(RelayChange::Lost(lent));
        }
    }

    fn forget_numbers(&mut self) {
        self.by_number.clear();
        for channel in self.channels.values_mut() {
            channel.number = None;
        }
    }

    pub(super) fn hold(&mut self, now: Instant, peer: SocketAddr, holder: ConnectionId) {
        let channel = self.channels.entry(peer).or_default();
        let first = channel.holders.is_empty();
        channel.holders.insert(holder);
        if first {
            self.client.bind_channel(now, peer);
        }
    }

    pub(super) fn release(&mut self, peer: SocketAddr, holder: ConnectionId) {
        let Some(channel) = self.channels.get_mut(&peer) else { return };
        channel.holders.remove(&holder);
        if !channel.holders.is_empty() {
            return;
        }
        if let Some(number) = self.channels.remove(&peer).and_then(|channel| channel.number) {
            self.by_number.remove(&number);
        }
        self.client.release_channel(peer);
        let same_host = SocketAddr::new(peer.ip(), 0)..=SocketAddr::new(peer.ip(), u16::MAX);
        if self.channels.range(same_host).next().is_none() {
            self.client.release_permission(peer.ip());
        }
    }

    /// Wraps a datagram for a peer.
    ///
    /// Until its channel is bound it goes as a Send indication right behind the request that
    /// asks for the channel: a relay that handles them in order has granted the permission
    /// by then, and a whole round trip is saved.
    pub(super) fn wrap(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload: &[u8],
        id: [u8; 12],
    ) -> Option<ToRelay> {
        let channel = self.channels.get(&peer)?;
        if channel.number.is_some() {
            let transmit = self.client.send(now, peer, payload)?;
            return self.addressed(transmit);
        }
        if payload.len() > MAX_INDICATION {
            return None;
        }
        let destination = self.client.server_for(family(peer))?;
        let payload = Writer::new(Method::SEND, Class::Indication, TransactionId(id))
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeKind::DATA, payload)
            .finish();
        self.addressed(Transmit { destination, payload })
    }

    pub(super) fn doubt(&mut self, now: Instant) {
        self.client.check(now);
    }

    pub(super) fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.get(&peer)?.number
    }

    pub(super) fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.by_number.get(&number).copied()
    }

    pub(super) fn lent_addresses(&self) -> &[SocketAddr] {
        &self.lent
    }

    pub(super) fn lent(&self, of: Family) -> Option<SocketAddr> {
        self.lent.iter().copied().find(|address| family(*address) == of)
    }

    pub(super) fn server(&self, peer: Family) -> Option<SocketAddr> {
        self.client.server_for(peer)
    }

    pub(super) fn mapped(&self, of: Family) -> Option<SocketAddr> {
        self.client.mapped_address(of)
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.client.round_trip()
    }

    /// Smaller is better.
    pub(super) fn preference(&self) -> (bool, bool, bool, Duration) {
        let round_trip = self.round_trip().unwrap_or(Duration::MAX);
        (self.retires_at.is_some(), self.lent.is_empty(), self.is_stream(), round_trip)
    }

    pub(super) fn works(&self) -> bool {
        !self.lent.is_empty()
    }

    pub(super) fn failed(&self) -> bool {
        let failed = self.failed || self.stream.as_ref().is_some_and(Stream::failed);
        failed && self.lent.is_empty()
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }
}

fn transport(stream: Option<&Stream>) -> Transport {
    if stream.is_some() { Transport::Stream } else { Transport::Udp }
}

fn config(access: &RelayAccess, families: &[Family], transport: Transport) -> Config {
    Config {
        transport,
        server_v4: access.ipv4.filter(|_| families.contains(&Family::V4)),
        server_v6: access.ipv6.filter(|_| families.contains(&Family::V6)),
        username: access.username.clone(),
        password: access.password.clone(),
        software: SOFTWARE.to_owned(),
    }
}

/// The families that we have addresses of; both as long as we know none.
fn usable_families(locals: &LocalAddresses) -> Vec<Family> {
    let both = [Family::V4, Family::V6];
    let known: Vec<_> = both.into_iter().filter(|of| locals.first(*of).is_some()).collect();
    if known.is_empty() { both.to_vec() } else { known }
}
