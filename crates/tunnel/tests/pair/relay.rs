//! The relay: the real server machine between sockets that the world provides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_policy::RelayId;
use adit_protocol::RelayAccess;
use adit_turn::server::{Client, Command, Config, HEADROOM, Limits, RelayPort, Server, Socket, TAILROOM};
use adit_turn::{Family, credentials};
use uuid::Uuid;

const SECRET: &[u8] = b"relay secret";
const LISTENER: u16 = 3478;

pub(crate) struct Relay {
    pub(crate) server: Server,
    address: IpAddr,
    bound: BTreeSet<u16>,
}

impl Relay {
    pub(crate) fn new(now: Instant, unix_now: Duration) -> Self {
        let address = [192, 0, 2, 10];
        let config = Config {
            public_v4: Some(address.into()),
            public_v6: None,
            own_addresses: Vec::new(),
            listener_port: LISTENER,
            ports: 50_000..=50_999,
            realm: "adit".into(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            allowed_peers: vec![
                "198.51.100.0/24".parse().expect("network"),
                "203.0.113.0/24".parse().expect("network"),
            ],
            announce_routes: false,
            dont_fragment: false,
            limits: Limits::default(),
        };
        Self {
            server: Server::new(now, unix_now, config, [77; 32]),
            address: address.into(),
            bound: BTreeSet::new(),
        }
    }

    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn access(&self, user: &str, unix_now: Duration) -> RelayAccess {
        let expires = unix_now.as_secs() + 86_400;
        let username = credentials::username(expires, user);
        RelayAccess {
            id: RelayId::from_uuid(Uuid::from_u128(0xabc)),
            ipv4: Some(SocketAddr::new(self.address, LISTENER)),
            ipv6: None,
            tcp_port: None,
            tls: None,
            password: credentials::password(SECRET, &username),
            username,
            expires_at_ms: expires * 1000,
        }
    }

    /// Takes a datagram; returns what to send, as (from, to, payload).
    pub(crate) fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(payload);
        buffer.resize(HEADROOM + payload.len() + TAILROOM, 0);
        let end = HEADROOM + payload.len();
        let forward = if to.port() == LISTENER {
            self.server.handle_client(now, Client::udp(from), payload).map(|forward| {
                let bytes = payload[forward.range.clone()].to_vec();
                (forward, bytes)
            })
        } else if self.bound.contains(&to.port()) {
            let port = RelayPort { family: Family::V4, number: to.port() };
            self.server.handle_peer(now, port, from, &mut buffer, HEADROOM..end).map(|forward| {
                let bytes = buffer[forward.range.clone()].to_vec();
                (forward, bytes)
            })
        } else {
            None
        };
        let forward =
            forward.map(|(forward, bytes)| (self.socket(forward.source), forward.destination, bytes));
        let mut out: Vec<_> = forward.into_iter().collect();
        out.extend(self.commands(now));
        out
    }

    fn socket(&self, socket: Socket) -> SocketAddr {
        match socket {
            Socket::Listener(_) => SocketAddr::new(self.address, LISTENER),
            Socket::Relay(port) => SocketAddr::new(self.address, port.number),
            Socket::Stream(_) => unreachable!("nobody connects here"),
        }
    }

    pub(crate) fn commands(&mut self, now: Instant) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    out.push((self.socket(source), destination, payload));
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

/// Names and their addresses, as the resolver beside the gateways knows them.
pub(crate) type Zone = BTreeMap<String, Vec<IpAddr>>;
