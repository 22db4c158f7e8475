//! Our relays: allocations made ahead of any connection, and channels shared by connections.
//!
//! Every relay given by the portal gets a TURN client at once, so that relayed addresses exist
//! and are registered before the first connection needs them. A channel belongs to a pair of
//! relay and peer address; connections *hold* it and it is released with the last hold.
//!
//! A relay that the portal takes off the list usually still works: it drains. It is kept for a few
//! seconds, in which connections find their way through another, and only then given up.
//!
//! Where no relay can be reached over UDP, each is one more time in the list, reached over a byte stream and with an
//! allocation of its own; see [`fallback`] for when.

mod fallback;
mod relay;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use adit_protocol::{Candidate, CandidateKind, RelayAccess};
use adit_turn::{Family, client::Handled};
use rand::RngCore as _;
use rand_chacha::ChaCha20Rng;

use crate::address::{LocalAddresses, Pair, family};
use crate::event::{RelayTransport, StreamId, StreamTarget};
use crate::{ConnectionId, Path};
use relay::Relay;

/// Relays beyond this many are ignored.
const MAX_RELAYS: usize = 4;

/// How long a relay that is off the list is used on. Less than a relay usually takes to drain, and enough for
/// an allocation, a channel and several checks at another.
const RETIRE_AFTER: Duration = Duration::from_secs(3);

/// Names one of our relays for the life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RelayKey(u32);

/// What connections must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayChange {
    /// The relay lends us addresses now.
    Lent(RelayKey),
    /// The relay will be given up; others must be ready by then.
    Retiring(RelayKey),
    /// These addresses are ours no more.
    Lost(Vec<SocketAddr>),
    /// These connections wanted a channel that workers can use now.
    Bound(Vec<ConnectionId>),
    /// A mapped address is new.
    Mapped,
}

/// Where a datagram from a relay came from in truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromRelay {
    /// It is not from a relay.
    No,
    /// The relay itself spoke.
    Consumed,
    /// A peer sent it to the address that the relay lends us.
    Data {
        /// Our relayed address and the peer's address.
        pair: Pair,
        /// Where the payload lies.
        payload: Range<usize>,
    },
}

/// Something for a relay.
#[derive(Debug)]
pub(crate) struct ToRelay {
    /// The stream that it is for; a datagram without one.
    pub(crate) stream: Option<StreamId>,
    pub(crate) transmit: adit_turn::Transmit,
}

/// All relays.
#[derive(Debug)]
pub(crate) struct Relays {
    relays: Vec<Relay>,
    random: ChaCha20Rng,
    next_key: u32,
    changes: VecDeque<RelayChange>,
    /// Last words of relays that were taken away.
    farewells: VecDeque<ToRelay>,
    next_stream: u32,
    /// The streams that the caller was last told to have.
    told_streams: Vec<StreamTarget>,
    /// Whether there is any local address.
    has_network: bool,
    /// No relay answered over UDP when we last found out.
    is_udp_blocked: bool,
    /// The portal was asked for other relays and has not answered with a working one.
    asked: bool,
}

impl Relays {
    pub(crate) fn new(random: ChaCha20Rng) -> Self {
        Self {
            relays: Vec::new(),
            random,
            next_key: 0,
            changes: VecDeque::new(),
            farewells: VecDeque::new(),
            next_stream: 1,
            told_streams: Vec::new(),
            has_network: false,
            is_udp_blocked: false,
            asked: false,
        }
    }

    /// Sets the whole list. Relays that stay keep their allocation; those that go are left within seconds, or at
    /// once if the list is empty.
    pub(crate) fn set(&mut self, now: Instant, accesses: &[RelayAccess], locals: &LocalAddresses) {
        let accesses = &accesses[..accesses.len().min(MAX_RELAYS)];
        for mut relay in std::mem::take(&mut self.relays) {
            let access = accesses.iter().find(|access| relay.is_same(access));
            if let Some(access) = access {
                relay.renew(now, access);
            }
            let listed = access.is_some() && (self.is_udp_blocked || !relay.is_stream());
            self.keep_or_close(now, relay, listed, !accesses.is_empty());
        }
        for access in accesses {
            if !self.relays.iter().any(|relay| !relay.is_stream() && relay.is_same(access)) {
                self.add(now, access.clone(), locals);
            }
        }
        self.asked = false;
        self.collect(now);
    }

    /// Relays off the list that lend us addresses stay for a while, but not more than a full list of them.
    fn keep_or_close(&mut self, now: Instant, mut relay: Relay, listed: bool, is_replaced: bool) {
        let retiring = self.relays.iter().filter(|relay| relay.retires_at().is_some()).count();
        if listed {
            relay.set_retirement(None);
        } else if !is_replaced || !relay.works() || retiring >= MAX_RELAYS {
            self.close(now, relay);
            return;
        } else if relay.retires_at().is_none() {
            relay.set_retirement(Some(now + RETIRE_AFTER));
            self.changes.push_back(RelayChange::Retiring(relay.key()));
        }
        self.relays.push(relay);
    }

    /// The local addresses changed: every allocation is made again.
    pub(crate) fn rebind(&mut self, now: Instant, locals: &LocalAddresses) {
        self.has_network = !locals.as_slice().is_empty();
        for mut relay in std::mem::take(&mut self.relays) {
            if relay.is_stream() && relay.retires_at().is_some() {
                // It ends with the network that it was not needed in.
                self.close(now, relay);
                continue;
            }
            let seed = random_seed(&mut self.random);
            relay.rebind(now, locals, seed);
            self.relays.push(relay);
        }
        self.collect(now);
    }

    fn add(&mut self, now: Instant, access: RelayAccess, locals: &LocalAddresses) {
        let (key, seed) = (self.new_key(), random_seed(&mut self.random));
        self.relays.push(Relay::new(now, key, access, locals, seed));
    }

    fn new_key(&mut self) -> RelayKey {
        self.next_key += 1;
        RelayKey(self.next_key)
    }

    fn close(&mut self, now: Instant, mut relay: Relay) {
        let lent = relay.close(now);
        if !lent.is_empty() {
            self.changes.push_back(RelayChange::Lost(lent));
        }
        self.farewells.extend(std::iter::from_fn(|| relay.poll_transmit()));
    }

    /// Takes a datagram if it comes from a relay.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> FromRelay {
        self.offer(now, |relay| relay.handle_datagram(now, from, datagram))
    }

    /// Takes a message that came over a stream.
    pub(crate) fn handle_message(&mut self, now: Instant, from: StreamId, message: &[u8]) -> FromRelay {
        self.offer(now, |relay| relay.handle_message(now, from, message))
    }

    fn offer(&mut self, now: Instant, mut take: impl FnMut(&mut Relay) -> Handled) -> FromRelay {
        for relay in &mut self.relays {
            match take(relay) {
                Handled::NotMine => {}
                Handled::Consumed => {
                    self.collect(now);
                    return FromRelay::Consumed;
                }
                Handled::Data { peer, payload } => {
                    return match relay.lent(family(peer)) {
                        Some(local) => FromRelay::Data { pair: Pair { local, remote: peer }, payload },
                        None => FromRelay::Consumed,
                    };
                }
            }
        }
        FromRelay::No
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for mut relay in std::mem::take(&mut self.relays) {
            if relay.retires_at().is_some_and(|at| at <= now) {
                self.close(now, relay);
            } else {
                relay.handle_timeout(now);
                self.relays.push(relay);
            }
        }
        self.collect(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let retirement = |relay: &Relay| Some((relay.retires_at()?, "peering: give up a relay"));
        let timeouts = self.relays.iter().flat_map(|relay| [relay.poll_timeout(), retirement(relay)]);
        let review = self.review_at().map(|at| (at, "turn client: is UDP blocked"));
        timeouts.chain([review]).flatten().min_by_key(|(at, _)| *at)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<ToRelay> {
        self.farewells.pop_front().or_else(|| self.relays.iter_mut().find_map(Relay::poll_transmit))
    }

    pub(crate) fn poll_change(&mut self) -> Option<RelayChange> {
        self.changes.pop_front()
    }

    fn collect(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.collect(now, &mut self.changes, &mut self.random);
        }
        self.review(now);
    }

    /// True once when no relay works any more and the portal should be asked.
    pub(crate) fn take_need(&mut self) -> bool {
        let mut listed = self.relays.iter().filter(|relay| relay.retires_at().is_none()).peekable();
        let has_any = listed.peek().is_some();
        if listed.clone().any(Relay::works) {
            self.asked = false;
            return false;
        }
        let need = has_any && listed.all(Relay::failed) && !self.asked;
        self.asked |= need;
        need
    }

    /// Every relay, the one with the shortest round trip first; then those over streams, those without allocation,
    /// and at last those off the list.
    pub(crate) fn by_preference(&self) -> Vec<RelayKey> {
        let mut keys: Vec<_> = self.relays.iter().map(|relay| (relay.preference(), relay.key())).collect();
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether a relay is there to stay.
    pub(crate) fn is_listed(&self, key: RelayKey) -> bool {
        self.find(key).is_some_and(|relay| relay.retires_at().is_none())
    }

    /// Whether a pair leads over a relay that is off the list, at our end or, as far as we know it, at the peer's. A
    /// stream that is not needed any more is left too, but the relay at its end stays.
    pub(crate) fn is_leaving(&self, pair: Pair) -> bool {
        let stays = |relay: &Relay| self.over_udp().any(|listed| relay.is_same(listed.access()));
        self.relays.iter().filter(|relay| relay.retires_at().is_some()).any(|relay| {
            relay.lent_addresses().contains(&pair.local) || relay.is_at(pair.remote.ip()) && !stays(relay)
        })
    }

    /// The addresses that a relay lends us.
    pub(crate) fn addresses(&self, key: RelayKey) -> &[SocketAddr] {
        self.find(key).map_or(&[], Relay::lent_addresses)
    }

    /// The relay behind one of our relayed addresses.
    pub(crate) fn owner(&self, lent: SocketAddr) -> Option<RelayKey> {
        self.relays.iter().find(|relay| relay.lent_addresses().contains(&lent)).map(Relay::key)
    }

    /// The relay's own address behind one of our relayed addresses.
    pub(crate) fn server(&self, lent: SocketAddr) -> Option<SocketAddr> {
        self.find(self.owner(lent)?)?.server(family(lent))
    }

    /// What carries datagrams between us and the relay behind one of our relayed addresses.
    pub(crate) fn transport(&self, lent: SocketAddr) -> Option<RelayTransport> {
        Some(self.find(self.owner(lent)?)?.transport())
    }

    /// Whether a relay is reached over a stream.
    pub(crate) fn is_stream(&self, key: RelayKey) -> bool {
        self.find(key).is_some_and(Relay::is_stream)
    }

    /// Whether one of our relays serves at an address.
    pub(crate) fn is_server(&self, address: SocketAddr) -> bool {
        self.relays.iter().any(|relay| relay.server(family(address)) == Some(address))
    }

    /// Wants a channel from a relay to a peer.
    pub(crate) fn hold(&mut self, now: Instant, key: RelayKey, peer: SocketAddr, holder: ConnectionId) {
        if let Some(relay) = self.find_mut(key) {
            relay.hold(now, peer, holder);
        }
        self.collect(now);
    }

    /// Gives a channel back.
    pub(crate) fn release(&mut self, key: RelayKey, peer: SocketAddr, holder: ConnectionId) {
        if let Some(relay) = self.find_mut(key) {
            relay.release(peer, holder);
        }
    }

    /// Wraps a datagram that leaves from one of our relayed addresses.
    pub(crate) fn wrap(&mut self, now: Instant, pair: Pair, payload: &[u8]) -> Option<ToRelay> {
        let key = self.owner(pair.local)?;
        let mut id = [0; 12];
        self.random.fill_bytes(&mut id);
        self.find_mut(key)?.wrap(now, pair.remote, payload, id)
    }

    /// Asks the relay behind one of our relayed addresses whether it still knows us.
    pub(crate) fn doubt(&mut self, now: Instant, lent: SocketAddr) {
        if let Some(key) = self.owner(lent)
            && let Some(relay) = self.find_mut(key)
        {
            relay.doubt(now);
        }
    }

    /// Asks every relay on the list whether it still knows us.
    pub(crate) fn ask(&mut self, now: Instant) {
        for relay in self.relays.iter_mut().filter(|relay| relay.retires_at().is_none()) {
            relay.doubt(now);
        }
    }

    /// Whether no relay on the list answers what it was asked.
    pub(crate) fn are_silent(&self) -> bool {
        let mut listed = self.relays.iter().filter(|relay| relay.retires_at().is_none()).peekable();
        listed.peek().is_some() && listed.all(Relay::is_silent)
    }

    /// How a worker sends from one of our relayed addresses; `None` until the channel is bound.
    pub(crate) fn worker_path(&self, pair: Pair, locals: &LocalAddresses) -> Option<Path> {
        let relay = self.find(self.owner(pair.local)?)?;
        let channel = relay.channel(pair.remote)?;
        let remote = relay.server(family(pair.remote))?;
        let stream = relay.open_stream();
        // A stream that is not open leads nowhere.
        (stream.is_some() == relay.is_stream()).then(|| Path {
            local: locals.any(family(remote)),
            remote,
            channel: Some(channel),
            stream,
        })
    }

    /// The inverse of [`worker_path`](Self::worker_path).
    pub(crate) fn pair_of(&self, stream: Option<StreamId>, server: SocketAddr, channel: u16) -> Option<Pair> {
        self.relays.iter().filter(|relay| relay.open_stream() == stream).find_map(|relay| {
            let remote = relay.peer_of(channel)?;
            (stream.is_some() || relay.server(family(remote))? == server)
                .then(|| Some(Pair { local: relay.lent(family(remote))?, remote }))
                .flatten()
        })
    }

    /// All our candidates: host, server-reflexive, relayed. Those of a relay that leaves are told until it is given up:
    /// what still comes from them would else be taken for a new way to us.
    pub(crate) fn candidates(&self, locals: &LocalAddresses) -> Vec<Candidate> {
        let host = |address: &SocketAddr| (CandidateKind::Host, *address, None);
        let mut all: Vec<_> = locals.as_slice().iter().map(host).collect();
        for relay in &self.relays {
            for of in [Family::V4, Family::V6] {
                let mapped = relay.mapped(of);
                all.extend(mapped.map(|mapped| (CandidateKind::ServerReflexive, mapped, locals.first(of))));
            }
        }
        // Peers should leave a stream that we are about to leave.
        for relay in self.relays.iter().filter(|relay| !relay.is_stream() || relay.retires_at().is_none()) {
            let lent = relay.lent_addresses().iter().copied();
            all.extend(lent.map(|lent| (CandidateKind::Relayed, lent, relay.mapped(family(lent)))));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for (kind, address, base) in all {
            if !candidates.iter().any(|other| other.address == address) {
                candidates.push(Candidate { kind, address, base });
            }
        }
        candidates
    }

    /// Channels held by connections.
    pub(crate) fn channels(&self) -> usize {
        self.relays.iter().map(Relay::channels).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.relays.len()
    }

    fn find(&self, key: RelayKey) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.key() == key)
    }

    fn find_mut(&mut self, key: RelayKey) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.key() == key)
    }
}

fn random_seed(random: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    random.fill_bytes(&mut seed);
    seed
}
