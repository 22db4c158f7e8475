//! The world: who there is, and what happens next.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_packet::PacketView;
use adit_policy::Resource;
use adit_protocol::{ClientToPortal, GatewayToPortal, PortalToClient, PortalToGateway};
use adit_tunnel::{
    Client, ClientConfig, ClientEvent, Gateway, GatewayConfig, GatewayEvent, Handover, LookupId,
    ResolveFailure,
};
use adit_wireguard::PrivateKey;

use crate::host::{Host, Machine, Output};
use crate::network::Network;
use crate::packets;
use crate::portal::{Out, Portal, client_id, gateway_id, site};
use crate::relay::{Relay, Zone};

const UNIX_START: Duration = Duration::from_secs(1_800_000_000);
/// One way between the portal and everybody.
const PORTAL_LATENCY: Duration = Duration::from_millis(20);
/// There and back between a gateway and what is behind it.
const LOCAL_LATENCY: Duration = Duration::from_millis(1);

enum Delivery {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    FromClient(usize, ClientToPortal),
    FromGateway(usize, GatewayToPortal),
    ToClient(usize, PortalToClient),
    ToGateway(usize, PortalToGateway),
    Resolved(usize, LookupId, Result<Vec<IpAddr>, ResolveFailure>),
    /// A resource's answer arrives at the gateway's TUN device.
    Answer(usize, Vec<u8>),
}

pub(crate) struct World {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) clients: Vec<Host<Client>>,
    pub(crate) gateways: Vec<Host<Gateway>>,
    pub(crate) client_events: Vec<ClientEvent>,
    pub(crate) portal: Portal,
    pub(crate) is_portal_up: bool,
    /// Added to what the portal says to gateways.
    pub(crate) gateway_delay: Duration,
    pub(crate) network: Network,
    pub(crate) relay: Relay,
    pub(crate) zone: Zone,
    /// Names that gateways asked for.
    pub(crate) lookups: Vec<String>,
    /// Resources that say nothing.
    pub(crate) are_resources_silent: bool,
    /// The gateways' resolver does not answer.
    pub(crate) is_resolver_silent: bool,
    queue: BTreeMap<(Instant, u64), Delivery>,
    queued: u64,
}

impl World {
    /// A world with one client, one gateway at site 1, and these resources; all online.
    pub(crate) fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let now = Instant::now();
        let relay = Relay::new(now, UNIX_START);
        let mut network = Network::new(1);
        network.relay.push(relay.address());
        let mut portal = Portal::new();
        portal.resources = resources.into_iter().map(|resource| (resource.id, resource)).collect();
        let mut world = Self {
            now,
            start: now,
            clients: Vec::new(),
            gateways: Vec::new(),
            client_events: Vec::new(),
            portal,
            is_portal_up: true,
            gateway_delay: Duration::ZERO,
            network,
            relay,
            zone: Zone::new(),
            lookups: Vec::new(),
            are_resources_silent: false,
            is_resolver_silent: false,
            queue: BTreeMap::new(),
            queued: 0,
        };
        world.add_client();
        world.add_gateway(1);
        world.run(Duration::from_secs(2));
        world
    }

    pub(crate) fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        let key = PrivateKey::from_bytes([0x40 + index as u8; 32]);
        self.portal.add_client(client_id(index), key.public_key().0, index);
        let unix = self.unix();
        let machine = Client::new(
            self.now,
            unix,
            ClientConfig { private_key: key, seed: [0x50 + index as u8; 32], profile: 0 },
        );
        let inner = SocketAddr::from(([192, 168, 1 + index as u8, 2], 51820));
        self.network.add_nat(inner, SocketAddr::from(([198, 51, 100, 1 + index as u8], 40_000)));
        self.clients.push(Host::new(self.now, machine, vec![inner], index as u8));
        self.connect_client(index);
        index
    }

    pub(crate) fn add_gateway(&mut self, site_number: u128) -> usize {
        let index = self.gateways.len();
        let host = self.new_gateway(index, 0, site_number);
        self.gateways.push(host);
        self.connect_gateway(index);
        index
    }

    fn new_gateway(&mut self, index: usize, run: u8, site_number: u128) -> Host<Gateway> {
        let key = PrivateKey::from_bytes([0x80 + index as u8 + 16 * run; 32]);
        self.portal.add_gateway(gateway_id(index), key.public_key().0, index, site(site_number).id);
        let config = GatewayConfig {
            private_key: key,
            seed: [0xa0 + index as u8 + run; 32],
            reset_secret: Some([9; 32]),
        };
        let machine = Gateway::new(self.now, self.unix(), config);
        let inner = SocketAddr::from(([192, 168, 100 + index as u8, 2], 51821));
        self.network.add_nat(inner, SocketAddr::from(([203, 0, 113, 1 + index as u8], 41_000)));
        Host::new(self.now, machine, vec![inner], 100 + index as u8)
    }

    /// The gateway's program starts again, with a new key as every run has.
    pub(crate) fn restart_gateway(&mut self, index: usize) {
        self.gateways[index] = self.new_gateway(index, 1, 1);
        self.connect_gateway(index);
    }

    /// The gateway's program makes room for a successor and is gone.
    pub(crate) fn hand_over(&mut self, index: usize, back_within: Duration) -> Handover {
        let handover = self.with_gateway(index, |gateway, now| gateway.hand_over(now, back_within));
        self.gateways[index].is_off = true;
        handover.expect("a gateway that was configured")
    }

    /// The successor starts; it has not heard of the portal yet.
    pub(crate) fn take_over(&mut self, index: usize, handover: Handover, away: Duration) {
        let config = GatewayConfig {
            private_key: PrivateKey::from_bytes([0x80 + index as u8; 32]),
            seed: [0xf0 + index as u8; 32],
            reset_secret: Some([9; 32]),
        };
        let machine = Gateway::new(self.now, self.unix(), config);
        let addresses = self.gateways[index].addresses.clone();
        self.gateways[index] = Host::new(self.now, machine, addresses, 200 + index as u8);
        self.with_gateway(index, |gateway, now| gateway.take_over(now, handover, away));
    }

    pub(crate) fn connect_client(&mut self, index: usize) {
        let relays = vec![self.relay.access(&format!("client{index}"), self.unix())];
        let init = self.portal.init_client(self.unix_ms(), client_id(index), relays);
        self.schedule(PORTAL_LATENCY, Delivery::ToClient(index, init));
    }

    pub(crate) fn connect_gateway(&mut self, index: usize) {
        let relays = vec![self.relay.access(&format!("gateway{index}"), self.unix())];
        let init = self.portal.init_gateway(self.unix_ms(), gateway_id(index), relays);
        self.schedule(PORTAL_LATENCY, Delivery::ToGateway(index, init));
    }

    /// The client changes its network: another address, behind another NAT.
    pub(crate) fn roam_client(&mut self, index: usize) {
        let inner = SocketAddr::from(([172, 20, index as u8, 5], 51820));
        self.network.add_nat(inner, SocketAddr::from(([198, 51, 100, 101 + index as u8], 45_000)));
        self.clients[index].addresses = vec![inner];
        self.with_client(index, |client, now| client.set_local_addresses(now, &[inner]));
    }

    /// Everybody loses the portal.
    pub(crate) fn stop_portal(&mut self) {
        self.is_portal_up = false;
        for client in &mut self.clients {
            client.with(self.now, |machine| machine.portal_lost(self.now));
        }
        for gateway in &mut self.gateways {
            gateway.with(self.now, |machine| machine.portal_lost(self.now));
        }
    }

    /// The portal is back, and everybody finds it.
    pub(crate) fn start_portal(&mut self) {
        self.is_portal_up = true;
        (0..self.clients.len()).for_each(|index| self.connect_client(index));
        (0..self.gateways.len()).for_each(|index| self.connect_gateway(index));
    }

    /// An administrator does something at the portal.
    pub(crate) fn administer(&mut self, act: impl FnOnce(&mut Portal) -> Vec<Out>) {
        let out = act(&mut self.portal);
        self.tell(out);
    }

    /// An application's packet.
    pub(crate) fn client_sends(&mut self, index: usize, packet: &[u8]) {
        self.clients[index].tun_packet(self.now, packet);
        self.drain();
    }

    /// A packet of a resource arrives at a gateway's TUN device.
    pub(crate) fn resource_sends(&mut self, index: usize, packet: &[u8]) {
        self.gateways[index].tun_packet(self.now, packet);
        self.drain();
    }

    /// An application looks up a name; its proxy addresses, which need no packet to leave.
    pub(crate) fn look_up(&mut self, index: usize, name: &str, kind: u16) -> Vec<IpAddr> {
        let (source, resolver) = (client_address(index, 5353), SocketAddr::from((RESOLVER, 53)));
        let query = packets::query(name, kind);
        let before = self.clients[index].received.len();
        self.client_sends(index, &packets::udp(source, resolver, &query));
        let Some((_, packet)) = self.clients[index].received.get(before) else { return Vec::new() };
        let view = PacketView::parse(packet).expect("well-formed");
        assert_eq!(view.source_socket(), Some(resolver));
        packets::addresses(&query, view.udp_payload(packet).expect("a UDP answer"))
    }

    /// A client's UDP packet to `destination`.
    pub(crate) fn client_sends_udp(&mut self, index: usize, source_port: u16, destination: SocketAddr) {
        let source = match destination {
            SocketAddr::V4(_) => client_address(index, source_port),
            SocketAddr::V6(_) => SocketAddr::new(client_ipv6(index), source_port),
        };
        self.client_sends(index, &packets::udp(source, destination, b"hello"));
    }

    /// What came back after a client's UDP packet to `destination`: the answer, or an ICMP error.
    pub(crate) fn exchange(&mut self, index: usize, source_port: u16, destination: SocketAddr) -> Reply {
        let before = self.clients[index].received.len();
        self.client_sends_udp(index, source_port, destination);
        let answer = self.await_packet_after(index, before, Duration::from_secs(20));
        let Some((packet, took)) = answer else { return Reply::Nothing };
        if let Some((error, flow)) = packets::icmp_error(&packet) {
            assert_eq!((flow.destination, flow.destination_port), (destination.ip(), destination.port()));
            return Reply::Error(error, took);
        }
        let view = PacketView::parse(&packet).expect("well-formed");
        adit_packet::checksum::verify(&packet).expect("right checksums");
        assert_eq!(view.source_socket(), Some(destination));
        assert_eq!(view.destination_port(), Some(source_port));
        Reply::Answer(took)
    }

    /// Acts on a client's machine.
    pub(crate) fn with_client<T>(&mut self, index: usize, act: impl FnOnce(&mut Client, Instant) -> T) -> T {
        let now = self.now;
        let result = self.clients[index].with(now, |machine| act(machine, now));
        self.drain();
        result
    }

    /// Acts on a gateway's machine.
    pub(crate) fn with_gateway<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Gateway, Instant) -> T,
    ) -> T {
        let now = self.now;
        let result = self.gateways[index].with(now, |machine| act(machine, now));
        self.drain();
        result
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until the client got a packet, and returns it with the time it took.
    pub(crate) fn await_packet(&mut self, index: usize, limit: Duration) -> Option<(Vec<u8>, Duration)> {
        self.await_packet_after(index, self.clients[index].received.len(), limit)
    }

    fn await_packet_after(
        &mut self,
        index: usize,
        before: usize,
        limit: Duration,
    ) -> Option<(Vec<u8>, Duration)> {
        let begin = self.now;
        self.run_until(begin + limit, |world| world.clients[index].received.len() > before);
        let (at, packet) = self.clients[index].received.get(before)?;
        Some((packet.clone(), *at - begin))
    }

    fn run_until(&mut self, end: Instant, is_done: impl Fn(&Self) -> bool) {
        self.drain();
        let mut steps = 0;
        while !is_done(self) {
            let Some(next) = self.next_moment().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            steps += 1;
            assert!(steps < 200_000, "the world spins: {:?}", self.reasons());
            self.now = self.now.max(next);
            self.step();
            self.drain();
        }
    }

    fn reasons(&self) -> Vec<(Instant, &'static str)> {
        let clients = self.clients.iter().filter_map(Host::next_timeout);
        clients.chain(self.gateways.iter().filter_map(Host::next_timeout)).collect()
    }

    fn next_moment(&self) -> Option<Instant> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let relay = self.relay.server.poll_timeout();
        let timeouts = self.reasons().into_iter().chain(relay).map(|(at, _)| at);
        timeouts.chain(queued).min()
    }

    fn step(&mut self) {
        let now = self.now;
        let due: Vec<(Instant, u64)> = self.queue.range(..=(now, u64::MAX)).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(delivery) = self.queue.remove(&key) {
                self.deliver(delivery);
                self.drain();
            }
        }
        self.clients.iter_mut().for_each(|client| client.timeout(now));
        self.gateways.iter_mut().filter(|gateway| !gateway.is_off).for_each(|gateway| gateway.timeout(now));
        if self.relay.server.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.relay.server.handle_timeout(now);
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Datagram { from, to, payload } => self.deliver_datagram(from, to, payload),
            Delivery::FromClient(index, message) if self.is_portal_up => {
                let out = self.portal.take_from_client(self.unix_ms(), client_id(index), message);
                self.tell(out);
            }
            Delivery::FromGateway(index, message) if self.is_portal_up => {
                let out = self.portal.take_from_gateway(gateway_id(index), message);
                self.tell(out);
            }
            Delivery::ToClient(index, message) if self.is_portal_up => {
                self.clients[index].portal(now, message)
            }
            Delivery::ToGateway(index, message) if self.is_portal_up && !self.gateways[index].is_off => {
                self.gateways[index].portal(now, message);
            }
            Delivery::Resolved(index, id, result) => {
                self.with_gateway(index, |gateway, now| gateway.handle_resolved(now, id, result));
            }
            Delivery::Answer(index, packet) => self.gateways[index].tun_packet(now, &packet),
            _ => {}
        }
    }

    fn deliver_datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if to.ip() == self.relay.address() {
            for (from, to, payload) in self.relay.datagram(self.now, from, to, &payload) {
                self.transmit(from, to, payload);
            }
            return;
        }
        let Some(to) = self.network.deliver(from, to) else { return };
        let now = self.now;
        if let Some(client) = self.clients.iter_mut().find(|host| host.addresses.contains(&to)) {
            client.datagram(now, to, from, payload);
        } else if let Some(gateway) =
            self.gateways.iter_mut().find(|host| host.addresses.contains(&to) && !host.is_off)
        {
            gateway.datagram(now, to, from, payload);
        }
    }

    fn transmit(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if let Some((at, outer)) = self.network.send(self.now, from, to) {
            self.schedule(at - self.now, Delivery::Datagram { from: outer, to, payload });
        }
    }

    fn tell(&mut self, out: Vec<Out>) {
        for message in out {
            match message {
                Out::Client(id, message) => {
                    let index = (0..self.clients.len()).find(|index| client_id(*index) == id).expect("known");
                    self.schedule(PORTAL_LATENCY, Delivery::ToClient(index, message));
                }
                Out::Gateway(id, message) => {
                    let index =
                        (0..self.gateways.len()).find(|index| gateway_id(*index) == id).expect("known");
                    self.schedule(PORTAL_LATENCY + self.gateway_delay, Delivery::ToGateway(index, message));
                }
            }
        }
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), delivery);
    }

    /// Carries on what the computers put out.
    fn drain(&mut self) {
        for index in 0..self.clients.len() {
            while let Some(output) = self.clients[index].next_output() {
                match output {
                    Output::Datagram { from, to, payload } => self.transmit(from, to, payload),
                    Output::Tun(packet) => receive(self.now, &mut self.clients[index], packet),
                    Output::Portal(message) => {
                        self.schedule(PORTAL_LATENCY, Delivery::FromClient(index, message))
                    }
                    Output::Event(event) => self.client_events.push(event),
                }
            }
        }
        for index in 0..self.gateways.len() {
            while let Some(output) = self.gateways[index].next_output() {
                if !self.gateways[index].is_off {
                    self.gateway_output(index, output);
                }
            }
        }
    }

    fn gateway_output(&mut self, index: usize, output: Output<Gateway>) {
        match output {
            Output::Datagram { from, to, payload } => self.transmit(from, to, payload),
            Output::Tun(packet) => {
                if !self.are_resources_silent
                    && let Some(answer) = packets::answer_to(&packet)
                {
                    self.schedule(LOCAL_LATENCY, Delivery::Answer(index, answer));
                }
                receive(self.now, &mut self.gateways[index], packet);
            }
            Output::Portal(message) => self.schedule(PORTAL_LATENCY, Delivery::FromGateway(index, message)),
            Output::Event(GatewayEvent::Resolve { id, name }) => {
                let result = self.zone.get(&name).cloned().ok_or(ResolveFailure::NotFound);
                self.lookups.push(name);
                if !self.is_resolver_silent {
                    self.schedule(LOCAL_LATENCY, Delivery::Resolved(index, id, result));
                }
            }
            Output::Event(GatewayEvent::InterfaceChanged(_)) => {}
        }
    }

    pub(crate) fn unix(&self) -> Duration {
        UNIX_START + (self.now - self.start)
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix().as_millis() as u64
    }

    /// Nothing of any connection is left on any machine, whatever happened before.
    pub(crate) fn assert_nothing_left(&self) {
        for (index, client) in self.clients.iter().enumerate() {
            let sizes = client.worker.sizes();
            assert_eq!((sizes.flows, sizes.peers, sizes.sessions), (0, 0, 0), "worker of client {index}");
            assert_eq!(client.machine.statistics(), Default::default(), "client {index}");
        }
        for (index, gateway) in self.gateways.iter().enumerate().filter(|(_, gateway)| !gateway.is_off) {
            let sizes = gateway.worker.sizes();
            assert_eq!((sizes.flows, sizes.peers, sizes.sessions), (0, 0, 0), "worker of gateway {index}");
            assert_eq!(gateway.machine.statistics(), Default::default(), "gateway {index}");
        }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer(Duration),
    Error((u8, u8), Duration),
    Nothing,
}

impl Reply {
    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Self::Answer(_))
    }

    pub(crate) fn is_error(self, expected: (u8, u8)) -> bool {
        matches!(self, Self::Error(error, _) if error == expected)
    }
}

/// Where clients find the resolver.
pub(crate) const RESOLVER: [u8; 4] = [100, 96, 0, 1];

pub(crate) fn client_address(index: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([100, 64, 0, 10 + index as u8], port))
}

pub(crate) fn client_ipv6(index: usize) -> IpAddr {
    IpAddr::from([0xfd00, 0xad17, 0, 0, 0, 0, 0, 10 + index as u16])
}

fn receive<M: Machine>(now: Instant, host: &mut Host<M>, packet: Vec<u8>) {
    PacketView::parse(&packet).expect("well-formed packets only");
    host.received.push((now, packet));
}
