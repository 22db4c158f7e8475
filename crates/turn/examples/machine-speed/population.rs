//! A server with many allocations, each with a channel to a peer of its own.

use adit_turn::credentials;
use adit_turn::server::{Client, Command, Config, Limits, RelayPort, Server};
use adit_turn::stun::{AttributeKind, Class, Key, Message, Method, TransactionId, Writer};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const SECRET: &[u8] = b"relay secret";
const UNIX_NOW: u64 = 1_800_000_000;
const CHANNEL: u16 = 0x4000;

/// A client, its channel, and what is at both ends of it.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) client: Client,
    pub(crate) channel: u16,
    pub(crate) port: RelayPort,
    pub(crate) peer: SocketAddr,
}

pub(crate) struct Population {
    pub(crate) now: Instant,
    pub(crate) server: Server,
    pub(crate) flows: Vec<Flow>,
    /// Memory per allocation with its user, permission and channel, both tables and timers counted.
    pub(crate) bytes_per_allocation: f64,
    /// Processor time of challenge, allocation and channel.
    pub(crate) microseconds_per_allocation: f64,
}

impl Population {
    pub(crate) fn new(size: usize) -> Self {
        let now = Instant::now();
        let limits = Limits {
            allocations: size,
            packets_per_second: Some(1 << 40),
            bytes_per_second: Some(1 << 50),
            unauthenticated_replies: 1 << 30,
            ..Limits::default()
        };
        let config = Config {
            public_v4: Some(Ipv4Addr::new(192, 0, 2, 10)),
            public_v6: None,
            own_addresses: Vec::new(),
            listener_port: 443,
            ports: 1024..=65_535,
            realm: "adit".into(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            allowed_peers: Vec::new(),
            announce_routes: false,
            dont_fragment: false,
            limits,
        };
        let mut server = Server::new(now, Duration::from_secs(UNIX_NOW), config, [7; 32]);
        let mut flows = Vec::with_capacity(size);
        let begin = crate::thread_time();
        let memory = allocation_counter::measure(|| {
            flows.extend((0..size).map(|number| allocate(&mut server, now, number)));
        });
        let microseconds = (crate::thread_time() - begin).as_secs_f64() * 1e6;
        assert_eq!((server.allocations(), server.channels()), (size, size));
        Self {
            now,
            server,
            flows,
            bytes_per_allocation: memory.bytes_current as f64 / size as f64,
            microseconds_per_allocation: microseconds / size as f64,
        }
    }
}

/// Brings a client from nothing to a channel.
fn allocate(server: &mut Server, now: Instant, number: usize) -> Flow {
    let number = u32::try_from(number).expect("few");
    let client = Client::udp(SocketAddr::from((Ipv4Addr::from(0x0b00_0000 + number), 4000)));
    let peer = SocketAddr::from((Ipv4Addr::from(0x0c00_0000 + number), 5000));
    let username = credentials::username(UNIX_NOW + 86_400, &format!("user-{number}"));
    let password = credentials::password(SECRET, &username);
    let key = Key::long_term_md5(&username, "adit", &password);
    let request = |method, step: u8| {
        let mut id = [step; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Writer::new(method, Class::Request, TransactionId(id))
    };
    let transport = |writer: Writer| writer.number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24);
    let challenge = exchange(server, now, client, &transport(request(Method::ALLOCATE, 1)).finish());
    let challenge = Message::parse(&challenge).expect("well formed");
    let nonce = challenge.find(AttributeKind::NONCE).expect("a nonce").to_vec();
    let sign = |writer: Writer| {
        let writer = writer.attribute(AttributeKind::USERNAME, username.as_bytes());
        let writer = writer.attribute(AttributeKind::REALM, b"adit").attribute(AttributeKind::NONCE, &nonce);
        writer.integrity(&key).finish()
    };
    let answer = exchange(server, now, client, &sign(transport(request(Method::ALLOCATE, 2))));
    let answer = Message::parse(&answer).expect("well formed");
    let relayed = answer.xor_address(AttributeKind::XOR_RELAYED_ADDRESS).expect("a relayed address");
    let bind = request(Method::CHANNEL_BIND, 3)
        .number(AttributeKind::CHANNEL_NUMBER, u32::from(CHANNEL) << 16)
        .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer);
    let bound = exchange(server, now, client, &sign(bind));
    assert_eq!(Message::parse(&bound).expect("well formed").class(), Class::Success);
    let port = RelayPort { family: adit_turn::Family::V4, number: relayed.port() };
    Flow { client, channel: CHANNEL, port, peer }
}

/// Hands in a request and returns the answer, binding ports on the way.
fn exchange(server: &mut Server, now: Instant, client: Client, request: &[u8]) -> Vec<u8> {
    assert_eq!(server.handle_client(now, client, request), None);
    let mut answer = None;
    while let Some(command) = server.poll_command() {
        match command {
            Command::Send { payload, .. } => answer = Some(payload),
            Command::BindPort { port } => server.handle_port_bound(now, port, true),
            Command::ReleasePort { .. } | Command::AddRoute { .. } | Command::RemoveRoute { .. } => {}
        }
    }
    while server.poll_event().is_some() {}
    answer.expect("an answer")
}
