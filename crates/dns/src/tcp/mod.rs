//! DNS over TCP inside the tunnel: IP packets in, DNS messages out, and back (RFC 7766).
//!
//! Clients come over TCP when an answer did not fit into a datagram. There is no socket of the system behind the
//! resolver's address, so a small TCP stack (smoltcp) ends the connections here. Queries of one connection may be under
//! way together and are answered in any order (RFC 7766, 6.2.1.1). Connections, queries per connection and buffers are
//! bounded; a connection without queries is closed after ten seconds; when all connections are taken, the
//! one that was idle for the longest makes room.

mod connection;
mod device;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_packet::PacketView;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::Socket;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::query::DropReason;
use connection::Connection;
use device::Device;

/// The port of DNS.
pub(crate) const PORT: u16 = 53;
/// Connections at one time.
const MAXIMUM_CONNECTIONS: usize = 64;

/// Names a query that came over a connection.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QueryId {
    connection: u64,
    number: u64,
}

/// A complete DNS message from a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TcpQuery {
    /// To answer with.
    pub id: QueryId,
    /// The DNS message, without the two bytes of length.
    pub message: Vec<u8>,
}

/// The TCP side of the resolver.
pub struct Listener {
    start: Instant,
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Accepted connections, and at most one that still waits for a client.
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    queries: VecDeque<TcpQuery>,
    wake: Option<Instant>,
}

impl Listener {
    /// Listens on port 53 of `addresses`, of which one per family is used; all must be unicast.
    pub fn new(now: Instant, addresses: &[IpAddr], seed: [u8; 32]) -> Self {
        let mut device = Device::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = ChaCha20Rng::from_seed(seed).random();
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|list| {
            let first =
                |v4| addresses.iter().find(move |address| address.is_ipv4() == v4 && is_unicast(**address));
            for address in [first(true), first(false)].into_iter().flatten() {
                // Two addresses are what the list has room for.
                let _ = list.push(IpCidr::new((*address).into(), if address.is_ipv4() { 32 } else { 128 }));
            }
        });
        Self {
            start: now,
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: BTreeMap::new(),
            next_connection: 0,
            queries: VecDeque::new(),
            wake: None,
        }
    }

    /// Takes a TCP packet to one of the addresses; packets to other ports are answered with a reset.
    ///
    /// # Errors
    ///
    /// Why the packet was dropped; the client will repeat it.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        view: &PacketView,
    ) -> Result<(), DropReason> {
        if view.fragment().is_some() {
            return Err(DropReason::Fragment);
        }
        if !is_unicast(view.source()) || self.interface.has_ip_addr(view.source()) {
            return Err(DropReason::Source);
        }
        if view.tcp_flags().opens_connection() && view.destination_port() == Some(PORT) {
            self.prepare_to_accept(now)?;
        }
        let packet = packet.get(..view.total_length()).ok_or(DropReason::Short)?;
        self.device.deliver(packet.to_vec());
        self.run(now);
        Ok(())
    }

    /// Answers a query; without its connection the answer has no receiver and vanishes.
    pub fn answer(&mut self, now: Instant, id: QueryId, message: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id.connection) {
            connection.answer(now, id.number, message);
            self.run(now);
        }
    }

    /// Lets connections retransmit, expire and close.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.wake.map(|wake| (wake, "DNS over TCP"))
    }

    /// The next IP packet to a client.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.device.collect()
    }

    /// The next query.
    pub fn poll_query(&mut self) -> Option<TcpQuery> {
        self.queries.pop_front()
    }

    /// Connections that are open or opening.
    pub fn connections(&self) -> usize {
        self.connections.values().filter(|connection| !connection.is_waiting(&self.sockets)).count()
    }

    /// A socket must wait before the SYN that it accepts comes in.
    fn prepare_to_accept(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.connections.values().any(|connection| connection.is_waiting(&self.sockets)) {
            return Ok(());
        }
        if self.connections.len() >= MAXIMUM_CONNECTIONS {
            self.evict(now)?;
        }
        let handle = self.sockets.add(connection::listening_socket().ok_or(DropReason::TooManyConnections)?);
        self.connections.insert(self.next_connection, Connection::new(now, handle));
        self.next_connection += 1;
        Ok(())
    }

    fn evict(&mut self, now: Instant) -> Result<(), DropReason> {
        let idle = self.connections.iter().filter(|(_, connection)| connection.is_evictable(now));
        let longest =
            idle.min_by_key(|(_, connection)| connection.last_activity()).map(|(number, _)| *number);
        let number = longest.ok_or(DropReason::TooManyConnections)?;
        if let Some(connection) = self.connections.get(&number) {
            self.sockets.get_mut::<Socket<'_>>(connection.handle()).abort();
        }
        // The abort must leave as a reset before the socket goes.
        self.run(now);
        self.remove(number);
        Ok(())
    }

    /// Runs the stack and the connections until neither has anything to do at this instant.
    fn run(&mut self, now: Instant) {
        let time = self.stack_time(now);
        // Two rounds: packets in and data to connections; data from connections and packets out.
        for _ in 0..2 {
            self.interface.poll(time, &mut self.device, &mut self.sockets);
            for (number, connection) in &mut self.connections {
                let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle());
                connection.serve(now, socket, |query, message| {
                    let id = QueryId { connection: *number, number: query };
                    self.queries.push_back(TcpQuery { id, message });
                });
            }
        }
        self.interface.poll(time, &mut self.device, &mut self.sockets);
        let ended = self.connections.iter().filter(|(_, connection)| connection.has_ended(&self.sockets));
        for number in ended.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.remove(number);
        }
        self.schedule(now);
    }

    fn remove(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            self.sockets.remove(connection.handle());
        }
    }

    fn schedule(&mut self, now: Instant) {
        let time = self.stack_time(now);
        let stack = self.interface.poll_at(time, &self.sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            // A full device makes the stack want to go on at once; the next packet collected is soon enough.
            (self.start + Duration::from_micros(micros)).max(now + Duration::from_millis(1))
        });
        let idle =
            self.connections.values().filter_map(|connection| connection.deadline(&self.sockets)).min();
        self.wake = stack.into_iter().chain(idle).min();
    }

    fn stack_time(&self, now: Instant) -> smoltcp::time::Instant {
        let elapsed = now.saturating_duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}
