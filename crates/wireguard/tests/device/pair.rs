//! Two devices, their workers and the network between them, in virtual time.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_wireguard::{
    Attention, Device, DropReason, Event, ExpiryReason, HEADER, OVERHEAD, PADDING, PeerId, PresharedKey,
    PrivateKey, Received, Session, receiver_index,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

pub(crate) const UNIX: Duration = Duration::from_secs(1_790_000_000);

/// What the network does to datagrams. Probabilities in percent.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
}

impl Network {
    pub(crate) const fn perfect() -> Self {
        Self { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0, duplication: 0 }
    }
}

/// A device with the state that workers keep.
pub(crate) struct Node {
    pub(crate) device: Device,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    /// Sessions that workers were told of.
    pub(crate) sessions: HashMap<u32, Arc<Session>>,
    pub(crate) send_session: Option<Arc<Session>>,
    /// Plaintexts received, padding cut off by the length byte that `send` puts in front.
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) keepalives: usize,
    pub(crate) established: Vec<bool>,
    pub(crate) expired: Vec<ExpiryReason>,
    pub(crate) drops: Vec<DropReason>,
}

pub(crate) struct Pair {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) network: Network,
    pub(crate) nodes: [Node; 2],
    /// Datagrams under way, by arrival time and number.
    pub(crate) wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    /// Every datagram ever sent: sender and bytes.
    pub(crate) log: Vec<(Duration, usize, Vec<u8>)>,
    random: ChaCha20Rng,
    sent: u64,
}

pub(crate) fn private(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

impl Node {
    fn new(now: Instant, own: u8, other: u8, preshared: u8) -> Self {
        let mut device = Device::new(now, UNIX, private(own), [own; 32]);
        let peer = device
            .add_peer(now, private(other).public_key(), PresharedKey([preshared; 32]))
            .expect("a usable key");
        Self {
            device,
            peer,
            address: SocketAddr::new([192, 0, 2, own].into(), 51820),
            sessions: HashMap::new(),
            send_session: None,
            received: Vec::new(),
            keepalives: 0,
            established: Vec::new(),
            expired: Vec::new(),
            drops: Vec::new(),
        }
    }

    /// What a worker does with a datagram whose session it knows; the device gets the rest.
    fn receive(&mut self, now: Instant, source: SocketAddr, datagram: &mut [u8]) -> Option<Vec<u8>> {
        let session = receiver_index(datagram).and_then(|index| self.sessions.get(&index)).cloned();
        let Some(session) = session else {
            return self.receive_in_device(now, source, datagram);
        };
        match session.open_in_place(datagram) {
            Ok(range) => {
                if session.activity().record_received(now, 1, range.len() as u64) == Attention::Wanted {
                    self.device.note_activity(now, self.peer);
                }
                self.take_plaintext(&datagram[range]);
            }
            Err(reason) => self.drops.push(reason),
        }
        None
    }

    fn receive_in_device(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Vec<u8>> {
        match self.device.handle_datagram(now, source, datagram) {
            Ok(Received::Handshake { reply, .. }) => return reply,
            Ok(Received::Data { plaintext, .. }) => self.take_plaintext(&datagram[plaintext]),
            Err(reason) => self.drops.push(reason),
        }
        None
    }

    fn take_plaintext(&mut self, plaintext: &[u8]) {
        match plaintext.split_first() {
            Some((length, rest)) => self.received.push(rest[..usize::from(*length)].to_vec()),
            None => self.keepalives += 1,
        }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::SessionEstablished { session, initiator, .. } => {
                    self.established.push(initiator);
                    let before = self.sessions.insert(session.receiver_index(), session);
                    assert!(before.is_none(), "announced once");
                }
                Event::SendSessionChanged { session, .. } => {
                    assert!(self.sessions.contains_key(&session.receiver_index()), "announced before");
                    self.send_session = Some(session);
                }
                Event::SessionRemoved { receiver_index, .. } => {
                    self.sessions.remove(&receiver_index).expect("only announced sessions are removed");
                    self.send_session.take_if(|session| session.receiver_index() == receiver_index);
                }
                Event::PeerExpired { reason, .. } => self.expired.push(reason),
            }
        }
    }

    /// Seals as a worker does; `None` without a session.
    pub(crate) fn seal(&mut self, now: Instant, payload: &[u8]) -> Option<Vec<u8>> {
        let session = self.send_session.clone()?;
        let mut buffer = vec![0; payload.len() + 1 + OVERHEAD + PADDING];
        buffer[HEADER] = payload.len() as u8;
        buffer[HEADER + 1..][..payload.len()].copy_from_slice(payload);
        let length = session.seal_in_place(&mut buffer, payload.len() + 1).expect("room");
        buffer.truncate(length);
        if session.activity().record_sent(now, 1, payload.len() as u64 + 1) == Attention::Wanted {
            self.device.note_activity(now, self.peer);
        }
        Some(buffer)
    }
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(1, Network::perfect(), [1, 1])
    }

    pub(crate) fn with(seed: u8, network: Network, preshared: [u8; 2]) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            network,
            nodes: [Node::new(now, 1, 2, preshared[0]), Node::new(now, 2, 1, preshared[1])],
            wire: BTreeMap::new(),
            log: Vec::new(),
            random: ChaCha20Rng::from_seed([seed; 32]),
            sent: 0,
        }
    }

    /// A pair with one session, made by node 0.
    pub(crate) fn connected() -> Self {
        let mut pair = Self::new();
        pair.initiate(0);
        pair.run_for(Duration::from_millis(100));
        assert!(pair.nodes.iter().all(|node| node.send_session.is_some()));
        pair
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn initiate(&mut self, node: usize) {
        let peer = self.nodes[node].peer;
        self.nodes[node].device.initiate(self.now, peer);
        self.drain(node);
    }

    /// Sends data; false without a session.
    pub(crate) fn send(&mut self, node: usize, payload: &[u8]) -> bool {
        let sealed = self.nodes[node].seal(self.now, payload);
        let sent = sealed.is_some();
        if let Some(datagram) = sealed {
            self.put(node, datagram);
        }
        self.drain(node);
        sent
    }

    /// Puts a datagram of `from` on the wire.
    pub(crate) fn put(&mut self, from: usize, datagram: Vec<u8>) {
        self.log.push((self.elapsed(), from, datagram.clone()));
        let copies = 1 + u32::from(self.random.random_range(0..100) < self.network.duplication);
        for _ in 0..copies {
            if self.random.random_range(0..100) >= self.network.loss {
                let jitter = self.network.jitter.mul_f64(self.random.random_range(0.0..1.0));
                self.sent += 1;
                let key = (self.now + self.network.latency + jitter, self.sent);
                self.wire.insert(key, (1 - from, datagram.clone()));
            }
        }
    }

    /// Delivers a datagram to `to` now, as if it came from the other node.
    pub(crate) fn deliver(&mut self, to: usize, mut datagram: Vec<u8>) {
        let source = self.nodes[1 - to].address;
        let reply = self.nodes[to].receive(self.now, source, &mut datagram);
        if let Some(reply) = reply {
            self.put(to, reply);
        }
        self.drain(to);
    }

    pub(crate) fn drain(&mut self, node: usize) {
        self.nodes[node].drain_events();
        while let Some(transmit) = self.nodes[node].device.poll_transmit() {
            self.put(node, transmit.datagram);
        }
    }

    /// Lets everything happen that is due within `duration`.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|node| node.device.poll_timeout()).map(|(at, _)| at);
        timers.chain(arrival).min()
    }

    fn step(&mut self) {
        if let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, datagram) = entry.remove();
            return self.deliver(to, datagram);
        }
        for node in 0..2 {
            self.nodes[node].device.handle_timeout(self.now);
            self.drain(node);
            let next = self.nodes[node].device.poll_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now), "a timer that does not move: {next:?}");
        }
    }

    /// Times at which `node` sent messages of a type.
    pub(crate) fn sent_types(&self, node: usize, kind: u8) -> Vec<Duration> {
        self.log
            .iter()
            .filter(|(_, from, bytes)| *from == node && bytes[0] == kind)
            .map(|entry| entry.0)
            .collect()
    }

    /// Both nodes seal with the two ends of one session.
    pub(crate) fn agrees(&self) -> bool {
        let [a, b] = &self.nodes;
        match (&a.send_session, &b.send_session) {
            (Some(a), Some(b)) => {
                a.remote_index() == b.receiver_index() && b.remote_index() == a.receiver_index()
            }
            _ => false,
        }
    }
}
