//! Byte streams to relays: reliable, in order, delayed, and late when something was lost.
//!
//! Unlike a datagram, what is written to a network that carries nothing waits, and leaves when the network is back; after
//! [`PATIENCE`] the connection breaks, as kernels see to it. A program that dies lets go of its connections at once.

use std::time::{Duration, Instant};

use adit_tunnel::{StreamId, StreamTarget};
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use rand::Rng as _;

use super::{Delivery, World};
use crate::computer::{Machine, Power};
use crate::relay::STREAM_LISTENERS;

/// An attempt to connect takes no longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// What was lost comes so much later.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How often a network that carries nothing is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// After so long without any progress the connection breaks.
const PATIENCE: Duration = Duration::from_secs(15);

/// The end that is the relay, and the other.
pub(super) const RELAY: usize = 0;
pub(super) const COMPUTER: usize = 1;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Client(usize),
    Gateway(usize),
}

/// A connection, or the attempt to make one.
#[derive(Debug)]
pub(super) struct Connection {
    owner: Owner,
    id: StreamId,
    relay: usize,
    /// Where its owner was when it was made; it does not survive a change of address.
    place: usize,
    is_open: bool,
    /// What each end has received of messages that are not whole.
    splitters: [Splitter; 2],
    /// Nothing arrives before what was sent before it.
    newest: [Instant; 2],
}

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum Step {
    /// It is there, or will never be.
    Decided { is_open: bool },
    /// Bytes arrive at one end, sent at that time.
    Bytes { end: usize, since: Instant, bytes: Vec<u8> },
    /// The relay hears that its client is gone.
    Gone,
    /// The owner hears that its relay is gone, or the kernel that nothing is acknowledged.
    Broken,
}

impl World {
    /// A computer wants exactly these streams.
    pub(super) fn tcp_want(&mut self, owner: Owner, wanted: &[StreamTarget]) {
        let of_owner: Vec<(u32, StreamId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.owner == owner)
            .map(|(number, connection)| (*number, connection.id))
            .collect();
        for (number, id) in &of_owner {
            if !wanted.iter().any(|target| target.id == *id) {
                self.tcp_let_go(*number);
            }
        }
        for target in wanted {
            if !of_owner.iter().any(|(_, id)| *id == target.id) {
                self.tcp_connect(owner, target);
            }
        }
    }

    fn tcp_connect(&mut self, owner: Owner, target: &StreamTarget) {
        let (place, address) = (self.place_of(owner), target.addresses[0]);
        let relay = self.relays.iter().position(|relay| relay.address() == address.ip()).expect("a relay");
        let is_open = self.relays[relay].is_up
            && STREAM_LISTENERS.contains(&address.port())
            && !self.network.cut_off.contains(&place);
        let round_trips = if target.tls.is_some() { 2 } else { 1 };
        let after = match is_open || self.random.random() {
            true => self.network.way_to_relay(place) * 2 * round_trips + self.tcp_misfortune(),
            false => CONNECT_LIMIT,
        };
        self.next_connection += 1;
        let connection = Connection {
            owner,
            id: target.id,
            relay,
            place,
            is_open: false,
            splitters: [Splitter::new(LONGEST_MESSAGE), Splitter::new(LONGEST_MESSAGE)],
            newest: [self.now; 2],
        };
        self.connections.insert(self.next_connection, connection);
        self.schedule(after, Delivery::Tcp(self.next_connection, Step::Decided { is_open }));
    }

    /// Lost segments delay everything behind them.
    fn tcp_misfortune(&mut self) -> Duration {
        let is_lost = self.random.random_range(0..1000) < self.network.quality.loss;
        if is_lost { RETRANSMISSION } else { Duration::ZERO }
    }

    /// A computer writes to a stream of its own.
    pub(super) fn tcp_send(&mut self, owner: Owner, id: StreamId, bytes: Vec<u8>) {
        let mut all = self.connections.iter();
        let found = all.find(|(_, other)| other.is_open && (other.owner, other.id) == (owner, id));
        if let Some((number, _)) = found {
            self.tcp_write(*number, RELAY, bytes);
        }
    }

    /// Puts bytes on the way to one end.
    pub(super) fn tcp_write(&mut self, number: u32, end: usize, bytes: Vec<u8>) {
        let misfortune = self.tcp_misfortune();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let delay = self.network.way_to_relay(connection.place) + misfortune;
        let at = (self.now + delay).max(connection.newest[end]);
        connection.newest[end] = at;
        self.schedule_at(at, Delivery::Tcp(number, Step::Bytes { end, since: self.now, bytes }));
    }

    pub(super) fn tcp_step(&mut self, number: u32, step: Step) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (owner, id, relay, place) = (connection.owner, connection.id, connection.relay, connection.place);
        match step {
            Step::Decided { is_open } => {
                connection.is_open = is_open;
                if !is_open {
                    self.connections.remove(&number);
                }
                self.tell_owner(owner, id, is_open);
            }
            Step::Bytes { end, since, bytes } => {
                let is_stuck = self.network.cut_off.contains(&place) || self.place_of(owner) != place;
                let sleeps = end == COMPUTER && self.power_of(owner) == Power::Asleep;
                if !is_stuck && !sleeps {
                    self.tcp_arrive(number, end, &bytes);
                } else if self.now < since + PATIENCE {
                    self.tcp_postpone(number, end, Step::Bytes { end, since, bytes });
                } else {
                    self.tcp_break(number);
                }
            }
            Step::Gone => {
                self.connections.remove(&number);
                if self.relays[relay].is_up {
                    let out = self.relays[relay].hang_up(self.now, number);
                    self.relay_sends(out);
                }
            }
            Step::Broken => {
                if self.power_of(owner) == Power::Asleep {
                    return self.schedule(Duration::from_secs(1), Delivery::Tcp(number, Step::Broken));
                }
                self.connections.remove(&number);
                self.tell_owner(owner, id, false);
            }
        }
    }

    /// What cannot arrive now is tried again, and what was sent after it must wait too.
    fn tcp_postpone(&mut self, number: u32, end: usize, step: Step) {
        let at = self.now + RETRY;
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.newest[end] = connection.newest[end].max(at);
        }
        let later: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, delivery)| {
                matches!(delivery, Delivery::Tcp(other, Step::Bytes { end: at, .. }) if (*other, *at) == (number, end))
            })
            .map(|(key, _)| *key)
            .filter(|(when, _)| *when < at)
            .collect();
        self.schedule_at(at, Delivery::Tcp(number, step));
        for key in later {
            if let Some(delivery) = self.queue.remove(&key) {
                self.schedule_at(at, delivery);
            }
        }
    }

    fn tcp_arrive(&mut self, number: u32, end: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (owner, id, relay) = (connection.owner, connection.id, connection.relay);
        for message in connection.splitters[end].accept(bytes).expect("well framed") {
            if end == COMPUTER {
                let now = self.now;
                match owner {
                    Owner::Client(index) if self.clients[index].is_on() => {
                        self.clients[index].message(now, id, message);
                    }
                    Owner::Gateway(index) if self.gateways[index].is_on() => {
                        self.gateways[index].message(now, id, message);
                    }
                    Owner::Client(_) | Owner::Gateway(_) => {}
                }
            } else if self.relays[relay].is_up {
                let out = self.relays[relay].message(self.now, number, &message);
                self.relay_sends(out);
            }
        }
    }

    /// Nobody can use it any more; both ends find out by themselves.
    fn tcp_break(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let relay = connection.relay;
        connection.is_open = false;
        if self.relays[relay].is_up {
            let out = self.relays[relay].hang_up(self.now, number);
            self.relay_sends(out);
        }
        self.schedule(Duration::ZERO, Delivery::Tcp(number, Step::Broken));
    }

    /// Its owner wants it no more.
    fn tcp_let_go(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.is_open = false;
        // Nobody hears of what was decided meanwhile.
        connection.id = StreamId(u32::MAX);
        let (after, newest) = (self.network.way_to_relay(connection.place), connection.newest[RELAY]);
        // Behind the last words, which are on their way.
        self.schedule_at((self.now + after).max(newest), Delivery::Tcp(number, Step::Gone));
    }

    /// A program has ended, and its connections with it.
    pub(super) fn tcp_owner_gone(&mut self, owner: Owner) {
        let its = self.connections.iter().filter(|(_, connection)| connection.owner == owner);
        let its: Vec<u32> = its.map(|(number, _)| *number).collect();
        its.into_iter().for_each(|number| self.tcp_let_go(number));
    }

    /// A relay has died; its host says so to whoever can hear it.
    pub(super) fn tcp_relay_gone(&mut self, relay: usize) {
        let its = self.connections.iter().filter(|(_, one)| one.relay == relay && one.is_open);
        let its: Vec<(u32, usize)> = its.map(|(number, one)| (*number, one.place)).collect();
        for (number, place) in its {
            let is_cut = self.network.cut_off.contains(&place);
            let after = if is_cut { PATIENCE } else { self.network.way_to_relay(place) };
            self.schedule(after, Delivery::Tcp(number, Step::Broken));
        }
    }

    fn place_of(&self, owner: Owner) -> usize {
        match owner {
            Owner::Client(index) => self.client_places[index],
            Owner::Gateway(index) => self.gateway_places[index],
        }
    }

    fn power_of(&self, owner: Owner) -> Power {
        match owner {
            Owner::Client(index) => self.clients[index].power,
            Owner::Gateway(index) => self.gateways[index].power,
        }
    }

    /// Tells a stream's owner that it is there, or that it is gone.
    fn tell_owner(&mut self, owner: Owner, id: StreamId, is_open: bool) {
        let now = self.now;
        match owner {
            Owner::Client(index) if self.clients[index].power != Power::Off => {
                self.clients[index].with(now, |machine, now| tell(machine, now, id, is_open));
            }
            Owner::Gateway(index) if self.gateways[index].power != Power::Off => {
                self.gateways[index].with(now, |machine, now| tell(machine, now, id, is_open));
            }
            Owner::Client(_) | Owner::Gateway(_) => {}
        }
    }

    /// Streams that a client has open.
    pub fn open_streams(&self, client: usize) -> usize {
        let is_its = |one: &&Connection| one.owner == Owner::Client(client) && one.is_open;
        self.connections.values().filter(is_its).count()
    }
}

fn tell(machine: &mut impl Machine, now: Instant, id: StreamId, is_open: bool) {
    if is_open {
        machine.stream_opened(now, id);
    } else {
        machine.stream_closed(now, id);
    }
}
