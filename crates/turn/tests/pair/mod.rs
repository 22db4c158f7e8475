//! A world of clients, peers and one server in virtual time, with an imperfect network.

use adit_turn::client::{self, Client, Handled};
use adit_turn::server::{self, Command, HEADROOM, RelayPort, Server, Socket, TAILROOM};
use adit_turn::{Family, Transmit, credentials};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const SECRET: &[u8] = b"relay secret";
pub(crate) const UNIX_START: u64 = 1_800_000_000;
pub(crate) const SERVER_V4: &str = "192.0.2.10:3478";
pub(crate) const SERVER_V6: &str = "[2001:db8::10]:3478";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Credentials for a user until `lifetime` seconds after the start.
pub(crate) fn credentials_for(user: &str, lifetime: u64) -> (String, String) {
    let username = credentials::username(UNIX_START + lifetime, user);
    let password = credentials::password(SECRET, &username);
    (username, password)
}

/// Dual stack, every peer allowed that is in a documentation network.
pub(crate) fn server_config() -> server::Config {
    server::Config {
        public_v4: Some("192.0.2.10".parse().expect("address")),
        public_v6: Some("2001:db8::10".parse().expect("address")),
        own_addresses: Vec::new(),
        listener_port: 3478,
        ports: 50_000..=50_999,
        realm: "adit".into(),
        secret: SECRET.to_vec(),
        previous_secret: None,
        allowed_peers: ["198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48"]
            .iter()
            .map(|network| network.parse().expect("network"))
            .collect(),
        announce_routes: false,
        dont_fragment: false,
        limits: server::Limits::default(),
    }
}

pub(crate) struct Node {
    pub(crate) client: Client,
    /// Its own addresses, IPv4 and IPv6.
    pub(crate) locals: [SocketAddr; 2],
    pub(crate) events: Vec<(Instant, client::Event)>,
    pub(crate) received: Vec<(SocketAddr, Vec<u8>)>,
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) server: Server,
    pub(crate) server_events: Vec<server::Event>,
    pub(crate) nodes: Vec<Node>,
    /// What arrived at addresses that belong to nobody else: the peers.
    pub(crate) peers: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Ports the server has open.
    pub(crate) bound: BTreeSet<RelayPort>,
    /// Ports that something else holds.
    pub(crate) occupied: BTreeSet<u16>,
    /// Local addresses that the world sees as another address.
    pub(crate) nat: BTreeMap<SocketAddr, SocketAddr>,
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
    /// Percent.
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
    /// Addresses that answer nothing.
    pub(crate) dead: BTreeSet<SocketAddr>,
    queue: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    random: ChaCha20Rng,
}

impl World {
    pub(crate) fn new(seed: u8) -> Self {
        Self::with_config(seed, server_config())
    }

    pub(crate) fn with_config(seed: u8, config: server::Config) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            server: Server::new(now, seconds(UNIX_START), config, [seed; 32]),
            server_events: Vec::new(),
            nodes: Vec::new(),
            peers: Vec::new(),
            bound: BTreeSet::new(),
            occupied: BTreeSet::new(),
            nat: BTreeMap::new(),
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0,
            duplication: 0,
            dead: BTreeSet::new(),
            queue: BTreeMap::new(),
            sent: 0,
            random: ChaCha20Rng::from_seed([seed ^ 0x55; 32]),
        }
    }

    /// Replaces the server by one that remembers nothing.
    pub(crate) fn restart_server(&mut self, config: server::Config) {
        let unix = seconds(UNIX_START) + (self.now - self.start);
        self.server = Server::new(self.now, unix, config, [99; 32]);
        self.bound.clear();
    }

    pub(crate) fn add_client(&mut self, user: &str, lifetime: u64) -> usize {
        self.add_client_with(user, lifetime, Some(SERVER_V4), Some(SERVER_V6))
    }

    pub(crate) fn add_client_with(
        &mut self,
        user: &str,
        lifetime: u64,
        server_v4: Option<&str>,
        server_v6: Option<&str>,
    ) -> usize {
        let index = self.nodes.len();
        let (username, password) = credentials_for(user, lifetime);
        let config = client::Config {
            transport: client::Transport::Udp,
            server_v4: server_v4.map(address),
            server_v6: server_v6.map(address),
            username,
            password,
            software: "test".into(),
        };
        let seed = [100 + index as u8; 32];
        self.nodes.push(Node {
            client: Client::new(self.now, config, seed),
            locals: [
                SocketAddr::new([203, 0, 113, 1 + index as u8].into(), 4000),
                SocketAddr::new([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1 + index as u16].into(), 4000),
            ],
            events: Vec::new(),
            received: Vec::new(),
        });
        self.drain();
        index
    }

    /// Acts on a client and delivers what that sets in motion.
    pub(crate) fn with<T>(&mut self, node: usize, act: impl FnOnce(&mut Client, Instant) -> T) -> T {
        let result = act(&mut self.nodes[node].client, self.now);
        self.drain();
        result
    }

    /// Sends data through the relay; false if the client refuses.
    pub(crate) fn send(&mut self, node: usize, peer: SocketAddr, data: &[u8]) -> bool {
        let now = self.now;
        let transmit = self.nodes[node].client.send(now, peer, data);
        let sent = transmit.is_some();
        if let Some(transmit) = transmit {
            self.transmit(node, transmit);
        }
        sent
    }

    /// Puts a datagram on the wire.
    pub(crate) fn inject(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let copies = if self.chance(self.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(self.loss) {
                continue;
            }
            let jitter = self.random.random_range(0..=self.jitter.as_micros() as u64);
            let at = self.now + self.latency + Duration::from_micros(jitter);
            self.sent += 1;
            let payload = payload.clone();
            self.queue.insert((at, self.sent), Datagram { from, to, payload });
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut steps = 0;
        self.drain();
        while let Some(next) = self.next_moment().filter(|&next| next <= end) {
            steps += 1;
            assert!(steps < 2_000_000, "the world spins");
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until a client has its allocation; panics after 20 s.
    pub(crate) fn run_until_allocated(&mut self, node: usize) {
        for _ in 0..2000 {
            if self.nodes[node].client.relayed_addresses().next().is_some() {
                return;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("no allocation: {:?}", self.nodes[node].events);
    }

    pub(crate) fn relayed(&self, node: usize, family: Family) -> SocketAddr {
        let of_family = |address: &SocketAddr| Family::of(address.ip()) == family;
        let mut relayed = self.nodes[node].client.relayed_addresses();
        relayed.find(of_family).expect("relayed address")
    }

    pub(crate) fn events(&self, node: usize) -> impl Iterator<Item = &client::Event> {
        self.nodes[node].events.iter().map(|(_, event)| event)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn next_moment(&self) -> Option<Instant> {
        let queue = self.queue.keys().next().map(|(at, _)| *at);
        let server = self.server.poll_timeout().map(|(at, _)| at);
        let clients = self.nodes.iter().filter_map(|node| node.client.poll_timeout());
        queue.into_iter().chain(server).chain(clients.map(|(at, _)| at)).min()
    }

    fn step(&mut self) {
        while let Some((&key, _)) = self.queue.iter().next().filter(|((at, _), _)| *at <= self.now) {
            let datagram = self.queue.remove(&key).expect("just seen");
            self.deliver(datagram);
            self.drain();
        }
        self.server.handle_timeout(self.now);
        for node in &mut self.nodes {
            node.client.handle_timeout(self.now);
        }
        self.drain();
    }

    fn deliver(&mut self, Datagram { from, to, payload }: Datagram) {
        if self.dead.contains(&to) {
            return;
        }
        if to == address(SERVER_V4) || to == address(SERVER_V6) {
            let forward = self.server.handle_client(self.now, server::Client::udp(from), &payload);
            if let Some(forward) = forward {
                let source = self.socket_address(forward.source);
                self.inject(source, forward.destination, payload[forward.range].to_vec());
            }
            return;
        }
        let number = to.port();
        if to.ip() == address(SERVER_V4).ip() || to.ip() == address(SERVER_V6).ip() {
            let port = RelayPort { family: Family::of(to.ip()), number };
            return self.deliver_to_relay(port, from, &payload);
        }
        let local = self.nat.iter().find(|(_, public)| **public == to).map(|(local, _)| *local);
        let local = local.unwrap_or(to);
        let is_local = |node: &&mut Node| node.locals.contains(&local);
        match self.nodes.iter_mut().find(is_local) {
            Some(node) => {
                if let Handled::Data { peer, payload: range } =
                    node.client.handle_datagram(self.now, from, &payload)
                {
                    node.received.push((peer, payload[range].to_vec()));
                }
            }
            None => self.peers.push((from, to, payload)),
        }
    }

    fn deliver_to_relay(&mut self, port: RelayPort, from: SocketAddr, payload: &[u8]) {
        if !self.bound.contains(&port) {
            return;
        }
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(payload);
        buffer.extend([0; TAILROOM]);
        let range = HEADROOM..HEADROOM + payload.len();
        if let Some(forward) = self.server.handle_peer(self.now, port, from, &mut buffer, range) {
            let source = self.socket_address(forward.source);
            self.inject(source, forward.destination, buffer[forward.range].to_vec());
        }
    }

    fn drain(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    self.inject(self.socket_address(source), destination, payload);
                }
                Command::BindPort { port } => {
                    let free = !self.occupied.contains(&port.number);
                    if free {
                        self.bound.insert(port);
                    }
                    self.server.handle_port_bound(self.now, port, free);
                }
                Command::ReleasePort { port } => assert!(self.bound.remove(&port), "{port:?}"),
                Command::AddRoute { .. } | Command::RemoveRoute { .. } => {}
            }
        }
        self.server_events.extend(std::iter::from_fn(|| self.server.poll_event()));
        for index in 0..self.nodes.len() {
            while let Some(transmit) = self.nodes[index].client.poll_transmit() {
                self.transmit(index, transmit);
            }
            let (now, node) = (self.now, &mut self.nodes[index]);
            node.events.extend(std::iter::from_fn(|| node.client.poll_event()).map(|event| (now, event)));
        }
    }

    fn transmit(&mut self, node: usize, Transmit { destination, payload }: Transmit) {
        let [v4, v6] = self.nodes[node].locals;
        let local = if destination.is_ipv4() { v4 } else { v6 };
        let from = self.nat.get(&local).copied().unwrap_or(local);
        self.inject(from, destination, payload);
    }

    fn socket_address(&self, socket: Socket) -> SocketAddr {
        let (family, port) = match socket {
            Socket::Listener(family) => (family, 3478),
            Socket::Relay(RelayPort { family, number }) => (family, number),
            Socket::Stream(_) => unreachable!("nobody connects here"),
        };
        let ip = match family {
            Family::V4 => address(SERVER_V4).ip(),
            Family::V6 => address(SERVER_V6).ip(),
        };
        SocketAddr::new(ip, port)
    }
}
