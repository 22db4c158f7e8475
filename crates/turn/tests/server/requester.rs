//! A client that says exactly what a test wants, to a server without network.

use adit_turn::credentials;
use adit_turn::server::{Client, Command, Config, Limits, RelayPort, Route, Server, Transport};
use adit_turn::stun::{
    AttributeKind, Class, ErrorCode, IntegrityStatus, Key, Message, Method, TransactionId, Writer,
};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const SECRET: &[u8] = b"relay secret";
pub(crate) const UNIX_START: u64 = 1_800_000_000;
pub(crate) const UDP: u32 = 17 << 24;
pub(crate) const V6: u32 = 2 << 24;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub(crate) fn config() -> Config {
    Config {
        public_v4: Some("192.0.2.10".parse().expect("address")),
        public_v6: Some("2001:db8::10".parse().expect("address")),
        own_addresses: Vec::new(),
        listener_port: 3478,
        ports: 50_000..=50_999,
        realm: "adit".into(),
        secret: SECRET.to_vec(),
        previous_secret: None,
        allowed_peers: vec!["198.51.100.0/24".parse().expect("network")],
        announce_routes: false,
        dont_fragment: false,
        limits: Limits::default(),
    }
}

/// An answer, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("well formed")
    }

    /// The error code; 0 for success.
    pub(crate) fn code(&self) -> u16 {
        let message = self.message();
        match message.class() {
            Class::Success => 0,
            _ => message.error_code().map_or(999, |ErrorCode(code)| code),
        }
    }
}

/// A server and one user talking to it.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) nonce: Vec<u8>,
    /// Sign as RFC 8489 does, not as RFC 5389.
    pub(crate) sha256: bool,
    pub(crate) unbindable: Vec<u16>,
    pub(crate) bound: Vec<RelayPort>,
    pub(crate) routes: HashSet<Route>,
    next_id: u32,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let now = Instant::now();
        let username = credentials::username(UNIX_START + 86_400, "alice");
        Self {
            server: Server::new(now, Duration::from_secs(UNIX_START), config, [7; 32]),
            now,
            client: address("203.0.113.5:4000"),
            transport: Transport::Udp,
            password: credentials::password(SECRET, &username),
            username,
            nonce: Vec::new(),
            sha256: false,
            unbindable: Vec::new(),
            bound: Vec::new(),
            routes: HashSet::new(),
            next_id: 0,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client { transport: self.transport, address: self.client }
    }

    pub(crate) fn become_user(&mut self, user: &str) {
        self.username = credentials::username(UNIX_START + 86_400, user);
        self.password = credentials::password(SECRET, &self.username);
    }

    pub(crate) fn id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_id.to_be_bytes());
        TransactionId(id)
    }

    pub(crate) fn request(&mut self, method: Method) -> Writer {
        let id = self.id();
        Writer::new(method, Class::Request, id)
    }

    pub(crate) fn allocate_request(&mut self) -> Writer {
        let writer = self.request(Method::ALLOCATE);
        writer.number(AttributeKind::REQUESTED_TRANSPORT, UDP)
    }

    /// Hands in bytes and returns what comes back, binding ports on the way.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Option<Answer> {
        let forward = self.server.handle_client(self.now, self.client(), bytes);
        assert_eq!(forward, None, "a request is not data");
        self.collect()
    }

    /// Carries out commands and returns the answer among them.
    pub(crate) fn collect(&mut self) -> Option<Answer> {
        let mut answer = None;
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    assert_eq!((source, destination), (self.client().socket(), self.client));
                    assert!(answer.is_none(), "one answer per request");
                    answer = Some(Answer { bytes: payload });
                }
                Command::BindPort { port } => {
                    let free = !self.unbindable.contains(&port.number);
                    if free {
                        self.bound.push(port);
                    }
                    self.server.handle_port_bound(self.now, port, free);
                }
                Command::ReleasePort { port } => self.bound.retain(|bound| *bound != port),
                Command::AddRoute { route } => assert!(self.routes.insert(route), "{route:?}"),
                Command::RemoveRoute { route } => assert!(self.routes.remove(&route), "{route:?}"),
            }
        }
        // It walks all tables, so not with thousands of clients.
        if self.server.allocations() < 100 {
            assert_eq!(self.server.check_consistency(), Ok(()));
        }
        answer
    }

    pub(crate) fn key(&self) -> Key {
        if self.sha256 {
            Key::long_term_sha256(&self.username, "adit", &self.password)
        } else {
            Key::long_term_md5(&self.username, "adit", &self.password)
        }
    }

    pub(crate) fn sign(&self, writer: Writer) -> Vec<u8> {
        let writer = writer
            .attribute(AttributeKind::USERNAME, self.username.as_bytes())
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, &self.nonce);
        if self.sha256 {
            let algorithm = [0, 2, 0, 0];
            writer
                .attribute(AttributeKind::PASSWORD_ALGORITHMS, &algorithm)
                .attribute(AttributeKind::PASSWORD_ALGORITHM, &algorithm)
                .integrity_sha256(&self.key())
                .finish()
        } else {
            writer.integrity(&self.key()).finish()
        }
    }

    /// Signs and sends; the answer must be signed too, if it comes from behind authentication.
    pub(crate) fn ask(&mut self, writer: Writer) -> Answer {
        if self.nonce.is_empty() {
            self.learn_nonce();
        }
        let bytes = self.sign(writer);
        let answer = self.exchange(&bytes).expect("an answer");
        if ![400, 401, 438].contains(&answer.code()) {
            let message = answer.message();
            let status = if self.sha256 {
                message.check_integrity_sha256(&self.key())
            } else {
                message.check_integrity(&self.key())
            };
            assert_eq!(status, IntegrityStatus::Valid);
        }
        answer
    }

    pub(crate) fn learn_nonce(&mut self) {
        let bytes = self.allocate_request().finish();
        let answer = self.exchange(&bytes).expect("a challenge");
        assert_eq!(answer.code(), 401);
        self.nonce = answer.message().find(AttributeKind::NONCE).expect("nonce").to_vec();
    }

    /// Allocates and returns the relayed addresses.
    pub(crate) fn allocate(&mut self) -> Vec<SocketAddr> {
        let request = self.allocate_request().number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
        let answer = self.ask(request);
        assert_eq!(answer.code(), 0);
        let message = answer.message();
        let relayed = message.xor_addresses(AttributeKind::XOR_RELAYED_ADDRESS);
        relayed.collect::<Option<_>>().expect("well formed")
    }

    pub(crate) fn permit(&mut self, peer: &str) -> u16 {
        let request = self.request(Method::CREATE_PERMISSION);
        self.ask(request.xor_address(AttributeKind::XOR_PEER_ADDRESS, address(peer))).code()
    }

    pub(crate) fn bind(&mut self, number: u16, peer: &str) -> u16 {
        let request = self
            .request(Method::CHANNEL_BIND)
            .number(AttributeKind::CHANNEL_NUMBER, u32::from(number) << 16)
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, address(peer));
        self.ask(request).code()
    }

    pub(crate) fn refresh(&mut self, lifetime: u32) -> Answer {
        let request = self.request(Method::REFRESH);
        self.ask(request.number(AttributeKind::LIFETIME, lifetime))
    }
}
