//! Byte streams to relays: reliable, in order, delayed; cut into messages at their ends.

use std::time::{Duration, Instant};

use adit_peering::{Inbound, StreamId, StreamTarget};
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};

use super::relay::Sent;
use super::{Datagram, Work, World};

/// How long a host waits for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// A connection, or the attempt to make one.
pub(crate) struct Connection {
    host: usize,
    id: StreamId,
    pub(crate) relay: usize,
    pub(crate) port: u16,
    pub(crate) is_open: bool,
    /// What the relay and the host have received of messages that are not whole.
    splitters: [Splitter; 2],
    /// Nothing arrives before what was sent before it.
    newest: [Instant; 2],
}

/// Something that happens to a connection.
pub(crate) enum StreamWork {
    /// It is there, or will never be.
    Decided { is_open: bool },
    /// Bytes arrive at the relay (0) or the host (1).
    Bytes { end: usize, bytes: Vec<u8> },
    /// The relay hears that the host is gone.
    Closed,
}

impl World {
    /// A host wants exactly these streams.
    pub(super) fn want_streams(&mut self, host: usize, wanted: &[StreamTarget]) {
        let is_wanted = |id| wanted.iter().any(|target| target.id == id);
        let gone: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.host == host && !is_wanted(connection.id))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.later(number, self.now + self.latency, StreamWork::Closed);
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.is_open = false;
            }
        }
        for target in wanted {
            if !self.connections.values().any(|other| (other.host, other.id) == (host, target.id)) {
                self.connect(host, target);
            }
        }
    }

    fn connect(&mut self, host: usize, target: &StreamTarget) {
        let address = target.addresses[0];
        let relay = self.relays.iter().position(|relay| relay.ip == address.ip()).expect("a relay");
        let is_lost =
            !self.relays[relay].alive || self.tcp_blocked.iter().any(|blocked| *blocked == address.port());
        let round_trips = if target.tls.is_some() { 2 } else { 1 };
        let (at, is_open) = match is_lost {
            true => (self.now + CONNECT_LIMIT, false),
            false => (
                self.now + self.latency * 2 * round_trips,
                self.relays[relay].listens.contains(&address.port()),
            ),
        };
        self.next_connection += 1;
        let splitters = [Splitter::new(LONGEST_MESSAGE), Splitter::new(LONGEST_MESSAGE)];
        let (id, port) = (target.id, address.port());
        let connection =
            Connection { host, id, relay, port, is_open: false, splitters, newest: [self.now; 2] };
        self.connections.insert(self.next_connection, connection);
        self.later(self.next_connection, at, StreamWork::Decided { is_open });
    }

    fn later(&mut self, number: u32, at: Instant, what: StreamWork) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), Work::Stream { number, what });
    }

    /// A host writes to a stream of its own.
    pub(super) fn write_stream(&mut self, host: usize, id: StreamId, bytes: Vec<u8>) {
        let found = self.connections.iter().find(|(_, other)| (other.host, other.id) == (host, id));
        if let Some((number, _)) = found.filter(|(_, connection)| connection.is_open) {
            self.push_bytes(*number, 0, bytes);
        }
    }

    /// Puts bytes on the way to one end of a connection.
    pub(super) fn push_bytes(&mut self, number: u32, end: usize, bytes: Vec<u8>) {
        let earliest = self.now + self.latency;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let at = earliest.max(connection.newest[end]);
        connection.newest[end] = at;
        self.later(number, at, StreamWork::Bytes { end, bytes });
    }

    pub(super) fn handle_stream_work(&mut self, number: u32, what: StreamWork) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (host, id, relay) = (connection.host, connection.id, connection.relay);
        match what {
            StreamWork::Decided { is_open } => {
                connection.is_open = is_open;
                let (now, node) = (self.now, &mut self.hosts[host].node);
                if is_open {
                    node.handle_stream_opened(now, id);
                } else {
                    self.connections.remove(&number);
                    node.handle_stream_closed(now, id);
                }
                self.drain(host);
            }
            StreamWork::Bytes { end, bytes } => {
                for message in connection.splitters[end].accept(&bytes).expect("well framed") {
                    match end {
                        0 => self.arrive_at_relay(relay, number, &message),
                        _ => self.arrive_at_host(host, id, message),
                    }
                }
            }
            StreamWork::Closed => {
                self.connections.remove(&number);
                let sent = self.relays[relay].hang_up(self.now, number);
                self.deliver_sent(sent);
            }
        }
    }

    /// Breaks every connection; both ends hear of it.
    pub(crate) fn break_streams(&mut self) {
        for (number, connection) in std::mem::take(&mut self.connections) {
            let sent = self.relays[connection.relay].hang_up(self.now, number);
            self.deliver_sent(sent);
            let now = self.now;
            self.hosts[connection.host].node.handle_stream_closed(now, connection.id);
            self.drain(connection.host);
        }
    }

    fn arrive_at_relay(&mut self, relay: usize, number: u32, message: &[u8]) {
        let sent = self.relays[relay].receive_message(self.now, number, message);
        self.deliver_sent(sent);
    }

    fn arrive_at_host(&mut self, index: usize, id: StreamId, mut message: Vec<u8>) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if !host.alive {
            return;
        }
        let packet = match host.worker.open_from_stream(now, &mut host.node, id, &mut message) {
            Some(packet) => packet,
            None => match host.node.handle_stream_message(now, id, &mut message) {
                Ok(Inbound::Packet { range, .. }) => Some(message[range].to_vec()),
                Ok(Inbound::Consumed) | Err(_) => None,
            },
        };
        self.take_packet(index, packet);
    }

    /// What a relay sends goes its way.
    pub(super) fn deliver_sent(&mut self, sent: Vec<Sent>) {
        for sent in sent {
            match sent {
                Sent::Datagram(from, to, payload) => {
                    self.enqueue(Datagram { from, to, payload, lan: None });
                }
                Sent::Bytes(number, bytes) => self.push_bytes(number, 1, bytes),
            }
        }
    }

    /// Streams that a host has open.
    pub(crate) fn open_streams(&self, host: usize) -> Vec<&Connection> {
        self.connections.values().filter(|connection| connection.host == host && connection.is_open).collect()
    }
}
