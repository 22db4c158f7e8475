//! A relay: the real server machine between sockets that the world provides.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_policy::RelayId;
use adit_protocol::{RelayAccess, RelayTls};
use adit_turn::server::{
    Client, Command, Config, HEADROOM, Limits, RelayPort, Server, Socket, StreamId, TAILROOM,
};
use adit_turn::{Family, credentials};
use uuid::Uuid;

const SECRET: &[u8] = b"relay secret";
const LISTENER: u16 = 3478;

/// Where it listens for TLS and for TCP.
pub(crate) const STREAM_LISTENERS: [u16; 2] = [443, 3478];

/// Something to send.
#[derive(Debug)]
pub(crate) enum Sent {
    /// From, to, payload.
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    /// Messages for a client's connection.
    Bytes(u32, Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Relay {
    number: usize,
    pub(crate) server: Server,
    address: IpAddr,
    bound: BTreeSet<u16>,
    pub(crate) is_up: bool,
}

impl Relay {
    pub(crate) fn new(now: Instant, unix_now: Duration, number: usize, seed: u8) -> Self {
        let address = IpAddr::from([192, 0, 2, 10 + u8::try_from(number).expect("few relays")]);
        let config = Config {
            public_v4: Some(match address {
                IpAddr::V4(v4) => v4,
                IpAddr::V6(_) => unreachable!("relays have IPv4 addresses here"),
            }),
            public_v6: None,
            own_addresses: Vec::new(),
            listener_port: LISTENER,
            ports: 50_000..=50_999,
            realm: "adit".into(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            allowed_peers: ["198.51.100.0/24", "192.0.2.0/24"]
                .map(|net| net.parse().expect("network"))
                .into(),
            announce_routes: false,
            dont_fragment: false,
            limits: Limits::default(),
        };
        let server = Server::new(now, unix_now, config, [seed; 32]);
        Self { number, server, address, bound: BTreeSet::new(), is_up: true }
    }

    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn access(&self, user: &str, unix_now: Duration) -> RelayAccess {
        let expires = unix_now.as_secs() + 86_400;
        let username = credentials::username(expires, user);
        RelayAccess {
            id: RelayId::from_uuid(Uuid::from_u128(0xabc0 + self.number as u128)),
            ipv4: Some(SocketAddr::new(self.address, LISTENER)),
            ipv6: None,
            tcp_port: Some(STREAM_LISTENERS[1]),
            tls: Some(RelayTls {
                port: STREAM_LISTENERS[0],
                server_name: "relay.example".to_owned(),
                certificate_sha256: None,
            }),
            password: credentials::password(SECRET, &username),
            username,
            expires_at_ms: expires * 1000,
        }
    }

    /// Takes a datagram; returns what to send.
    pub(crate) fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Vec<Sent> {
        if to.port() == LISTENER {
            return self.client(now, Client::udp(from), payload);
        }
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(payload);
        let end = buffer.len();
        buffer.resize(end + TAILROOM, 0);
        let forward = if self.bound.contains(&to.port()) {
            let port = RelayPort { family: Family::V4, number: to.port() };
            self.server.handle_peer(now, port, from, &mut buffer, HEADROOM..end).map(|forward| {
                let bytes = buffer[forward.range.clone()].to_vec();
                (forward, bytes)
            })
        } else {
            None
        };
        let mut out: Vec<_> = forward
            .map(|(forward, bytes)| self.sent(forward.source, forward.destination, bytes))
            .into_iter()
            .collect();
        out.extend(self.commands(now));
        out
    }

    /// Takes a message that came over a connection.
    pub(crate) fn message(&mut self, now: Instant, connection: u32, message: &[u8]) -> Vec<Sent> {
        self.client(now, client_of(connection), message)
    }

    /// A connection is gone.
    pub(crate) fn hang_up(&mut self, now: Instant, connection: u32) -> Vec<Sent> {
        self.server.handle_client_gone(now, client_of(connection));
        self.commands(now)
    }

    fn client(&mut self, now: Instant, client: Client, payload: &[u8]) -> Vec<Sent> {
        let forward = self.server.handle_client(now, client, payload);
        let mut out: Vec<_> = forward
            .map(|forward| self.sent(forward.source, forward.destination, payload[forward.range].to_vec()))
            .into_iter()
            .collect();
        out.extend(self.commands(now));
        out
    }

    fn sent(&self, socket: Socket, to: SocketAddr, payload: Vec<u8>) -> Sent {
        let port = match socket {
            Socket::Listener(_) => LISTENER,
            Socket::Relay(port) => port.number,
            Socket::Stream(id) => return Sent::Bytes(id.0, payload),
        };
        Sent::Datagram(SocketAddr::new(self.address, port), to, payload)
    }

    pub(crate) fn commands(&mut self, now: Instant) -> Vec<Sent> {
        let mut out = Vec::new();
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    out.push(self.sent(source, destination, payload));
                }
                Command::BindPort { port } => {
                    self.bound.insert(port.number);
                    self.server.handle_port_bound(now, port, true);
                }
                Command::ReleasePort { port } => {
                    self.bound.remove(&port.number);
                }
                Command::AddRoute { .. } | Command::RemoveRoute { .. } => {}
            }
        }
        while self.server.poll_event().is_some() {}
        out
    }
}

/// A client by its connection; what its address is matters to nobody.
fn client_of(connection: u32) -> Client {
    Client::stream(StreamId(connection), SocketAddr::from(([203, 0, 113, 1], 40_000)))
}
