//! A machine with its worker, as one computer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use adit_dataplane::{self as dataplane, Inbound, Outbound, PeerId, Update, Worker};
use adit_packet::offload::VirtioHeader;
use adit_protocol::{ClientToPortal, GatewayToPortal, PortalToClient, PortalToGateway};
use adit_tunnel::{Client, ClientEvent, Gateway, GatewayEvent, Transmit};

/// What client and gateway have in common for those who drive them.
pub(crate) trait Machine {
    type ToPortal;
    type FromPortal;
    type Event;

    fn tun_packet(&mut self, now: Instant, packet: &mut [u8]);
    fn datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &mut [u8]);
    fn peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]);
    fn worker_event(&mut self, now: Instant, event: &dataplane::Event);
    fn portal(&mut self, now: Instant, message: Self::FromPortal);
    fn portal_lost(&mut self, now: Instant);
    fn local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]);
    fn timeout(&mut self, now: Instant);
    fn next_timeout(&self) -> Option<(Instant, &'static str)>;
    fn next_transmit(&mut self) -> Option<Transmit>;
    fn next_tun_write(&mut self) -> Option<Vec<u8>>;
    fn next_update(&mut self) -> Option<Update>;
    fn next_portal_message(&mut self) -> Option<Self::ToPortal>;
    fn next_event(&mut self) -> Option<Self::Event>;
}

macro_rules! machine {
    ($machine:ty, $to_portal:ty, $from_portal:ty, $event:ty) => {
        impl Machine for $machine {
            type ToPortal = $to_portal;
            type FromPortal = $from_portal;
            type Event = $event;

            fn tun_packet(&mut self, now: Instant, packet: &mut [u8]) {
                self.handle_tun_packet(now, packet);
            }
            fn datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &mut [u8]) {
                self.handle_datagram(now, local, from, datagram);
            }
            fn peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]) {
                self.handle_peer_packet(now, peer, packet);
            }
            fn worker_event(&mut self, now: Instant, event: &dataplane::Event) {
                self.handle_worker_event(now, event);
            }
            fn portal(&mut self, now: Instant, message: $from_portal) {
                self.handle_portal(now, message);
            }
            fn portal_lost(&mut self, now: Instant) {
                self.handle_portal_lost(now);
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
        }
    };
}

machine!(Client, ClientToPortal, PortalToClient, ClientEvent);
machine!(Gateway, GatewayToPortal, PortalToGateway, GatewayEvent);

/// What a computer puts out.
pub(crate) enum Output<M: Machine> {
    /// A datagram for the network.
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    /// A packet for the operating system.
    Tun(Vec<u8>),
    /// A message for the portal.
    Portal(M::ToPortal),
    /// An event of the machine.
    Event(M::Event),
}

/// A computer: a machine, its worker, and its addresses.
pub(crate) struct Host<M: Machine> {
    pub(crate) machine: M,
    pub(crate) worker: Worker,
    /// Its own socket addresses, at most one of each family.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Packets that the machine's operating system got, and when.
    pub(crate) received: Vec<(Instant, Vec<u8>)>,
    /// A host that is off hears and says nothing.
    pub(crate) is_off: bool,
    outputs: VecDeque<Output<M>>,
}

impl<M: Machine> Host<M> {
    pub(crate) fn new(now: Instant, machine: M, addresses: Vec<SocketAddr>, seed: u8) -> Self {
        let worker = Worker::new(now, dataplane::Config { seed: [seed; 32], max_flows: 10_000 });
        let mut host = Self {
            machine,
            worker,
            addresses,
            received: Vec::new(),
            is_off: false,
            outputs: VecDeque::new(),
        };
        host.machine.local_addresses(now, &host.addresses);
        host.settle(now);
        host
    }

    pub(crate) fn with<T>(&mut self, now: Instant, act: impl FnOnce(&mut M) -> T) -> T {
        let result = act(&mut self.machine);
        self.settle(now);
        result
    }

    /// A packet of the operating system enters the tunnel.
    pub(crate) fn tun_packet(&mut self, now: Instant, packet: &[u8]) {
        let mut packet = packet.to_vec();
        let mut out = vec![0; dataplane::room(packet.len(), 1)];
        match self.worker.outbound(now, VirtioHeader::NONE, &mut packet, &mut out) {
            Outbound::Send { path, datagrams, .. } => {
                out.truncate(datagrams.length);
                self.send(path.local, path.remote, out);
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
        match self.worker.inbound(now, local, from, &mut payload) {
            Inbound::Tun(range) => self.outputs.push_back(Output::Tun(payload[range].to_vec())),
            Inbound::Miss { peer, range } => self.machine.peer_packet(now, peer, &mut payload[range]),
            Inbound::NotMine => self.machine.datagram(now, local, from, &mut payload),
            Inbound::Keepalive | Inbound::Drop(_) => {}
        }
        self.settle(now);
    }

    pub(crate) fn portal(&mut self, now: Instant, message: M::FromPortal) {
        self.machine.portal(now, message);
        self.settle(now);
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        if self.worker.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.worker.handle_timeout(now);
        }
        if self.machine.next_timeout().is_some_and(|(at, _)| at <= now) {
            self.machine.timeout(now);
        }
        self.settle(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.is_off {
            return None;
        }
        [self.worker.poll_timeout(), self.machine.next_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn next_output(&mut self) -> Option<Output<M>> {
        self.outputs.pop_front()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let of_family = self.addresses.iter().find(|address| address.is_ipv4() == to.is_ipv4()).copied();
        let from = if from.ip().is_unspecified() { of_family } else { Some(from) };
        if let Some(from) = from {
            self.outputs.push_back(Output::Datagram { from, to, payload });
        }
    }

    /// Drains the machine as its program would.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some(update) = self.machine.next_update() {
                self.worker.apply(now, update);
            }
            while let Some(transmit) = self.machine.next_transmit() {
                self.send(transmit.source, transmit.destination, transmit.payload);
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
            let Some(event) = self.worker.poll_event() else { return };
            self.machine.worker_event(now, &event);
        }
    }
}
