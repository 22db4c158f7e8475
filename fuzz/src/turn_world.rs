//! A TURN server among clients and peers without manners.
//!
//! After every step: the tables agree with each other, data goes only to peers that are allowed and to
//! clients with an allocation, answers go to who asked, and ports and routes are taken back as often as
//! they were given. In the end, when all time is over, nothing is left.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_turn::server::{
    Client, Command, Config, Event, Forward, HEADROOM, Limits, RelayPort, Route, Server, Socket, StreamId,
    TAILROOM,
};
use adit_turn::stun::{AttributeKind, Class, Key, Message, Method, TransactionId, Writer};
use adit_turn::{channel_data, credentials};
use arbitrary::Arbitrary;

const UNIX_START: u64 = 1_800_000_000;
const CLIENTS: [(&str, Option<u32>); 5] = [
    ("8.1.1.1:4000", None),
    ("8.1.1.2:4000", None),
    ("[2606:4700::9]:4000", None),
    ("8.1.1.1:4000", Some(1)),
    ("[2002:808:808::1]:4000", None),
];
/// Those after the first five must never be sent to.
const PEERS: [&str; 10] = [
    "9.9.9.9:1",
    "9.9.9.9:2",
    "9.9.9.8:1",
    "[2606:4700::1]:1",
    "5.5.5.5:50001", // the relay's own port: only while it is lent
    "5.5.5.5:3478",
    "127.0.0.1:1",
    "[::ffff:9.9.9.9]:1",
    "[64:ff9b::7f00:1]:1",
    "169.254.169.254:80",
];

/// What an attribute of a request says.
#[derive(Arbitrary, Clone, Debug)]
pub enum Attribute {
    Lifetime(u32),
    Channel(u8),
    Peer(u8),
    RequestedFamily(u8),
    AdditionalFamily(u8),
    EvenPort(u8),
    ReservationToken,
    DontFragment,
    Transport(u8),
    Other(u16, Vec<u8>),
}

/// What is wrong with a request.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Flaw {
    None,
    Unsigned,
    WrongPassword,
    OldNonce,
    Expired,
    Flip(u16),
}

/// One thing that somebody does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    Become {
        client: u8,
        user: u8,
        sha256: bool,
    },
    Allocate {
        dual: bool,
        flaw: Flaw,
    },
    Request {
        method: u8,
        attributes: Vec<Attribute>,
        flaw: Flaw,
    },
    Repeat,
    Data {
        channel: u8,
        length: u8,
    },
    Send {
        peer: u8,
        length: u8,
        attributes: Vec<Attribute>,
    },
    FromPeer {
        port: u8,
        peer: u8,
        length: u16,
    },
    Raw(Vec<u8>),
    /// The oldest port that waits is bound, or cannot be.
    Bound(bool),
    Gone,
    Wait(u16),
    SetTime(u16),
    RotateSecret,
    Drain,
}

/// The server and all around it.
pub struct World {
    now: Instant,
    server: Server,
    secret: Vec<u8>,
    client: Client,
    user: u8,
    sha256: bool,
    nonce: Vec<u8>,
    last_request: Vec<u8>,
    next_id: u32,
    waiting: VecDeque<RelayPort>,
    open: HashSet<RelayPort>,
    routes: HashSet<Route>,
    generations: HashSet<u64>,
    allocated: HashSet<Client>,
}

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        let secret = b"secret 0".to_vec();
        let config = Config {
            public_v4: Some("5.5.5.5".parse().expect("address")),
            public_v6: Some("2606:4700::5".parse().expect("address")),
            own_addresses: Vec::new(),
            listener_port: 3478,
            ports: 50_000..=50_009,
            realm: "adit".into(),
            secret: secret.clone(),
            previous_secret: None,
            allowed_peers: Vec::new(),
            announce_routes: true,
            dont_fragment: false,
            limits: Limits {
                allocations: 6,
                allocations_per_user: 3,
                channels_per_allocation: 4,
                permissions_per_allocation: 4,
                grants_per_user: 6,
                grants: 10,
                packets_per_second: Some(50),
                bytes_per_second: Some(5000),
                unauthenticated_replies: 1000,
            },
        };
        Self {
            now,
            server: Server::new(now, Duration::from_secs(UNIX_START), config, [7; 32]),
            secret,
            client: client(0),
            user: 0,
            sha256: false,
            nonce: Vec::new(),
            last_request: Vec::new(),
            next_id: 0,
            waiting: VecDeque::new(),
            open: HashSet::new(),
            routes: HashSet::new(),
            generations: HashSet::new(),
            allocated: HashSet::new(),
        }
    }

    pub fn perform(&mut self, step: Step) {
        match step {
            Step::Become { client: number, user, sha256 } => {
                (self.client, self.user, self.sha256) = (client(number), user % 3, sha256);
                self.nonce.clear();
            }
            Step::Allocate { dual, flaw } => {
                let family = dual.then_some(Attribute::AdditionalFamily(2));
                let attributes = [Some(Attribute::Transport(17)), family].into_iter().flatten().collect();
                self.request(Method::ALLOCATE, attributes, flaw);
            }
            Step::Request { method, attributes, flaw } => {
                let method = [
                    Method::BINDING,
                    Method::ALLOCATE,
                    Method::REFRESH,
                    Method::CREATE_PERMISSION,
                    Method::CHANNEL_BIND,
                    Method(0x00a),
                ][usize::from(method) % 6];
                self.request(method, attributes, flaw);
            }
            Step::Repeat => {
                let request = self.last_request.clone();
                self.receive_from_client(&request);
            }
            Step::Data { channel, length } => {
                let length = u16::from(length);
                let mut datagram = channel_data::header(number(channel), length).to_vec();
                datagram.resize(datagram.len() + usize::from(length), 7);
                self.receive_from_client(&datagram);
            }
            Step::Send { peer: to, length, attributes } => {
                let id = self.id();
                let writer = Writer::new(Method::SEND, Class::Indication, id)
                    .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer(to))
                    .attribute(AttributeKind::DATA, &vec![7; length.into()]);
                let datagram = attributes.into_iter().take(3).fold(writer, add).finish();
                self.receive_from_client(&datagram);
            }
            Step::FromPeer { port, peer: from, length } => self.receive_from_peer(port, from, length),
            Step::Raw(bytes) => self.receive_from_client(&bytes),
            Step::Bound(bound) => self.bound(bound),
            Step::Gone => {
                self.server.handle_client_gone(self.now, self.client);
                self.drain();
                assert!(!self.allocated.contains(&self.client));
            }
            Step::Wait(seconds) => self.wait(seconds.into()),
            Step::SetTime(seconds) => {
                let unix = Duration::from_secs(UNIX_START + u64::from(seconds));
                self.server.set_unix_time(self.now, unix);
            }
            Step::RotateSecret => {
                self.secret.push(b'+');
                self.server.rotate_secret(self.now, self.secret.clone());
            }
            Step::Drain => self.server.drain(),
        }
        self.drain();
        self.check();
    }

    /// Lets all time pass.
    pub fn end(&mut self) {
        while !self.waiting.is_empty() {
            self.perform(Step::Bound(true));
        }
        self.perform(Step::Wait(7300));
        assert_eq!((self.server.allocations(), self.server.channels(), self.server.permissions()), (0, 0, 0));
        assert!(self.open.is_empty() && self.routes.is_empty() && self.allocated.is_empty());
        assert_eq!(self.server.poll_timeout(), None);
    }

    fn check(&self) {
        assert_eq!(self.server.check_consistency(), Ok(()));
        assert!(self.server.allocations() <= 6 && self.server.channels() <= 10);
        assert!(self.server.permissions() <= 10);
        assert!(self.server.poll_timeout().is_some() || self.server.allocations() == 0);
    }

    fn id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_id.to_be_bytes());
        TransactionId(id)
    }

    fn request(&mut self, method: Method, attributes: Vec<Attribute>, flaw: Flaw) {
        if self.nonce.is_empty() {
            let id = self.id();
            let writer = Writer::new(Method::ALLOCATE, Class::Request, id);
            self.receive_from_client(&writer.number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24).finish());
        }
        let id = self.id();
        let writer = Writer::new(method, Class::Request, id);
        let writer = attributes.into_iter().take(8).fold(writer, add);
        let mut request = self.sign(writer, flaw);
        if let Flaw::Flip(at) = flaw {
            let length = request.len();
            request[usize::from(at) % length] ^= 1 << (at % 8);
        }
        self.last_request = request.clone();
        self.receive_from_client(&request);
    }

    fn sign(&self, writer: Writer, flaw: Flaw) -> Vec<u8> {
        let left = if matches!(flaw, Flaw::Expired) { 0 } else { 100_000 };
        let username = credentials::username(UNIX_START + left, &format!("user-{}", self.user));
        let mut password = credentials::password(&self.secret, &username);
        let mut nonce = self.nonce.clone();
        match flaw {
            Flaw::Unsigned => return writer.finish(),
            Flaw::WrongPassword => password.push('x'),
            Flaw::OldNonce => nonce.truncate(20),
            Flaw::None | Flaw::Expired | Flaw::Flip(_) => {}
        }
        let writer = writer
            .attribute(AttributeKind::USERNAME, username.as_bytes())
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, &nonce);
        if !self.sha256 {
            return writer.integrity(&Key::long_term_md5(&username, "adit", &password)).finish();
        }
        writer
            .attribute(AttributeKind::PASSWORD_ALGORITHMS, &[0, 2, 0, 0])
            .attribute(AttributeKind::PASSWORD_ALGORITHM, &[0, 2, 0, 0])
            .integrity_sha256(&Key::long_term_sha256(&username, "adit", &password))
            .fingerprint()
            .finish()
    }

    fn receive_from_client(&mut self, datagram: &[u8]) {
        let forward = self.server.handle_client(self.now, self.client, datagram);
        if let Some(Forward { source, destination, range }) = forward {
            assert!(range.end <= datagram.len());
            assert!(self.allocated.contains(&self.client), "data of somebody without allocation");
            let Socket::Relay(port) = source else { panic!("data to a peer leaves from {source:?}") };
            assert!(self.open.contains(&port));
            let allowed = PEERS[..5].iter().any(|peer| peer.parse() == Ok(destination));
            assert!(allowed || is_global(destination), "{destination} is forbidden");
            assert!(!self.is_listener(destination));
            if destination.ip() == peer(4).ip() {
                // Only ports that are lent, which may still be about to open.
                let lent = |port: &&RelayPort| port.number == destination.port();
                assert!(self.open.iter().chain(&self.waiting).any(|port| lent(&port)));
            }
        }
        self.drain();
    }

    fn is_listener(&self, address: SocketAddr) -> bool {
        address.port() == 3478 && address.ip() == peer(4).ip()
    }

    fn receive_from_peer(&mut self, port: u8, from: u8, length: u16) {
        let mut ports: Vec<RelayPort> = self.open.iter().copied().collect();
        ports.sort();
        let Some(&port) = ports.get(usize::from(port) % ports.len().max(1)) else { return };
        let length = usize::from(length);
        let mut buffer = vec![0xee; HEADROOM + length + TAILROOM];
        let payload = HEADROOM..HEADROOM + length;
        buffer[payload.clone()].fill(0x55);
        let forward = self.server.handle_peer(self.now, port, peer(from), &mut buffer, payload);
        let Some(Forward { source, destination, range }) = forward else { return };
        let owner =
            self.allocated.iter().find(|client| client.socket() == source && client.address == destination);
        let owner = owner.expect("data for somebody with an allocation");
        let wrapped = &buffer[range];
        if matches!(owner.socket(), Socket::Stream(_)) {
            assert_eq!(wrapped.len() % 4, 0);
        }
        match channel_data::parse(wrapped) {
            Some((_, data)) => assert_eq!(wrapped[data], vec![0x55; length]),
            None => {
                let message = Message::parse(wrapped).expect("a Data indication");
                assert_eq!(message.find(AttributeKind::DATA), Some(&vec![0x55; length][..]));
                assert_eq!(message.xor_address(AttributeKind::XOR_PEER_ADDRESS), Some(peer(from)));
            }
        }
    }

    fn bound(&mut self, bound: bool) {
        let Some(port) = self.waiting.pop_front() else { return };
        if bound {
            assert!(self.open.insert(port));
        }
        self.server.handle_port_bound(self.now, port, bound);
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        // Never more often than there are deadlines.
        for _ in 0..10_000 {
            match self.server.poll_timeout().filter(|(at, _)| *at <= end) {
                Some((at, _)) => {
                    self.now = self.now.max(at);
                    self.server.handle_timeout(self.now);
                    self.drain();
                }
                None => {
                    self.now = end;
                    self.server.handle_timeout(end);
                    return;
                }
            }
        }
        panic!("the machine spins");
    }

    fn drain(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => self.answer(source, destination, &payload),
                Command::BindPort { port } => self.waiting.push_back(port),
                Command::ReleasePort { port } => {
                    let was_waiting = self.waiting.iter().position(|other| *other == port);
                    match was_waiting {
                        Some(index) => drop(self.waiting.remove(index)),
                        None => assert!(self.open.remove(&port), "{port:?} was not open"),
                    }
                }
                Command::AddRoute { route } => {
                    assert!(self.generations.insert(route.generation), "a generation twice");
                    assert!(self.open.contains(&route.port));
                    assert!(self.routes.insert(route));
                }
                Command::RemoveRoute { route } => assert!(self.routes.remove(&route)),
            }
        }
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::AllocationCreated { client, ports } => {
                    assert!(!ports.is_empty() && self.allocated.insert(client));
                }
                Event::AllocationEnded { client, .. } => assert!(self.allocated.remove(&client)),
            }
        }
    }

    fn answer(&mut self, source: Socket, destination: SocketAddr, payload: &[u8]) {
        let is_client = |number| client(number).socket() == source && client(number).address == destination;
        assert!((0..CLIENTS.len() as u8).any(is_client), "an answer to nobody");
        let message = Message::parse(payload).expect("an answer is well formed");
        assert!(matches!(message.class(), Class::Success | Class::Error));
        assert_eq!(message.class() == Class::Error, message.error_code().is_some());
        if let Some(nonce) = message.find(AttributeKind::NONCE) {
            self.nonce = nonce.to_vec();
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn add(writer: Writer, attribute: Attribute) -> Writer {
    match attribute {
        Attribute::Lifetime(seconds) => writer.number(AttributeKind::LIFETIME, seconds),
        Attribute::Channel(channel) => {
            writer.number(AttributeKind::CHANNEL_NUMBER, u32::from(number(channel)) << 16)
        }
        Attribute::Peer(number) => writer.xor_address(AttributeKind::XOR_PEER_ADDRESS, peer(number)),
        Attribute::RequestedFamily(family) => {
            writer.number(AttributeKind::REQUESTED_ADDRESS_FAMILY, u32::from(family % 4) << 24)
        }
        Attribute::AdditionalFamily(family) => {
            writer.number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, u32::from(family % 4) << 24)
        }
        Attribute::EvenPort(flags) => writer.attribute(AttributeKind::EVEN_PORT, &[flags]),
        Attribute::ReservationToken => writer.attribute(AttributeKind::RESERVATION_TOKEN, &[7; 8]),
        Attribute::DontFragment => writer.attribute(AttributeKind::DONT_FRAGMENT, &[]),
        Attribute::Transport(protocol) => {
            writer.number(AttributeKind::REQUESTED_TRANSPORT, u32::from(protocol) << 24)
        }
        Attribute::Other(kind, value) => writer.attribute(AttributeKind(kind), &value[..value.len().min(99)]),
    }
}

fn client(number: u8) -> Client {
    let (address, stream) = CLIENTS[usize::from(number) % CLIENTS.len()];
    let address = address.parse().expect("address");
    stream.map_or(Client::udp(address), |id| Client::stream(StreamId(id), address))
}

fn peer(number: u8) -> SocketAddr {
    PEERS[usize::from(number) % PEERS.len()].parse().expect("address")
}

/// Few of those that are allowed, and one on each side that is not.
fn number(channel: u8) -> u16 {
    0x3fff + u16::from(channel % 7) + if channel == 6 { 0xffb } else { 0 }
}

/// A random address from a raw attribute may be anything that is not special.
fn is_global(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(v4) => {
            let ip = v4.ip();
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified())
                && !(ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
        }
        SocketAddr::V6(v6) => v6.ip().segments()[0] & 0xe000 == 0x2000 && v6.ip().segments()[0] != 0x2002,
    }
}
