//! The client machine over a connection, against the server machine: bytes in order, framing between them.

use adit_turn::client::{self, Client, Event, FailureReason, Handled, Transport};
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use adit_turn::server::{self, Command, EndReason, HEADROOM, RelayPort, Server, Socket, StreamId, TAILROOM};
use adit_turn::{Family, credentials};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SECRET: &[u8] = b"relay secret";
const UNIX_START: u64 = 1_800_000_000;
const SERVER: &str = "192.0.2.10:443";
const CLIENT: &str = "203.0.113.1:50123";
const PEER: &str = "198.51.100.7:7000";
const LATENCY: Duration = Duration::from_millis(20);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

/// One direction of a connection: bytes on their way, and what cuts them into messages at the end.
struct Pipe {
    bytes: VecDeque<(Instant, Vec<u8>)>,
    splitter: Splitter,
}

impl Pipe {
    fn new() -> Self {
        Self { bytes: VecDeque::new(), splitter: Splitter::new(LONGEST_MESSAGE) }
    }

    /// The messages that are whole at `now`. Bytes arrive one by one, as far as the splitter is concerned.
    fn arrived(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while self.bytes.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.bytes.pop_front().expect("just seen");
            for byte in bytes {
                self.splitter.space()[0] = byte;
                self.splitter.filled(1);
                while let Some(message) = self.splitter.next_message().expect("well framed") {
                    messages.push(message.to_vec());
                }
            }
        }
        messages
    }
}

struct World {
    now: Instant,
    server: Server,
    client: Client,
    connection: u32,
    /// To the server, to the client.
    pipes: [Pipe; 2],
    /// Whatever is sent vanishes, and nobody says so.
    is_stalled: bool,
    sent: usize,
    events: Vec<Event>,
    ended: Vec<EndReason>,
    received: Vec<(SocketAddr, Vec<u8>)>,
    /// What peers got from which port.
    peers: Vec<(u16, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let server_config = server::Config {
            public_v4: Some("192.0.2.10".parse().expect("address")),
            public_v6: None,
            own_addresses: Vec::new(),
            listener_port: 3478,
            ports: 50_000..=50_999,
            realm: "adit".into(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            allowed_peers: vec!["198.51.100.0/24".parse().expect("network")],
            announce_routes: false,
            dont_fragment: false,
            limits: server::Limits::default(),
        };
        let username = credentials::username(UNIX_START + 86_400, "alice");
        let config = client::Config {
            transport: Transport::Stream,
            server_v4: Some(address(SERVER)),
            server_v6: None,
            password: credentials::password(SECRET, &username),
            username,
            software: String::new(),
        };
        Self {
            now,
            server: Server::new(now, Duration::from_secs(UNIX_START), server_config, [1; 32]),
            client: Client::new(now, config, [2; 32]),
            connection: 1,
            pipes: [Pipe::new(), Pipe::new()],
            is_stalled: false,
            sent: 0,
            events: Vec::new(),
            ended: Vec::new(),
            received: Vec::new(),
            peers: Vec::new(),
        }
    }

    fn identity(&self) -> server::Client {
        server::Client::stream(StreamId(self.connection), address(CLIENT))
    }

    fn connect(&mut self) {
        self.client.handle_connected(self.now);
        self.drain();
    }

    /// The connection breaks and both ends notice.
    fn disconnect(&mut self) {
        self.server.handle_client_gone(self.now, self.identity());
        self.client.handle_disconnected();
        self.pipes = [Pipe::new(), Pipe::new()];
        self.connection += 1;
        self.is_stalled = false;
        self.drain();
    }

    fn push(&mut self, pipe: usize, bytes: Vec<u8>) {
        assert!(bytes.len().is_multiple_of(4), "RFC 8656, section 12.5: {}", bytes.len());
        if !self.is_stalled {
            self.pipes[pipe].bytes.push_back((self.now + LATENCY, bytes));
        }
    }

    fn send(&mut self, data: &[u8]) -> bool {
        let transmit = self.client.send(self.now, address(PEER), data);
        transmit.map(|transmit| self.push(0, transmit.payload)).is_some()
    }

    /// The peer sends to the address that the client was lent.
    fn answer(&mut self, data: &[u8]) {
        let relayed = self.client.relayed_addresses().next().expect("an allocation");
        let port = RelayPort { family: Family::V4, number: relayed.port() };
        let mut buffer = [&[0; HEADROOM][..], data, &[0; TAILROOM]].concat();
        let range = HEADROOM..HEADROOM + data.len();
        let forward = self.server.handle_peer(self.now, port, address(PEER), &mut buffer, range);
        let forward = forward.expect("permitted");
        assert_eq!(forward.source, Socket::Stream(StreamId(self.connection)));
        self.push(1, buffer[forward.range].to_vec());
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit() {
            assert_eq!(transmit.destination, address(SERVER));
            self.sent += 1;
            self.push(0, transmit.payload);
        }
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, payload, .. }
                    if source == Socket::Stream(StreamId(self.connection)) =>
                {
                    self.push(1, payload);
                }
                Command::BindPort { port } => self.server.handle_port_bound(self.now, port, true),
                _ => {}
            }
        }
        while let Some(event) = self.server.poll_event() {
            if let server::Event::AllocationEnded { reason, .. } = event {
                self.ended.push(reason);
            }
        }
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    fn step(&mut self) {
        for message in self.pipes[0].arrived(self.now) {
            if let Some(forward) = self.server.handle_client(self.now, self.identity(), &message) {
                let Socket::Relay(port) = forward.source else { panic!("{forward:?}") };
                self.peers.push((port.number, message[forward.range].to_vec()));
            }
            self.drain();
        }
        for message in self.pipes[1].arrived(self.now) {
            match self.client.handle_datagram(self.now, address(SERVER), &message) {
                Handled::Data { peer, payload } => self.received.push((peer, message[payload].to_vec())),
                Handled::Consumed => {}
                Handled::NotMine => panic!("from its own connection"),
            }
            self.drain();
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        self.drain();
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let pipes = self.pipes.iter().filter_map(|pipe| Some(pipe.bytes.front()?.0));
            let machines = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = pipes.chain(machines.into_iter().flatten().map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn created(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::AllocationCreated { .. })).count()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_said_before_there_is_a_connection() {
    let mut world = World::new();
    world.run(60 * SECOND);
    assert_eq!((world.sent, world.events.len()), (0, 0));
    assert_eq!(world.client.unanswered_since(), None);
    world.connect();
    // Challenge and request: two round trips.
    world.run(4 * LATENCY);
    assert_eq!((world.created(), world.sent), (1, 2));
}

#[test]
fn data_is_padded_and_arrives_as_it_was() {
    let mut world = World::new();
    world.client.bind_channel(world.now, address(PEER));
    world.connect();
    world.run(SECOND);
    assert!(world.client.channel(address(PEER)).is_some());
    let relayed = world.client.relayed_addresses().next().unwrap().port();
    for length in [0, 1, 2, 3, 4, 5, 1203, 65_000] {
        let data = vec![7; length];
        assert!(world.send(&data));
        world.answer(&data);
        world.run(SECOND);
        assert_eq!(world.peers.pop(), Some((relayed, data.clone())), "{length}");
        assert_eq!(world.received.pop(), Some((address(PEER), data)), "{length}");
    }
}

#[test]
fn no_mapped_address_is_learned_from_a_connection() {
    let mut world = World::new();
    world.connect();
    world.run(120 * SECOND);
    assert_eq!(world.client.mapped_address(Family::V4), None);
    assert!(!world.events.iter().any(|event| matches!(event, Event::MappedAddress { .. })));
    assert_eq!(world.client.relayed_addresses().count(), 1);
}

/// RFC 8489, section 6.2.2: a request is sent once.
#[test]
fn a_connection_without_answers_is_condemned_and_nothing_is_sent_twice() {
    let mut world = World::new();
    world.client.bind_channel(world.now, address(PEER));
    world.connect();
    world.run(SECOND);
    (world.is_stalled, world.sent) = (true, 0);
    world.client.check(world.now);
    world.run(9 * SECOND);
    assert_eq!((world.sent, world.created()), (1, 1), "patience");
    assert!(!world.events.contains(&Event::Unresponsive));
    world.run(2 * SECOND);
    let lost = Event::AllocationLost { reason: FailureReason::Disconnected };
    assert!(world.events.ends_with(&[lost, Event::Unresponsive]), "{:?}", world.events);
    assert!(world.client.relayed_addresses().next().is_none());
    assert!(!world.send(b"into nowhere"));
    world.run(60 * SECOND);
    assert_eq!(world.sent, 1, "no connection, no messages");
    // Another connection brings everything back.
    world.disconnect();
    world.connect();
    world.run(SECOND);
    assert_eq!(world.created(), 2);
    assert!(world.send(b"hello again"));
    assert_eq!(world.ended, [EndReason::Disconnected]);
}

#[test]
fn an_idle_connection_is_asked_whether_it_lives() {
    let mut world = World::new();
    world.connect();
    world.run(SECOND);
    world.sent = 0;
    world.run(100 * SECOND);
    assert_eq!(world.sent, 4, "every 25 s");
    world.is_stalled = true;
    world.run(36 * SECOND);
    assert_eq!(world.events.last(), Some(&Event::Unresponsive));
}

#[test]
fn an_allocation_is_kept_and_ended_over_a_connection() {
    let mut world = World::new();
    world.client.bind_channel(world.now, address(PEER));
    world.connect();
    world.run(3 * 3600 * SECOND);
    assert_eq!((world.created(), world.events.len()), (1, 2), "{:?}", world.events);
    assert!(world.send(b"still here"));
    world.client.close(world.now);
    world.run(SECOND);
    assert_eq!(world.ended, [EndReason::Released]);
    assert_eq!(world.client.poll_timeout(), None);
}
