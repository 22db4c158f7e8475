//! A world of clients, gateways, NATs and real relays in virtual time.
//!
//! Every host runs a [`Node`] and a small worker that obeys [`Forwarding`], so that packets travel
//! as they do in the programs. The portal is a delay: it introduces two hosts at the same
//! moment and passes on candidates.

mod nat;
mod relay;
mod stream;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_peering::{
    CloseReason, Config, ConnectionId, Event, Inbound, Introduction, Node, PathKind, Role, Transmit,
};
use adit_protocol::{Candidate, IceCredentials, RelayAccess};
use adit_wireguard::{PresharedKey, PrivateKey};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

pub(crate) use nat::{Nat, NatKind};
pub(crate) use relay::RelayHost;
use stream::{Connection, StreamWork};
use worker::Worker;

pub(crate) const UNIX_START: u64 = 1_800_000_000;
pub(crate) const RESET_SECRET: [u8; 32] = [77; 32];

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

/// A client or gateway.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) role: Role,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Index of the NAT in front of it.
    pub(crate) nat: Option<usize>,
    pub(crate) alive: bool,
    /// Answers every packet with the same packet.
    pub(crate) echoes: bool,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) received: Vec<(Instant, Vec<u8>)>,
    pub(crate) worker: Worker,
    key: u8,
    /// The host at the other end, for candidates that pass the portal.
    peer: Option<usize>,
    pub(crate) connection: Option<ConnectionId>,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) payload: Vec<u8>,
    /// Where it was sent inside the same LAN, if it was.
    lan: Option<usize>,
}

enum Work {
    Deliver(Datagram),
    Candidates { to: usize, added: Vec<Candidate>, removed: Vec<Candidate> },
    Stream { number: u32, what: StreamWork },
}

type Filter = Box<dyn Fn(&Datagram) -> bool>;

/// Everything.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) nats: Vec<Nat>,
    pub(crate) relays: Vec<RelayHost>,
    /// One way between any two public addresses.
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    /// Percent of datagrams that vanish, or arrive twice.
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
    /// How long the portal takes to pass candidates on; `None` while it is away.
    pub(crate) portal: Option<Duration>,
    /// Datagrams for which this says true vanish.
    pub(crate) blocked: Option<Filter>,
    /// TCP ports that no network lets through.
    pub(crate) tcp_blocked: Vec<u16>,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    /// Everything sent, if a test wants to look.
    pub(crate) log: Option<Vec<(Instant, Datagram)>>,
    queue: BTreeMap<(Instant, u64), Work>,
    sequence: u64,
    epoch: u64,
    random: ChaCha20Rng,
}

impl World {
    pub(crate) fn new(seed: u8) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            hosts: Vec::new(),
            nats: Vec::new(),
            relays: Vec::new(),
            latency: ms(20),
            jitter: Duration::ZERO,
            loss: 0,
            duplication: 0,
            portal: Some(ms(40)),
            blocked: None,
            tcp_blocked: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            log: None,
            queue: BTreeMap::new(),
            sequence: 0,
            epoch: 0,
            random: ChaCha20Rng::from_seed([seed; 32]),
        }
    }

    /// Adds a relay on a public address.
    pub(crate) fn add_relay(&mut self, ip: &str) -> usize {
        self.relays.push(RelayHost::new(self.now, self.start, ip.parse().expect("address"), None));
        self.relays.len() - 1
    }

    /// Adds a relay with an address of each family.
    pub(crate) fn add_dual_relay(&mut self, ip: &str, other: &str) -> usize {
        let [ip, other] = [ip, other].map(|ip| ip.parse().expect("address"));
        self.relays.push(RelayHost::new(self.now, self.start, ip, Some(other)));
        self.relays.len() - 1
    }

    pub(crate) fn add_nat(&mut self, kind: NatKind, public: &str) -> usize {
        self.nats.push(Nat::new(kind, public.parse().expect("address")));
        self.nats.len() - 1
    }

    /// Adds a host that knows every relay.
    pub(crate) fn add_host(&mut self, role: Role, addresses: &[&str], nat: Option<usize>) -> usize {
        let key = u8::try_from(self.hosts.len() + 1).expect("few hosts");
        let addresses: Vec<SocketAddr> = addresses.iter().map(|text| address(text)).collect();
        self.hosts.push(Host {
            node: self.new_node(role, key, 0),
            role,
            addresses,
            nat,
            alive: true,
            echoes: role == Role::Gateway,
            events: Vec::new(),
            received: Vec::new(),
            worker: Worker::default(),
            key,
            peer: None,
            connection: None,
        });
        let index = self.hosts.len() - 1;
        self.start_host(index);
        index
    }

    fn new_node(&self, role: Role, key: u8, life: u8) -> Node {
        let unix_now = Duration::from_secs(UNIX_START) + (self.now - self.start);
        let config = Config {
            role,
            private_key: PrivateKey::from_bytes([key; 32]),
            seed: [key ^ life.wrapping_mul(31) ^ 0x80; 32],
            reset_secret: (role == Role::Gateway).then_some(RESET_SECRET),
        };
        Node::new(self.now, unix_now, config)
    }

    fn start_host(&mut self, index: usize) {
        let access = self.relay_access(index);
        let now = self.now;
        let host = &mut self.hosts[index];
        host.node.set_local_addresses(now, &host.addresses.clone());
        host.node.set_relays(now, &access);
        self.drain(index);
    }

    /// Credentials of a host for all relays that are told of.
    pub(crate) fn relay_access(&self, host: usize) -> Vec<RelayAccess> {
        self.relays.iter().enumerate().map(|(number, relay)| relay.access(number, host)).collect()
    }

    /// The process dies without a word and a new one starts, with the same keys and secrets.
    pub(crate) fn restart_host(&mut self, index: usize) {
        let (role, key) = (self.hosts[index].role, self.hosts[index].key);
        let node = self.new_node(role, key, 1);
        let host = &mut self.hosts[index];
        host.node = node;
        host.alive = true;
        host.worker = Worker::default();
        host.connection = None;
        self.start_host(index);
    }

    /// The host has other addresses from now on, perhaps behind another NAT.
    pub(crate) fn move_host(&mut self, index: usize, addresses: &[&str], nat: Option<usize>) {
        let now = self.now;
        let host = &mut self.hosts[index];
        host.addresses = addresses.iter().map(|text| address(text)).collect();
        host.nat = nat;
        host.node.set_local_addresses(now, &host.addresses.clone());
        self.drain(index);
    }

    /// The portal introduces a client and a gateway to each other, at once.
    pub(crate) fn introduce(&mut self, client: usize, gateway: usize) {
        self.introduce_with_delay(client, gateway, Duration::ZERO);
    }

    /// The gateway hears of the client later than the client of it.
    pub(crate) fn introduce_with_delay(&mut self, client: usize, gateway: usize, delay: Duration) {
        self.epoch += 1;
        let candidates = [client, gateway].map(|index| self.hosts[index].node.local_candidates());
        let [of_client, of_gateway] = candidates;
        self.open(client, gateway, of_gateway);
        self.run_for(delay);
        self.open(gateway, client, of_client);
    }

    /// Opens one side only.
    pub(crate) fn open(&mut self, index: usize, peer: usize, candidates: Vec<Candidate>) {
        let credentials = |host: usize| IceCredentials {
            ufrag: format!("u{host}x{}", self.epoch),
            password: format!("a password of host {host} in epoch {}", self.epoch),
        };
        let tunnel = |host: usize| format!("fd00::{}", host + 1).parse().expect("address");
        let introduction = Introduction {
            public_key: self.hosts[peer].node.public_key(),
            preshared_key: PresharedKey([9; 32]),
            epoch: self.epoch,
            local_ice: credentials(index),
            remote_ice: credentials(peer),
            candidates,
            local_tunnel_address: tunnel(index),
            remote_tunnel_address: tunnel(peer),
        };
        let now = self.now;
        let id = self.hosts[index].node.open(now, introduction).expect("opens");
        self.hosts[index].connection = Some(id);
        self.hosts[index].peer = Some(peer);
        self.drain(index);
    }

    /// Does something with a node and sends what follows from it.
    pub(crate) fn with<R>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Node, Instant, ConnectionId) -> R,
    ) -> R {
        let now = self.now;
        let host = &mut self.hosts[index];
        let id = host.connection.expect("a connection");
        let result = act(&mut host.node, now, id);
        self.drain(index);
        result
    }

    /// Sends an application packet; false if there is no session or path yet.
    pub(crate) fn send(&mut self, index: usize, content: &[u8]) -> bool {
        let now = self.now;
        let host = &mut self.hosts[index];
        let Some(id) = host.connection else { return false };
        let packet = [&[0x45, 0, 0, 0], content].concat();
        if let Some(transmit) = host.worker.seal(now, id, &packet) {
            let attention = transmit.1;
            self.transmit(index, transmit.0);
            if attention {
                self.hosts[index].node.note_worker_event(now, id, adit_peering::WorkerEvent::Active);
                self.drain(index);
            }
            return true;
        }
        let sent = host.node.send_packet(now, id, &packet).is_ok();
        self.drain(index);
        sent
    }

    /// Sends until something of it comes back; returns when the first answer arrived.
    pub(crate) fn exchange(&mut self, index: usize, content: &[u8], limit: Duration) -> Option<Instant> {
        let before = self.hosts[index].received.len();
        let end = self.now + limit;
        while self.now < end {
            self.send(index, content);
            self.run_for(ms(10));
            if let Some((at, _)) = self.hosts[index].received.get(before) {
                return Some(*at);
            }
        }
        None
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Runs until `condition` holds; panics if it does not within `limit`.
    pub(crate) fn run_while(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while condition(self) {
            assert!(self.now < end, "it took too long");
            self.run_until((self.now + ms(1)).min(end));
        }
    }

    pub(crate) fn run_until(&mut self, end: Instant) {
        let mut standstill = 0;
        while let Some((at, reason)) = self.next_event().filter(|(at, _)| *at <= end) {
            standstill = if at > self.now { 0 } else { standstill + 1 };
            assert!(standstill < 100_000, "time stands still: {reason}");
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<(Instant, &'static str)> {
        let delivery = self.queue.keys().next().map(|(at, _)| (*at, "delivery"));
        let hosts = self.hosts.iter().filter(|host| host.alive);
        let hosts = hosts.filter_map(|host| host.node.poll_timeout());
        let relays = self.relays.iter().filter(|relay| relay.alive);
        let relays = relays.filter_map(|relay| relay.server.poll_timeout());
        delivery.into_iter().chain(hosts).chain(relays).min_by_key(|(at, _)| *at)
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Work::Deliver(datagram) => self.deliver(datagram),
                Work::Candidates { to, added, removed } => self.pass_candidates(to, &added, &removed),
                Work::Stream { number, what } => self.handle_stream_work(number, what),
            }
        }
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if host.alive && host.node.poll_timeout().is_some_and(|(at, _)| at <= now) {
                host.node.handle_timeout(now);
                self.drain(index);
            }
        }
        for relay in &mut self.relays {
            relay.server.handle_timeout(now);
        }
    }

    fn pass_candidates(&mut self, to: usize, added: &[Candidate], removed: &[Candidate]) {
        if self.hosts[to].alive && self.hosts[to].connection.is_some() {
            self.with(to, |node, now, id| {
                node.remove_remote_candidates(now, id, removed);
                node.add_remote_candidates(now, id, added);
            });
        }
    }

    /// Takes everything out of a host.
    pub(crate) fn drain(&mut self, index: usize) {
        loop {
            let host = &mut self.hosts[index];
            while let Some(forwarding) = host.node.poll_forwarding() {
                host.worker.apply(forwarding);
            }
            if let Some(transmit) = host.node.poll_transmit() {
                self.transmit(index, transmit);
            } else if let Some(event) = host.node.poll_event() {
                self.note_event(index, event);
            } else if let Some(wanted) = host.node.poll_streams() {
                self.want_streams(index, &wanted);
            } else {
                return;
            }
        }
    }

    fn note_event(&mut self, index: usize, event: Event) {
        let host = &mut self.hosts[index];
        if let (Event::LocalCandidates { added, removed }, Some(to)) = (&event, host.peer)
            && let Some(delay) = self.portal
        {
            let work = Work::Candidates { to, added: added.clone(), removed: removed.clone() };
            self.sequence += 1;
            self.queue.insert((self.now + delay, self.sequence), work);
        }
        if let Event::Closed { id, .. } = event
            && host.connection == Some(id)
        {
            host.connection = None;
        }
        host.events.push((self.now, event));
    }

    fn transmit(&mut self, index: usize, transmit: Transmit) {
        if let Some(id) = transmit.stream {
            return self.write_stream(index, id, transmit.payload);
        }
        let host = &self.hosts[index];
        let same_family = |address: &&SocketAddr| address.is_ipv4() == transmit.destination.is_ipv4();
        let source = if transmit.source.ip().is_unspecified() {
            host.addresses.iter().find(same_family).copied()
        } else {
            host.addresses.iter().find(|address| **address == transmit.source).copied()
        };
        let Some(source) = source.filter(|_| host.alive) else { return };
        self.route(source, host.nat, transmit.destination, transmit.payload);
    }

    /// Puts a datagram on the wire, through the NAT in front of its source.
    fn route(&mut self, from: SocketAddr, nat: Option<usize>, to: SocketAddr, payload: Vec<u8>) {
        let datagram = match nat {
            Some(lan) if is_private(to.ip()) => Datagram { from, to, payload, lan: Some(lan) },
            Some(index) => {
                let from = self.nats[index].outbound(from, to);
                Datagram { from, to, payload, lan: None }
            }
            None => Datagram { from, to, payload, lan: None },
        };
        self.enqueue(datagram);
    }

    fn enqueue(&mut self, datagram: Datagram) {
        if let Some(log) = &mut self.log {
            log.push((self.now, datagram.clone()));
        }
        if self.blocked.as_ref().is_some_and(|blocked| blocked(&datagram))
            || self.random.random_range(0..100) < self.loss
        {
            return;
        }
        let copies = if self.random.random_range(0..100) < self.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let base = if datagram.lan.is_some() { ms(1) } else { self.latency };
            let jitter = self.jitter.mul_f64(self.random.random_range(0.0..1.0));
            self.sequence += 1;
            self.queue.insert((self.now + base + jitter, self.sequence), Work::Deliver(datagram.clone()));
        }
    }

    /// Puts a datagram of the test's own making on the wire, as an attacker could.
    pub(crate) fn inject(&mut self, from: &str, to: SocketAddr, payload: Vec<u8>) {
        self.enqueue(Datagram { from: address(from), to, payload, lan: None });
    }

    fn deliver(&mut self, datagram: Datagram) {
        if let Some(relay) = self.relays.iter().position(|relay| relay.is_at(datagram.to.ip())) {
            let sent = self.relays[relay].receive(self.now, &datagram);
            return self.deliver_sent(sent);
        }
        let Datagram { from, to, payload, lan } = datagram;
        let (to, nat) = match (lan, self.nats.iter().position(|nat| nat.public == to.ip())) {
            (Some(lan), _) => (to, Some(lan)),
            (None, Some(nat)) => match self.nats[nat].inbound(from, to) {
                Some(inside) => (inside, Some(nat)),
                None => return,
            },
            (None, None) => (to, None),
        };
        let receiver = self.hosts.iter().position(|host| host.nat == nat && host.addresses.contains(&to));
        if let Some(index) = receiver.filter(|index| self.hosts[*index].alive) {
            self.receive(index, to, from, payload);
        }
    }

    fn receive(&mut self, index: usize, local: SocketAddr, from: SocketAddr, mut payload: Vec<u8>) {
        let now = self.now;
        let host = &mut self.hosts[index];
        let packet = match host.worker.open(now, &mut host.node, local, from, &mut payload) {
            Some(packet) => packet,
            None => match host.node.handle_datagram(now, local, from, &mut payload) {
                Ok(Inbound::Packet { range, .. }) => Some(payload[range].to_vec()),
                Ok(Inbound::Consumed) | Err(_) => None,
            },
        };
        self.take_packet(index, packet);
    }

    /// A host has opened what came in.
    fn take_packet(&mut self, index: usize, packet: Option<Vec<u8>>) {
        let now = self.now;
        self.drain(index);
        let Some(packet) = packet else { return };
        let content = packet[4..].to_vec();
        self.hosts[index].received.push((now, content.clone()));
        if self.hosts[index].echoes {
            self.send(index, &content);
        }
    }

    /// How the last connection of a host ended.
    pub(crate) fn closed(&self, index: usize) -> Option<(Instant, CloseReason)> {
        self.hosts[index].events.iter().rev().find_map(|(at, event)| match event {
            Event::Closed { reason, .. } => Some((*at, *reason)),
            _ => None,
        })
    }

    /// When a host was first connected.
    pub(crate) fn connected_at(&self, index: usize) -> Option<Instant> {
        let connected = |event: &Event| matches!(event, Event::Connected { .. });
        self.hosts[index].events.iter().find(|(_, event)| connected(event)).map(|(at, _)| *at)
    }

    /// The kind of path a host uses now.
    pub(crate) fn path(&self, index: usize) -> Option<PathKind> {
        let host = &self.hosts[index];
        host.node.path(host.connection?).map(|path| path.kind)
    }

    pub(crate) fn is_direct(&self, index: usize) -> bool {
        self.path(index) == Some(PathKind::Direct)
    }

    /// Asserts that a host keeps nothing of any connection.
    pub(crate) fn assert_nothing_left(&self, index: usize) {
        let statistics = self.hosts[index].node.statistics();
        let left = (
            statistics.connections,
            statistics.sessions,
            statistics.channels,
            statistics.timers,
            statistics.transactions,
        );
        assert_eq!(left, (0, 0, 0, 0, 0), "host {index} keeps something");
        assert!(self.hosts[index].worker.is_empty(), "the worker of host {index} keeps something");
        let reason = self.hosts[index].node.poll_timeout().map(|(_, reason)| reason);
        assert!(reason.is_none_or(|reason| reason.starts_with("turn client")), "{reason:?}");
    }
}

pub(crate) fn is_private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_private())
}
