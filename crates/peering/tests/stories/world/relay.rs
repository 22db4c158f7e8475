//! A relay: the real server machine with sockets of this world.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_protocol::{RelayAccess, RelayTls};
use adit_turn::server::{
    Client, Command, Config, HEADROOM, Limits, RelayPort, Server, Socket, StreamId, TAILROOM,
};
use adit_turn::{Family, credentials};

use super::{Datagram, UNIX_START};

const SECRET: &[u8] = b"the relays' secret";
const PORT: u16 = 3478;
const TLS_PORT: u16 = 443;

pub(crate) struct RelayHost {
    pub(crate) ip: IpAddr,
    /// Its address of the other family, if it has one.
    pub(crate) other: Option<IpAddr>,
    pub(crate) server: Server,
    pub(crate) alive: bool,
    /// TCP ports that it listens on: 443 speaks TLS.
    pub(crate) listens: Vec<u16>,
}

/// What a relay sends.
pub(crate) enum Sent {
    /// From, to, payload.
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    /// To a client's connection.
    Bytes(u32, Vec<u8>),
}

impl RelayHost {
    pub(crate) fn new(now: Instant, start: Instant, ip: IpAddr, other: Option<IpAddr>) -> Self {
        let unix_now = Duration::from_secs(UNIX_START) + (now - start);
        let server = Server::new(now, unix_now, config(ip, other), [5; 32]);
        Self { ip, other, server, alive: true, listens: Vec::new() }
    }

    /// Its address of one family.
    fn address(&self, is_ipv4: bool) -> Option<IpAddr> {
        [Some(self.ip), self.other].into_iter().flatten().find(|ip| ip.is_ipv4() == is_ipv4)
    }

    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        self.ip == ip || self.other == Some(ip)
    }

    /// Forgets everything, as after a crash.
    pub(crate) fn restart(&mut self, now: Instant, start: Instant) {
        let listens = std::mem::take(&mut self.listens);
        *self = Self { listens, ..Self::new(now, start, self.ip, self.other) };
    }

    pub(crate) fn access(&self, number: usize, host: usize) -> RelayAccess {
        let username = credentials::username(UNIX_START + 1_000_000, &format!("host{host}"));
        let listener = |is_ipv4| self.address(is_ipv4).map(|ip| SocketAddr::new(ip, PORT));
        let id = format!("00000000-0000-0000-0000-{number:012}");
        RelayAccess {
            id: id.parse().expect("an id"),
            ipv4: listener(true),
            ipv6: listener(false),
            tcp_port: self.listens.iter().copied().find(|port| *port != TLS_PORT),
            tls: self.listens.contains(&TLS_PORT).then(|| RelayTls {
                port: TLS_PORT,
                server_name: "relay.example".to_owned(),
                certificate_sha256: None,
            }),
            password: credentials::password(SECRET, &username),
            username,
            expires_at_ms: (UNIX_START + 1_000_000) * 1000,
        }
    }

    /// Takes a datagram and returns what the relay sends because of it.
    pub(crate) fn receive(&mut self, now: Instant, datagram: &Datagram) -> Vec<Sent> {
        if !self.alive {
            return Vec::new();
        }
        let room = [HEADROOM, TAILROOM];
        let length = datagram.payload.len();
        let mut buffer = vec![0; room[0] + length + room[1]];
        buffer[room[0]..room[0] + length].copy_from_slice(&datagram.payload);
        if datagram.to.port() == PORT {
            return self.receive_from(now, Client::udp(datagram.from), &datagram.payload);
        }
        let forward = {
            let port = RelayPort { family: Family::of(datagram.to.ip()), number: datagram.to.port() };
            let forward =
                self.server.handle_peer(now, port, datagram.from, &mut buffer, room[0]..room[0] + length);
            forward.map(|forward| (forward.source, forward.destination, buffer[forward.range].to_vec()))
        };
        self.send(now, forward)
    }

    /// Takes a message that came over a connection.
    pub(crate) fn receive_message(&mut self, now: Instant, connection: u32, message: &[u8]) -> Vec<Sent> {
        if !self.alive {
            return Vec::new();
        }
        self.receive_from(now, client_of(connection), message)
    }

    /// A connection is closed.
    pub(crate) fn hang_up(&mut self, now: Instant, connection: u32) -> Vec<Sent> {
        self.server.handle_client_gone(now, client_of(connection));
        self.send(now, None)
    }

    fn receive_from(&mut self, now: Instant, client: Client, payload: &[u8]) -> Vec<Sent> {
        let forward = self.server.handle_client(now, client, payload);
        let forward =
            forward.map(|forward| (forward.source, forward.destination, payload[forward.range].to_vec()));
        self.send(now, forward)
    }

    fn send(&mut self, now: Instant, forward: Option<(Socket, SocketAddr, Vec<u8>)>) -> Vec<Sent> {
        let mut sent: Vec<Sent> = Vec::new();
        sent.extend(forward.map(|(socket, to, payload)| self.sent(socket, to, payload)));
        self.run_commands(now, &mut sent);
        sent
    }

    fn run_commands(&mut self, now: Instant, sent: &mut Vec<Sent>) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    sent.push(self.sent(source, destination, payload));
                }
                Command::BindPort { port } => self.server.handle_port_bound(now, port, true),
                Command::ReleasePort { .. } | Command::AddRoute { .. } | Command::RemoveRoute { .. } => {}
            }
        }
        while self.server.poll_event().is_some() {}
    }

    fn sent(&self, socket: Socket, to: SocketAddr, payload: Vec<u8>) -> Sent {
        let port = match socket {
            Socket::Listener(_) => PORT,
            Socket::Relay(port) => port.number,
            Socket::Stream(id) => return Sent::Bytes(id.0, payload),
        };
        let own = self.address(to.is_ipv4()).expect("it sends to families that it has");
        Sent::Datagram(SocketAddr::new(own, port), to, payload)
    }
}

/// A client by its connection; what its address is matters to nobody.
fn client_of(connection: u32) -> Client {
    Client::stream(StreamId(connection), SocketAddr::from(([203, 0, 113, 1], 40_000)))
}

fn config(ip: IpAddr, other: Option<IpAddr>) -> Config {
    let addresses = [Some(ip), other];
    let v4 = |ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None };
    let v6 = |ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None };
    let networks = ["198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24", "2001:db8::/32"];
    Config {
        public_v4: addresses.into_iter().flatten().find_map(v4),
        public_v6: addresses.into_iter().flatten().find_map(v6),
        own_addresses: Vec::new(),
        listener_port: PORT,
        ports: 50_000..=50_999,
        realm: "adit".to_owned(),
        secret: SECRET.to_vec(),
        previous_secret: None,
        allowed_peers: networks.iter().map(|network| network.parse().expect("network")).collect(),
        announce_routes: false,
        dont_fragment: false,
        limits: Limits::default(),
    }
}
