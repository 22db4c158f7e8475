//! The machine with a few clients whose channels are bound: what the program must agree with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_relay_xdp::{Engine, Route};
use adit_turn::server::{
    Client, Command, Config, Forward, HEADROOM, Limits, RelayPort, Server, Socket, TAILROOM,
};
use adit_turn::stun::{AttributeKind, Class, Key, Message, Method, TransactionId, Writer};
use adit_turn::{Family, credentials};

use crate::ground::{FIRST_PORT, LAST_PORT, LISTENER, LOCAL_V4, LOCAL_V6, address};

const SECRET: &[u8] = b"relay secret";
const UNIX_START: u64 = 1_800_000_000;

/// A datagram: from, to, contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

/// A bound channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) client: SocketAddr,
    pub(crate) number: u16,
    pub(crate) relayed: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) route: Route,
}

pub(crate) struct Relay {
    server: Server,
    now: Instant,
    answers: Vec<Vec<u8>>,
    /// Routes in the order in which they came up.
    routes: Vec<Route>,
    next_id: u32,
    /// Relayed addresses of each client.
    relayed: BTreeMap<SocketAddr, Vec<SocketAddr>>,
    pub(crate) channels: Vec<Channel>,
}

impl Relay {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let config = Config {
            public_v4: Some(LOCAL_V4),
            public_v6: Some(LOCAL_V6),
            own_addresses: Vec::new(),
            listener_port: LISTENER,
            ports: FIRST_PORT..=LAST_PORT,
            realm: "adit".into(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            announce_routes: true,
            dont_fragment: true,
            allowed_peers: [
                "198.51.100.0/24",
                "192.0.2.0/24",
                "203.0.113.0/24",
                "198.18.0.0/15",
                "2001:db8::/32",
            ]
            .map(|network| network.parse().expect("network"))
            .into(),
            limits: Limits::default(),
        };
        let server = Server::new(now, Duration::from_secs(UNIX_START), config, [7; 32]);
        Self {
            server,
            now,
            answers: Vec::new(),
            routes: Vec::new(),
            next_id: 0,
            relayed: BTreeMap::new(),
            channels: Vec::new(),
        }
    }

    /// The usual clients: one of each family, with peers of both, and a third one; the first and the third one
    /// talk to each other through the relay.
    pub(crate) fn with_clients() -> Self {
        let mut relay = Self::new();
        let clients = ["198.51.100.1:4001", "[2001:db8:c::1]:4002", "198.51.100.3:4003"].map(address);
        for client in clients {
            relay.allocate(client);
        }
        for (index, client) in clients.into_iter().enumerate() {
            let number = 0x4000 + 0x10 * index as u16;
            relay.bind(client, number, address("192.0.2.9:5000"));
            relay.bind(client, number + 1, address("[2001:db8:b::9]:5001"));
        }
        let [first, second, third] = clients.map(|client| relay.relayed[&client].clone());
        for family in 0..2 {
            relay.bind(clients[0], 0x4100 + family as u16, third[family]);
            relay.bind(clients[2], 0x4200 + family as u16, first[family]);
            relay.bind(clients[1], 0x4300 + family as u16, first[family]);
            relay.bind(clients[0], 0x4400 + family as u16, second[family]);
        }
        relay
    }

    /// Tells the program of every route.
    pub(crate) fn announce(&self, engine: &Engine) {
        for route in &self.routes {
            engine.insert(route).expect("inserts");
        }
    }

    pub(crate) fn allocate(&mut self, client: SocketAddr) -> Vec<SocketAddr> {
        let request = self
            .request(Method::ALLOCATE)
            .number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24)
            .number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, 2 << 24);
        let answer = self.ask(client, request);
        let message = Message::parse(&answer).expect("well formed");
        let relayed = message.xor_addresses(AttributeKind::XOR_RELAYED_ADDRESS);
        let relayed: Vec<SocketAddr> = relayed.collect::<Option<_>>().expect("addresses");
        self.relayed.insert(client, relayed.clone());
        relayed
    }

    pub(crate) fn bind(&mut self, client: SocketAddr, number: u16, peer: SocketAddr) -> Channel {
        let request = self
            .request(Method::CHANNEL_BIND)
            .number(AttributeKind::CHANNEL_NUMBER, u32::from(number) << 16)
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer);
        self.ask(client, request);
        let relayed = self.relayed[&client].iter().copied().find(|own| own.is_ipv4() == peer.is_ipv4());
        let route = *self.routes.last().expect("a route comes up before the answer");
        assert_eq!((route.client, route.channel, route.peer), (client, number, peer));
        let channel = Channel { client, number, relayed: relayed.expect("both families"), peer, route };
        self.channels.push(channel);
        channel
    }

    /// What the machine makes of a datagram that the sockets receive. What it sends to a relayed address of its own
    /// comes in again.
    pub(crate) fn receive(&mut self, datagram: &Datagram) -> Option<Datagram> {
        let (forward, buffer) = self.forward(datagram)?;
        let out = Datagram {
            source: socket_address(forward.source),
            destination: forward.destination,
            payload: buffer[forward.range].to_vec(),
        };
        if is_local(out.destination.ip()) { self.receive(&out) } else { Some(out) }
    }

    fn forward(&mut self, datagram: &Datagram) -> Option<(Forward, Vec<u8>)> {
        if datagram.destination.port() == LISTENER {
            let forward =
                self.server.handle_client(self.now, Client::udp(datagram.source), &datagram.payload);
            while self.server.poll_command().is_some() {}
            return Some((forward?, datagram.payload.clone()));
        }
        let port =
            RelayPort { family: Family::of(datagram.destination.ip()), number: datagram.destination.port() };
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(&datagram.payload);
        buffer.extend_from_slice(&[0; TAILROOM]);
        let range = HEADROOM..HEADROOM + datagram.payload.len();
        let forward = self.server.handle_peer(self.now, port, datagram.source, &mut buffer, range)?;
        Some((forward, buffer))
    }

    fn request(&mut self, method: Method) -> Writer {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_id.to_be_bytes());
        Writer::new(method, Class::Request, TransactionId(id))
    }

    /// Signs and sends a request; the answer is a success.
    fn ask(&mut self, client: SocketAddr, request: Writer) -> Vec<u8> {
        let challenge = self.request(Method::ALLOCATE).number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24);
        let challenge = self.exchange(client, &challenge.finish());
        let challenge = Message::parse(&challenge).expect("well formed");
        let nonce = challenge.find(AttributeKind::NONCE).expect("nonce").to_vec();
        let username = credentials::username(UNIX_START + 86_400, "alice");
        let password = credentials::password(SECRET, &username);
        let request = request
            .attribute(AttributeKind::USERNAME, username.as_bytes())
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, &nonce)
            .integrity(&Key::long_term_md5(&username, "adit", &password));
        let answer = self.exchange(client, &request.finish());
        let message = Message::parse(&answer).expect("well formed");
        assert_eq!(message.class(), Class::Success, "{:?}", message.error_code());
        answer
    }

    fn exchange(&mut self, client: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        self.server.handle_client(self.now, Client::udp(client), bytes);
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { payload, .. } => self.answers.push(payload),
                Command::BindPort { port } => self.server.handle_port_bound(self.now, port, true),
                Command::ReleasePort { .. } => panic!("nobody gave a port back"),
                Command::AddRoute { route } => {
                    assert!(self.answers.is_empty(), "a route comes up before the answer");
                    self.routes.push(named(&route));
                }
                Command::RemoveRoute { .. } => panic!("no route ended"),
            }
        }
        self.answers.pop().expect("an answer")
    }
}

/// A route of the machine, as the program is told of it.
fn named(route: &adit_turn::server::Route) -> Route {
    Route {
        name: route.generation,
        client: route.client,
        channel: route.channel,
        port: route.port.number,
        peer: route.peer,
        is_within_relay: route.is_within_relay,
    }
}

/// The relay's own address of a family.
pub(crate) fn local(is_v4: bool) -> IpAddr {
    if is_v4 { LOCAL_V4.into() } else { LOCAL_V6.into() }
}

fn is_local(ip: IpAddr) -> bool {
    ip == local(ip.is_ipv4())
}

fn socket_address(socket: Socket) -> SocketAddr {
    let (family, port) = match socket {
        Socket::Listener(family) => (family, LISTENER),
        Socket::Relay(port) => (port.family, port.number),
        Socket::Stream(_) => panic!("nobody has a connection"),
    };
    SocketAddr::new(local(family == Family::V4), port)
}
