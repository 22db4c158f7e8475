//! Clients of the TCP side: polite, slow, greedy, silent and broken ones, over a wire that may lose packets.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_dns::DropReason;
use adit_dns::tcp::{Listener, TcpQuery};
use adit_packet::{PacketView, TcpFlags, checksum};
use domain::base::iana::Rtype;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::messages::query;

const CLIENTS: [&str; 2] = ["10.0.0.1", "fd00::1"];
const RESOLVERS: [&str; 2] = ["10.0.0.53", "fd00::53"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The client's network card.
#[derive(Default)]
struct Card {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

struct Read(Vec<u8>);
struct Write<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::RxToken for Read {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl smoltcp::phy::TxToken for Write<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl smoltcp::phy::Device for Card {
    type RxToken<'a> = Read;
    type TxToken<'a> = Write<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Read, Write<'_>)> {
        Some((Read(self.inbound.pop_front()?), Write(&mut self.outbound)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Write<'_>> {
        Some(Write(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1280;
        capabilities
    }
}

/// The listener, a device with many client sockets, and the wire between them.
struct World {
    listener: Listener,
    start: Instant,
    now: Instant,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    queries: Vec<TcpQuery>,
    /// Every so many packets one is lost; zero loses none.
    loss: usize,
    carried: usize,
    next_port: u16,
    dropped: Vec<DropReason>,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let mut card = Card::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for (client, length) in CLIENTS.iter().zip([24, 64]) {
                list.push(IpCidr::new(address(client).into(), length)).expect("room for two");
            }
        });
        Self {
            listener: Listener::new(start, &RESOLVERS.map(address), [3; 32]),
            start,
            now: start,
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            queries: Vec::new(),
            loss: 0,
            carried: 0,
            next_port: 40_000,
            dropped: Vec::new(),
        }
    }

    fn connect(&mut self, family: usize) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 16_384]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let remote = (address(RESOLVERS[family]), 53);
        socket.connect(self.interface.context(), remote, self.next_port).expect("a free port");
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn send(&mut self, handle: SocketHandle, message: &[u8]) {
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        assert_eq!(self.socket(handle).send_slice(&framed), Ok(framed.len()));
    }

    /// All complete messages that the client has received.
    fn received(&mut self, handle: SocketHandle) -> Vec<Vec<u8>> {
        let mut bytes = vec![0; 16_384];
        let length = self.socket(handle).recv_slice(&mut bytes).unwrap_or(0);
        let mut rest = &bytes[..length];
        let mut messages = Vec::new();
        while let Some((prefix, tail)) = rest.split_first_chunk::<2>() {
            let (message, tail) = tail.split_at(usize::from(u16::from_be_bytes(*prefix)));
            messages.push(message.to_vec());
            rest = tail;
        }
        messages
    }

    /// Carries packets both ways until the wire is quiet.
    fn settle(&mut self) {
        loop {
            let time = smoltcp::time::Instant::from_micros((self.now - self.start).as_micros() as i64);
            self.interface.poll(time, &mut self.card, &mut self.sockets);
            let mut quiet = true;
            while let Some(packet) = self.card.outbound.pop_front() {
                quiet = false;
                let view = PacketView::parse(&packet).expect("a valid packet");
                if self.arrives()
                    && let Err(reason) = self.listener.handle_packet(self.now, &packet, &view)
                {
                    self.dropped.push(reason);
                }
            }
            while let Some(packet) = self.listener.poll_packet() {
                quiet = false;
                assert_eq!(checksum::verify(&packet), Ok(()), "the listener sends valid packets");
                if self.arrives() {
                    self.card.inbound.push_back(packet);
                }
            }
            self.queries.extend(std::iter::from_fn(|| self.listener.poll_query()));
            if quiet {
                return;
            }
        }
    }

    fn arrives(&mut self) -> bool {
        self.carried += 1;
        self.loss == 0 || !self.carried.is_multiple_of(self.loss)
    }

    /// Lets time pass, waking everybody when they want to be woken, and counts how often the listener was.
    fn sleep(&mut self, duration: Duration) -> usize {
        let end = self.now + duration;
        let mut wakes = 0;
        loop {
            let time = smoltcp::time::Instant::from_micros((self.now - self.start).as_micros() as i64);
            let client = self.interface.poll_delay(time, &self.sockets);
            let client = client.map(|delay| self.now + Duration::from_micros(delay.total_micros().max(1000)));
            let listener = self.listener.poll_timeout().map(|(wake, _)| wake);
            let next = client.into_iter().chain(listener).min().filter(|next| *next < end).unwrap_or(end);
            self.now = next;
            if listener.is_some_and(|wake| wake <= next) {
                wakes += 1;
                self.listener.handle_timeout(self.now);
            }
            self.settle();
            if next == end {
                return wakes;
            }
        }
    }

    fn state(&mut self, handle: SocketHandle) -> State {
        self.socket(handle).state()
    }

    /// Connects and completes the handshake.
    fn connected(&mut self, family: usize) -> SocketHandle {
        let handle = self.connect(family);
        self.settle();
        assert_eq!(self.state(handle), State::Established);
        handle
    }
}

fn ask(name: &str) -> Vec<u8> {
    query(name, Rtype::A)
}

#[test]
fn a_query_and_its_answer_travel_in_frames_over_both_families() {
    for family in [0, 1] {
        let mut world = World::new();
        let client = world.connected(family);
        world.send(client, &ask("wiki.corp"));
        world.settle();
        assert_eq!(world.queries.len(), 1);
        assert_eq!(world.queries[0].message, ask("wiki.corp"));
        let id = world.queries[0].id;
        let large = vec![9; 5000];
        world.listener.answer(world.now, id, &large);
        world.settle();
        world.sleep(Duration::from_millis(100));
        assert_eq!(world.received(client), [large]);
        world.listener.answer(world.now, id, b"once more");
        world.settle();
        assert!(world.received(client).is_empty(), "a query has one answer");
    }
}

#[test]
fn pipelined_queries_are_answered_in_any_order() {
    let mut world = World::new();
    let client = world.connected(0);
    for name in ["a.corp", "b.corp", "c.corp"] {
        world.send(client, &ask(name));
    }
    world.settle();
    let ids: Vec<_> = world.queries.iter().map(|query| query.id).collect();
    for (id, answer) in [(ids[2], b"third"), (ids[0], b"first")] {
        world.listener.answer(world.now, id, answer);
    }
    world.settle();
    assert_eq!(world.received(client), [b"third", b"first"]);
}

#[test]
fn a_query_may_arrive_byte_by_byte() {
    let mut world = World::new();
    let client = world.connected(0);
    let message = ask("wiki.corp");
    let framed = [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
    for byte in framed {
        assert!(world.queries.is_empty());
        world.socket(client).send_slice(&[byte]).expect("connected");
        world.sleep(Duration::from_millis(10));
    }
    assert_eq!(world.queries.len(), 1);
}

#[test]
fn more_queries_than_the_limit_wait_for_answers() {
    let mut world = World::new();
    let client = world.connected(0);
    for number in 0..40 {
        world.send(client, &ask(&format!("h{number}.corp")));
    }
    world.settle();
    world.sleep(Duration::from_millis(50));
    assert_eq!(world.queries.len(), 16);
    let mut answered = 0;
    while answered < world.queries.len() {
        let id = world.queries[answered].id;
        world.listener.answer(world.now, id, &[0; 12]);
        answered += 1;
        world.settle();
        world.sleep(Duration::from_millis(50));
    }
    assert_eq!(answered, 40);
    assert_eq!(world.received(client).len(), 40);
}

#[test]
fn loss_delays_but_does_not_damage() {
    let mut world = World::new();
    world.loss = 5;
    let client = world.connect(1);
    world.sleep(Duration::from_secs(3));
    world.send(client, &ask("wiki.corp"));
    world.sleep(Duration::from_secs(5));
    let answer: Vec<u8> = (0..8000u32).map(|at| (at % 251) as u8).collect();
    let id = world.queries.first().expect("the query got through").id;
    world.listener.answer(world.now, id, &answer);
    world.settle();
    world.sleep(Duration::from_secs(9));
    assert_eq!(world.received(client), [answer]);
}

#[test]
fn an_idle_connection_is_closed_and_nothing_remains() {
    let mut world = World::new();
    let client = world.connected(0);
    assert_eq!(world.listener.connections(), 1);
    let wakes = world.sleep(Duration::from_secs(11));
    assert_eq!(world.state(client), State::CloseWait, "the resolver said goodbye");
    world.socket(client).close();
    world.settle();
    world.sleep(Duration::from_secs(1));
    assert_eq!(world.listener.connections(), 0);
    assert_eq!(world.listener.poll_timeout(), None, "no connection, no timer");
    assert!(wakes < 20, "an idle connection woke the listener {wakes} times");
}

#[test]
fn a_client_that_says_nothing_more_is_reset() {
    let mut world = World::new();
    let client = world.connected(0);
    world.sleep(Duration::from_secs(25));
    assert_eq!(world.listener.connections(), 0);
    assert_eq!(world.state(client), State::Closed);
}

#[test]
fn a_client_that_closes_first_still_gets_its_answer() {
    let mut world = World::new();
    let client = world.connected(0);
    world.send(client, &ask("wiki.corp"));
    world.socket(client).close();
    world.settle();
    let id = world.queries[0].id;
    world.listener.answer(world.now, id, b"in time");
    world.settle();
    assert_eq!(world.received(client), [b"in time"]);
    world.sleep(Duration::from_secs(1));
    assert_eq!(world.listener.connections(), 0);
}

#[test]
fn a_vanished_client_is_forgotten() {
    let mut world = World::new();
    let client = world.connected(0);
    world.send(client, &ask("wiki.corp"));
    world.settle();
    let id = world.queries[0].id;
    world.loss = 1;
    world.listener.answer(world.now, id, &[0; 3000]);
    world.sleep(Duration::from_secs(60));
    assert_eq!((world.listener.connections(), world.listener.poll_timeout()), (0, None));
    world.listener.answer(world.now, id, b"too late");
    assert!(world.listener.poll_packet().is_none());
}

#[test]
fn half_open_connections_are_forgotten() {
    let mut world = World::new();
    let client = world.connect(0);
    let time = smoltcp::time::Instant::ZERO;
    world.interface.poll(time, &mut world.card, &mut world.sockets);
    let syn = world.card.outbound.pop_front().expect("a SYN");
    let view = PacketView::parse(&syn).expect("valid");
    world.listener.handle_packet(world.now, &syn, &view).expect("taken");
    world.socket(client).abort();
    world.loss = 1;
    world.sleep(Duration::from_secs(60));
    assert_eq!((world.listener.connections(), world.listener.poll_timeout()), (0, None));
}

#[test]
fn nonsense_lengths_reset_the_connection() {
    for length in [0u16, 11, 4097, 65535] {
        let mut world = World::new();
        let client = world.connected(0);
        world.socket(client).send_slice(&length.to_be_bytes()).expect("connected");
        world.settle();
        assert_eq!(world.state(client), State::Closed, "length {length}");
        assert_eq!(world.listener.connections(), 0);
    }
}

#[test]
fn when_all_connections_are_busy_a_new_one_must_wait_and_idle_ones_make_room() {
    let mut world = World::new();
    let clients: Vec<_> = (0..64).map(|_| world.connected(0)).collect();
    for client in &clients {
        world.send(*client, &ask("wiki.corp"));
    }
    world.settle();
    let extra = world.connect(0);
    world.settle();
    assert_eq!((world.listener.connections(), world.state(extra)), (64, State::SynSent));
    assert_eq!(world.dropped, [DropReason::TooManyConnections]);
    let id = world.queries[5].id;
    world.listener.answer(world.now, id, &[0; 12]);
    world.sleep(Duration::from_secs(8));
    assert_eq!(world.state(extra), State::Established, "its repeated SYN found a place");
    assert_eq!(world.state(clients[5]), State::Closed, "the idle one was reset");
    assert_eq!(world.listener.connections(), 64);
}

#[test]
fn other_ports_are_refused_with_a_reset() {
    let mut world = World::new();
    let client = world.connect(0);
    world.interface.poll(smoltcp::time::Instant::ZERO, &mut world.card, &mut world.sockets);
    let mut syn = world.card.outbound.pop_front().expect("a SYN");
    let view = PacketView::parse(&syn).expect("valid");
    let other_port = adit_packet::Rewrite { destination_port: Some(80), ..adit_packet::Rewrite::NONE };
    other_port.apply(&mut syn, &view).expect("valid");
    let view = PacketView::parse(&syn).expect("valid");
    world.listener.handle_packet(world.now, &syn, &view).expect("taken");
    let reset = world.listener.poll_packet().expect("an answer");
    let view = PacketView::parse(&reset).expect("valid");
    assert!(view.tcp_flags().contains(TcpFlags::RST));
    assert_eq!(view.source_port(), Some(80));
    assert_eq!(world.state(client), State::SynSent);
}

#[test]
fn sequence_numbers_depend_on_the_seed() {
    let first_number = |seed| {
        let mut world = World::new();
        world.listener = Listener::new(world.now, &RESOLVERS.map(address), seed);
        world.connect(0);
        world.interface.poll(smoltcp::time::Instant::ZERO, &mut world.card, &mut world.sockets);
        let syn = world.card.outbound.pop_front().expect("a SYN");
        let view = PacketView::parse(&syn).expect("valid");
        world.listener.handle_packet(world.now, &syn, &view).expect("taken");
        let reply = world.listener.poll_packet().expect("a SYN-ACK");
        reply[24..28].to_vec()
    };
    assert_ne!(first_number([1; 32]), first_number([2; 32]));
    assert_eq!(first_number([1; 32]), first_number([1; 32]));
}
