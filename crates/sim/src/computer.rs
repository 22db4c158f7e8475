//! A computer: a machine that ships, its worker, and a clock of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_dataplane::{self as dataplane, Inbound, Outbound, PeerId, Update, Worker};
use adit_packet::offload::VirtioHeader;
use adit_protocol::{ClientToPortal, GatewayToPortal, PortalToClient, PortalToGateway};
use adit_tunnel::{Client, ClientEvent, Gateway, GatewayEvent, Statistics, StreamId, StreamTarget, Transmit};

/// What the engine calls on either machine.
pub trait Machine {
    /// What it says to the portal.
    type ToPortal: std::fmt::Debug;
    /// What the portal says to it.
    type FromPortal;
    /// What it wants of its program.
    type Event: std::fmt::Debug;

    /// See the machine's method of the same meaning.
    fn portal(&mut self, now: Instant, message: Self::FromPortal);
    /// The session with the portal is gone.
    fn portal_lost(&mut self, now: Instant);
    /// A packet of the operating system without a flow.
    fn tun_packet(&mut self, now: Instant, packet: &mut [u8]);
    /// A packet of a peer without a flow.
    fn peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]);
    /// A datagram that the worker did not understand.
    fn datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, payload: &mut [u8]);
    /// A message of a stream that the worker did not understand.
    fn stream_message(&mut self, now: Instant, from: StreamId, message: &mut [u8]);
    /// A stream is there.
    fn stream_opened(&mut self, now: Instant, id: StreamId);
    /// A stream is gone, or was never made.
    fn stream_closed(&mut self, now: Instant, id: StreamId);
    /// What a worker noticed.
    fn worker_event(&mut self, now: Instant, event: &dataplane::Event);
    /// The host's addresses.
    fn local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]);
    /// A deadline has come.
    fn timeout(&mut self, now: Instant);
    /// The next deadline, and why.
    fn next_timeout(&self) -> Option<(Instant, &'static str)>;
    /// The next datagram.
    fn next_transmit(&mut self) -> Option<Transmit>;
    /// The streams it wants, if they changed.
    fn next_streams(&mut self) -> Option<Vec<StreamTarget>>;
    /// The next packet for the operating system.
    fn next_tun_write(&mut self) -> Option<Vec<u8>>;
    /// The next change of the worker's tables.
    fn next_update(&mut self) -> Option<Update>;
    /// The next message for the portal.
    fn next_portal_message(&mut self) -> Option<Self::ToPortal>;
    /// The next event.
    fn next_event(&mut self) -> Option<Self::Event>;
    /// How much it holds.
    fn held(&self) -> Statistics;
}

macro_rules! machine {
    ($machine:ty, $to_portal:ty, $from_portal:ty, $event:ty) => {
        impl Machine for $machine {
            type ToPortal = $to_portal;
            type FromPortal = $from_portal;
            type Event = $event;

            fn portal(&mut self, now: Instant, message: $from_portal) {
                self.handle_portal(now, message);
            }
            fn portal_lost(&mut self, now: Instant) {
                self.handle_portal_lost(now);
            }
            fn tun_packet(&mut self, now: Instant, packet: &mut [u8]) {
                self.handle_tun_packet(now, packet);
            }
            fn peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]) {
                self.handle_peer_packet(now, peer, packet);
            }
            fn datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, payload: &mut [u8]) {
                self.handle_datagram(now, local, from, payload);
            }
            fn stream_message(&mut self, now: Instant, from: StreamId, message: &mut [u8]) {
                self.handle_stream_message(now, from, message);
            }
            fn stream_opened(&mut self, now: Instant, id: StreamId) {
                self.handle_stream_opened(now, id);
            }
            fn stream_closed(&mut self, now: Instant, id: StreamId) {
                self.handle_stream_closed(now, id);
            }
            fn worker_event(&mut self, now: Instant, event: &dataplane::Event) {
                self.handle_worker_event(now, event);
            }
            fn local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
                self.set_local_addresses(now, addresses);
            }
            fn timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn next_timeout(&self) -> Option<(Instant, &'static str)> {
                self.poll_timeout()
            }
            fn next_transmit(&mut self) -> Option<Transmit> {
                self.poll_transmit()
            }
            fn next_streams(&mut self) -> Option<Vec<StreamTarget>> {
                self.poll_streams()
            }
            fn next_tun_write(&mut self) -> Option<Vec<u8>> {
                self.poll_tun_write()
            }
            fn next_update(&mut self) -> Option<Update> {
                self.poll_update()
            }
            fn next_portal_message(&mut self) -> Option<$to_portal> {
                self.poll_portal_message()
            }
            fn next_event(&mut self) -> Option<$event> {
                self.poll_event()
            }
            fn held(&self) -> Statistics {
                self.statistics()
            }
        }
    };
}

machine!(Client, ClientToPortal, PortalToClient, ClientEvent);
machine!(Gateway, GatewayToPortal, PortalToGateway, GatewayEvent);

/// What a computer puts out.
#[derive(Debug)]
pub(crate) enum Output<M: Machine> {
    /// A datagram for the network.
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    /// Whole messages for a stream.
    Stream { id: StreamId, bytes: Vec<u8> },
    /// The streams that it wants from now on.
    Streams(Vec<StreamTarget>),
    /// A packet for the operating system.
    Tun(Vec<u8>),
    /// A message for the portal.
    Portal(M::ToPortal),
    /// An event of the machine.
    Event(M::Event),
}

/// What a computer does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// The program runs.
    On,
    /// The program has ended.
    Off,
    /// The program stands still, or the machine sleeps: nothing is handled, timers do not fire.
    Asleep,
}

/// A machine with its worker.
#[derive(Debug)]
pub(crate) struct Computer<M: Machine> {
    pub(crate) machine: M,
    pub(crate) worker: Worker,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) power: Power,
    /// How far its steady clock is behind the world's: time that it slept through.
    lag: Duration,
    /// When machine or worker want to be woken next, by its own clock.
    next: Option<(Instant, &'static str)>,
    outputs: VecDeque<Output<M>>,
}

impl<M: Machine> Computer<M> {
    pub(crate) fn new(now: Instant, machine: M, address: SocketAddr, seed: u8) -> Self {
        let worker = Worker::new(now, dataplane::Config { seed: [seed; 32], max_flows: 10_000 });
        let mut computer = Self {
            machine,
            worker,
            address: None,
            power: Power::On,
            lag: Duration::ZERO,
            next: None,
            outputs: VecDeque::new(),
        };
        computer.set_address(now, Some(address));
        computer
    }

    pub(crate) fn is_on(&self) -> bool {
        self.power == Power::On
    }

    /// What its steady clock shows.
    pub(crate) fn clock(&self, now: Instant) -> Instant {
        now - self.lag
    }

    /// It slept for so long, and its steady clock stood still.
    pub(crate) fn oversleep(&mut self, slept: Duration) {
        self.lag += slept;
    }

    pub(crate) fn set_address(&mut self, now: Instant, address: Option<SocketAddr>) {
        self.address = address;
        let addresses: Vec<SocketAddr> = address.into_iter().collect();
        self.with(now, |machine, now| machine.local_addresses(now, &addresses));
    }

    pub(crate) fn with<T>(&mut self, now: Instant, act: impl FnOnce(&mut M, Instant) -> T) -> T {
        let now = self.clock(now);
        let result = act(&mut self.machine, now);
        self.settle(now);
        result
    }

    /// A packet of the operating system enters the tunnel.
    pub(crate) fn tun_packet(&mut self, now: Instant, packet: &[u8]) {
        let now = self.clock(now);
        let mut packet = packet.to_vec();
        let mut out = vec![0; dataplane::room(packet.len(), 1)];
        match self.worker.outbound(now, VirtioHeader::NONE, &mut packet, &mut out) {
            Outbound::Send { path, datagrams, .. } => {
                out.truncate(datagrams.length);
                match path.stream {
                    None => self.send(path.local, path.remote, out),
                    Some(stream) => {
                        // RFC 8656, section 12.5.
                        out.resize(out.len().next_multiple_of(4), 0);
                        self.outputs.push_back(Output::Stream { id: StreamId(stream.0), bytes: out });
                    }
                }
            }
            Outbound::Miss => self.machine.tun_packet(now, &mut packet),
            Outbound::TooBig { .. } | Outbound::Drop(_) => {}
        }
        self.settle(now);
    }

    /// A datagram arrived from the network.
    pub(crate) fn datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        mut payload: Vec<u8>,
    ) {
        let now = self.clock(now);
        match self.worker.inbound(now, local, from, &mut payload) {
            Inbound::Tun(range) => self.outputs.push_back(Output::Tun(payload[range].to_vec())),
            Inbound::Miss { peer, range } => self.machine.peer_packet(now, peer, &mut payload[range]),
            Inbound::NotMine => self.machine.datagram(now, local, from, &mut payload),
            Inbound::Keepalive | Inbound::Drop(_) => {}
        }
        self.settle(now);
    }

    /// A message of a stream arrived.
    pub(crate) fn message(&mut self, now: Instant, from: StreamId, mut message: Vec<u8>) {
        let now = self.clock(now);
        match self.worker.inbound_message(now, dataplane::StreamId(from.0), &mut message) {
            Inbound::Tun(range) => self.outputs.push_back(Output::Tun(message[range].to_vec())),
            Inbound::Miss { peer, range } => self.machine.peer_packet(now, peer, &mut message[range]),
            Inbound::NotMine => self.machine.stream_message(now, from, &mut message),
            Inbound::Keepalive | Inbound::Drop(_) => {}
        }
        self.settle(now);
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        let now = self.clock(now);
        if self.worker.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.worker.handle_timeout(now);
        }
        if self.machine.next_timeout().is_some_and(|(at, _)| at <= now) {
            self.machine.timeout(now);
        }
        self.settle(now);
    }

    /// The next deadline on the world's clock.
    pub(crate) fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        self.next.filter(|_| self.is_on()).map(|(at, why)| (at + self.lag, why))
    }

    /// How much its machine holds.
    pub(crate) fn held(&self) -> Statistics {
        self.machine.held()
    }

    pub(crate) fn next_output(&mut self) -> Option<Output<M>> {
        self.outputs.pop_front()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let from = if from.ip().is_unspecified() { self.address } else { Some(from) };
        if let Some(from) = from.filter(|from| Some(*from) == self.address) {
            self.outputs.push_back(Output::Datagram { from, to, payload });
        }
    }

    /// Drains the machine as its program would: updates first.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some(update) = self.machine.next_update() {
                self.worker.apply(now, update);
            }
            while let Some(transmit) = self.machine.next_transmit() {
                let Transmit { source, destination, stream, payload } = transmit;
                match stream {
                    None => self.send(source, destination, payload),
                    Some(id) => self.outputs.push_back(Output::Stream { id, bytes: payload }),
                }
            }
            if let Some(wanted) = self.machine.next_streams() {
                self.outputs.push_back(Output::Streams(wanted));
            }
            self.worker.apply(now, Update::Flushed { misses: 0 });
            while let Some(packet) = self.machine.next_tun_write() {
                self.outputs.push_back(Output::Tun(packet));
            }
            while let Some(message) = self.machine.next_portal_message() {
                self.outputs.push_back(Output::Portal(message));
            }
            while let Some(event) = self.machine.next_event() {
                self.outputs.push_back(Output::Event(event));
            }
            let Some(event) = self.worker.poll_event() else { break };
            self.machine.worker_event(now, &event);
        }
        // Asked once for each thing that happens here, and not for each that happens anywhere.
        self.next = [self.worker.poll_timeout(), self.machine.next_timeout()].into_iter().flatten().min();
    }
}
