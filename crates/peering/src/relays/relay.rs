//! One relay: its TURN client and who holds which channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_protocol::RelayAccess;
use adit_turn::client::{Client, Config, Event, Handled};
use adit_turn::stun::{AttributeKind, Class, Method, TransactionId, Writer};
use adit_turn::{Family, Transmit};

use super::{RelayChange, RelayKey};
use crate::ConnectionId;
use crate::address::{LocalAddresses, family};

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
        let families = usable_families(locals);
        Self {
            key,
            client: Client::new(now, config(&access, &families), seed),
            access,
            families,
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

    pub(super) fn is_same(&self, access: &RelayAccess) -> bool {
        self.access.id == access.id && self.access.ipv4 == access.ipv4 && self.access.ipv6 == access.ipv6
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
        if families == self.families {
            self.client.rebind(now);
            return;
        }
        // The client's server addresses are fixed, and other families are reachable now.
        let lent = self.close(now);
        self.client = Client::new(now, config(&self.access, &families), seed);
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
        self.client.handle_datagram(now, from, datagram)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.client.poll_timeout()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.client.poll_transmit()
    }

    /// Turns the client's events into changes.
    pub(super) fn collect(&mut self, now: Instant, changes: &mut VecDeque<RelayChange>) {
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
                Event::Unresponsive => {}
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
    ) -> Option<Transmit> {
        let channel = self.channels.get(&peer)?;
        if channel.number.is_some() {
            return self.client.send(now, peer, payload);
        }
        if payload.len() > MAX_INDICATION {
            return None;
        }
        let destination = self.client.server_for(family(peer))?;
        let payload = Writer::new(Method::SEND, Class::Indication, TransactionId(id))
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeKind::DATA, payload)
            .finish();
        Some(Transmit { destination, payload })
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
    pub(super) fn preference(&self) -> (bool, bool, Duration) {
        let round_trip = self.round_trip().unwrap_or(Duration::MAX);
        (self.retires_at.is_some(), self.lent.is_empty(), round_trip)
    }

    pub(super) fn works(&self) -> bool {
        !self.lent.is_empty()
    }

    pub(super) fn failed(&self) -> bool {
        self.failed && self.lent.is_empty()
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }
}

fn config(access: &RelayAccess, families: &[Family]) -> Config {
    Config {
        transport: adit_turn::client::Transport::Udp,
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
