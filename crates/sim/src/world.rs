//! The world: who there is, and what happens next.

mod act;
mod sessions;
mod tcp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_policy::{ClientId, GatewayId, Resource, ResourceAddress, ResourceId, Site, SiteId};
use adit_protocol::{ClientToPortal, GatewayToPortal, PortalToClient, PortalToGateway};
use adit_tunnel::{Client, ClientEvent, Gateway, GatewayEvent, Handover, LookupId, Statistics};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use uuid::Uuid;

use crate::computer::{Computer, Output, Power};
use crate::nat::{Filtering, Mapping};
use crate::network::{Network, Quality};
use crate::packets;
use crate::portal::{Out, Portal};
use crate::relay::{Relay, Sent};
use tcp::{Connection, Owner, Step};

/// The time of day at which every world begins.
const UNIX_START: Duration = Duration::from_secs(1_800_000_000);
/// One way between the portal and everybody.
const PORTAL_LATENCY: Duration = Duration::from_millis(15);
/// There and back between a gateway and what is behind it.
const LOCAL_LATENCY: Duration = Duration::from_millis(1);
/// An ICMP error's way back.
const REFUSAL_LATENCY: Duration = Duration::from_millis(30);

/// Where clients find the resolver.
const RESOLVER: [u8; 4] = [100, 96, 0, 1];

/// How large a world is, and how its network behaves.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients, 1 to 8.
    pub clients: usize,
    /// Sites with two resources each: a network and a name.
    pub sites: usize,
    /// Gateways of each site.
    pub gateways_per_site: usize,
    /// Relays.
    pub relays: usize,
    /// Datagrams of a thousand that are lost.
    pub loss: u32,
    /// Datagrams of a thousand that arrive twice.
    pub duplication: u32,
    /// Random extra delay up to this; more than the gap between datagrams reorders them.
    pub jitter: Duration,
    /// How long leases last.
    pub lease_time: Duration,
    /// Whether resources answer.
    pub has_echo: bool,
}

impl Shape {
    /// A small world without any imperfection.
    pub const PLAIN: Self = Self {
        clients: 1,
        sites: 1,
        gateways_per_site: 1,
        relays: 1,
        loss: 0,
        duplication: 0,
        jitter: Duration::ZERO,
        lease_time: Duration::from_secs(3600),
        has_echo: true,
    };

    /// Any world.
    pub fn random(random: &mut ChaCha20Rng) -> Self {
        Self {
            clients: random.random_range(1..=3),
            sites: random.random_range(1..=2),
            gateways_per_site: random.random_range(1..=3),
            relays: random.random_range(1..=2),
            loss: [0, 0, 10, 50][random.random_range(0..4)],
            duplication: random.random_range(0..=20),
            jitter: Duration::from_micros(random.random_range(0..10_000)),
            lease_time: Duration::from_secs([60, 3600, 3600][random.random_range(0..3)]),
            has_echo: true,
        }
    }

    /// How many gateways there are in all.
    pub const fn gateways(&self) -> usize {
        self.sites * self.gateways_per_site
    }

    /// How many resources there are in all.
    pub const fn resources(&self) -> usize {
        self.sites * 2
    }

    /// The site of a gateway.
    pub const fn site_of_gateway(&self, gateway: usize) -> usize {
        gateway / self.gateways_per_site
    }
}

/// A numbered datagram of an application, and what became of it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who sent it.
    pub client: usize,
    /// Where to.
    pub resource: usize,
    /// When.
    pub sent: Instant,
    /// When its echo came back.
    pub answered: Option<Instant>,
}

/// A probe reached a resource.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Who sent it.
    pub client: usize,
    /// Which resource.
    pub resource: usize,
    /// Through which gateway.
    pub gateway: usize,
    /// When.
    pub at: Instant,
}

#[derive(Debug)]
enum Delivery {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    /// An ICMP error for the sender of a datagram `from` somebody `to` a closed port.
    Unreachable {
        from: SocketAddr,
        to: SocketAddr,
    },
    Tcp(u32, Step),
    FromClient(usize, u64, ClientToPortal),
    FromGateway(usize, u64, GatewayToPortal),
    ToClient(usize, u64, PortalToClient),
    ToGateway(usize, u64, PortalToGateway),
    ClientHello(usize, u64),
    GatewayHello(usize, u64),
    ClientSilent(usize, u64),
    GatewaySilent(usize, u64),
    Resolved(usize, u64, LookupId, Vec<IpAddr>),
    Echo(usize, u64, Vec<u8>),
    Tick(usize, usize, u64),
    WakeClient(usize, Instant, bool),
    ThawGateway(usize, u64),
    Successor(usize, u64, Box<Handover>, Duration),
}

/// What the portal's side knows of a session, and which run of the program it belongs to.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// Counts sessions and attempts; messages of earlier ones are void.
    number: u64,
    is_open: bool,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The present moment.
    pub now: Instant,
    /// The first moment.
    pub start: Instant,
    /// How large it is.
    pub shape: Shape,
    random: ChaCha20Rng,
    network: Network,
    portal: Portal,
    is_portal_up: bool,
    relays: Vec<Relay>,
    clients: Vec<Computer<Client>>,
    gateways: Vec<Computer<Gateway>>,
    client_places: Vec<usize>,
    gateway_places: Vec<usize>,
    client_sessions: Vec<Session>,
    gateway_sessions: Vec<Session>,
    client_runs: Vec<u64>,
    gateway_runs: Vec<u64>,
    gateway_keys: Vec<[u8; 32]>,
    /// Messages of sessions that stand still: the peer is cut off or asleep.
    stalled: Vec<Delivery>,
    traffic: BTreeMap<(usize, usize), (u64, Duration)>,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    names: BTreeMap<(usize, usize), IpAddr>,
    dns_answer: Option<Vec<u8>>,
    probes: BTreeMap<u64, Probe>,
    next_probe: u64,
    arrivals: Vec<Arrival>,
    /// Connections that clients lost, whatever the reason.
    pub closings: usize,
    queue: BTreeMap<(Instant, u64), Delivery>,
    queued: u64,
    /// Steps taken; a world that spins is a defect.
    pub steps: u64,
}

pub(crate) fn client_id(index: usize) -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(0x100 + index as u128))
}

pub(crate) fn gateway_id(index: usize) -> GatewayId {
    GatewayId::from_uuid(Uuid::from_u128(0x200 + index as u128))
}

fn resource_id(number: usize) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(0x300 + number as u128))
}

fn site_id(number: usize) -> SiteId {
    SiteId::from_uuid(Uuid::from_u128(0x400 + number as u128))
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).expect("a small world")
}

/// The name behind the resource that is one.
fn name_of(resource: usize) -> String {
    format!("app.site{}.corp", resource / 2)
}

/// Each site has a network and a name.
fn resource(number: usize) -> Resource {
    let site = number / 2;
    let address = if number.is_multiple_of(2) {
        let network = format!("10.{}.0.0/16", byte(site));
        ResourceAddress::Cidr { network: network.parse().expect("network") }
    } else {
        ResourceAddress::Dns { pattern: format!("*.site{site}.corp") }
    };
    Resource {
        id: resource_id(number),
        name: format!("resource {number}"),
        address,
        site: Site { id: site_id(site), name: format!("site {site}") },
        filters: vec![],
    }
}

impl World {
    /// A world in which everybody is online, every client may reach everything, and nothing has been sent.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let now = Instant::now();
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let quality = Quality {
            jitter: shape.jitter,
            loss: shape.loss,
            duplication: shape.duplication,
            largest: 1_452,
        };
        let mut network = Network::new(quality);
        let relays: Vec<Relay> =
            (0..shape.relays).map(|number| Relay::new(now, UNIX_START, number, random.random())).collect();
        network.relays = relays.iter().map(Relay::address).collect();
        let portal = Portal::new((0..shape.resources()).map(resource).collect(), shape.lease_time);
        let mut world = Self {
            now,
            start: now,
            shape,
            random,
            network,
            portal,
            is_portal_up: true,
            relays,
            clients: Vec::new(),
            gateways: Vec::new(),
            client_places: Vec::new(),
            gateway_places: Vec::new(),
            client_sessions: vec![Session::default(); shape.clients],
            gateway_sessions: vec![Session::default(); shape.gateways()],
            client_runs: vec![0; shape.clients],
            gateway_runs: vec![0; shape.gateways()],
            gateway_keys: vec![[0; 32]; shape.gateways()],
            stalled: Vec::new(),
            traffic: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            names: BTreeMap::new(),
            dns_answer: None,
            probes: BTreeMap::new(),
            next_probe: 1,
            arrivals: Vec::new(),
            closings: 0,
            queue: BTreeMap::new(),
            queued: 0,
            steps: 0,
        };
        world.populate();
        world.run_for(Duration::from_secs(2));
        world
    }

    fn populate(&mut self) {
        for index in 0..self.shape.gateways() {
            let site = site_id(self.shape.site_of_gateway(index));
            self.portal.add_gateway(gateway_id(index), 100 + byte(index), site);
            let place = self.any_place();
            self.gateway_places.push(place);
            let machine = self.new_gateway(index);
            self.gateways.push(machine);
            self.schedule_gateway_hello(index);
        }
        for index in 0..self.shape.clients {
            self.portal.add_client(client_id(index), 10 + byte(index));
            for number in 0..self.shape.resources() {
                self.portal.grant(client_id(index), resource_id(number));
            }
            let place = self.any_place();
            self.client_places.push(place);
            let machine = self.new_client(index);
            self.clients.push(machine);
            self.schedule_client_hello(index);
        }
    }

    fn any_place(&mut self) -> usize {
        let mappings =
            [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
        let filterings =
            [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
        let is_public = self.random.random_range(0..4) == 0;
        let kind = (mappings[self.random.random_range(0..3)], filterings[self.random.random_range(0..3)]);
        let delay = Duration::from_millis(self.random.random_range(1..60));
        self.network.add_place((!is_public).then_some(kind), delay)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.drain();
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            self.steps += 1;
            self.now = self.now.max(next);
            self.step();
            self.drain();
        }
        self.now = end;
    }

    fn next_moment(&self) -> Option<Instant> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let clients = self.clients.iter().filter_map(|client| client.next_timeout());
        let gateways = self.gateways.iter().filter_map(|gateway| gateway.next_timeout());
        let relays =
            self.relays.iter().filter(|relay| relay.is_up).filter_map(|relay| relay.server.poll_timeout());
        clients.chain(gateways).chain(relays).map(|(at, _)| at).chain(queued).min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(((at, number), _)) = self.queue.first_key_value()
            && *at <= now
        {
            let key = (*at, *number);
            if let Some(delivery) = self.queue.remove(&key) {
                self.deliver(delivery);
                self.drain();
            }
        }
        let due = |next: Option<(Instant, &'static str)>| next.is_some_and(|(at, _)| at <= now);
        self.clients
            .iter_mut()
            .filter(|client| due(client.next_timeout()))
            .for_each(|client| client.timeout(now));
        self.gateways
            .iter_mut()
            .filter(|one| due(one.next_timeout()))
            .for_each(|gateway| gateway.timeout(now));
        for index in 0..self.relays.len() {
            if self.relays[index].is_up && due(self.relays[index].server.poll_timeout()) {
                self.relays[index].server.handle_timeout(now);
                let out = self.relays[index].commands(now);
                self.relay_sends(out);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Datagram { from, to, payload } => self.deliver_datagram(from, to, payload),
            Delivery::Unreachable { from, to } => self.deliver_unreachable(from, to),
            Delivery::Tcp(number, step) => self.tcp_step(number, step),
            Delivery::Resolved(index, run, id, addresses) if self.is_run(index, run) => {
                self.gateways[index]
                    .with(now, |gateway, now| gateway.handle_resolved(now, id, Ok(addresses)));
            }
            Delivery::Echo(index, run, packet) if self.is_run(index, run) => {
                self.gateways[index].tun_packet(now, &packet);
            }
            Delivery::Tick(client, resource, generation) => self.tick(client, resource, generation),
            Delivery::WakeClient(index, since, stops_clock) => self.wake_client(index, since, stops_clock),
            Delivery::ThawGateway(index, run) => self.thaw_gateway(index, run),
            Delivery::Successor(index, run, handover, away) => self.succeed(index, run, *handover, away),
            Delivery::Resolved(..) | Delivery::Echo(..) => {}
            session => self.deliver_session(session),
        }
    }

    /// Whether a gateway's program is the same as then, and running.
    fn is_run(&self, gateway: usize, run: u64) -> bool {
        self.gateway_runs[gateway] == run && self.gateways[gateway].is_on()
    }

    fn deliver_datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let now = self.now;
        if let Some(index) = self.relays.iter().position(|relay| relay.address() == to.ip()) {
            if self.relays[index].is_up {
                let out = self.relays[index].datagram(now, from, to, &payload);
                self.relay_sends(out);
            } else {
                self.refuse(from, to);
            }
            return;
        }
        let outer = to;
        let Some((place, to)) = self.network.deliver(now, from, to) else { return };
        if let Some(index) = self.client_places.iter().position(|here| *here == place) {
            if self.clients[index].is_on() && self.clients[index].address == Some(to) {
                self.clients[index].datagram(now, to, from, payload);
            }
        } else if let Some(index) = self.gateway_places.iter().position(|here| *here == place) {
            match self.gateways[index].power {
                Power::On => self.gateways[index].datagram(now, to, from, payload),
                Power::Off => self.refuse(from, outer),
                Power::Asleep => {}
            }
        }
    }

    /// Nobody listens there any more. Half of the time the host says so.
    fn refuse(&mut self, from: SocketAddr, to: SocketAddr) {
        if self.random.random_range(0..2) == 0 {
            self.schedule(REFUSAL_LATENCY, Delivery::Unreachable { from, to });
        }
    }

    fn deliver_unreachable(&mut self, from: SocketAddr, to: SocketAddr) {
        let now = self.now;
        let Some((place, inner)) = self.network.deliver(now, to, from) else { return };
        if let Some(index) = self.client_places.iter().position(|here| *here == place) {
            if self.clients[index].is_on() && self.clients[index].address == Some(inner) {
                self.clients[index].with(now, |client, now| client.handle_unreachable(now, to));
            }
        } else if let Some(index) = self.gateway_places.iter().position(|here| *here == place)
            && self.gateways[index].is_on()
        {
            self.gateways[index].with(now, |gateway, now| gateway.handle_unreachable(now, to));
        }
    }

    fn relay_sends(&mut self, out: Vec<Sent>) {
        for sent in out {
            match sent {
                Sent::Datagram(from, to, payload) => self.transmit(None, from, to, payload),
                Sent::Bytes(connection, bytes) => self.tcp_write(connection, tcp::COMPUTER, bytes),
            }
        }
    }

    fn transmit(&mut self, origin: Option<usize>, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let arrivals = self.network.send(self.now, &mut self.random, origin, from, to, payload.len());
        for arrival in arrivals {
            let datagram = Delivery::Datagram { from: arrival.from, to, payload: payload.clone() };
            self.schedule_at(arrival.at, datagram);
        }
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.schedule_at(self.now + after, delivery);
    }

    fn schedule_at(&mut self, at: Instant, delivery: Delivery) {
        self.queued += 1;
        self.queue.insert((at, self.queued), delivery);
    }

    /// Carries on what the computers put out.
    fn drain(&mut self) {
        for index in 0..self.clients.len() {
            while let Some(output) = self.clients[index].next_output() {
                self.client_output(index, output);
            }
        }
        for index in 0..self.gateways.len() {
            while let Some(output) = self.gateways[index].next_output() {
                self.gateway_output(index, output);
            }
        }
    }

    fn client_output(&mut self, index: usize, output: Output<Client>) {
        match output {
            Output::Datagram { from, to, payload } => {
                self.transmit(Some(self.client_places[index]), from, to, payload);
            }
            Output::Stream { id, bytes } => self.tcp_send(Owner::Client(index), id, bytes),
            Output::Streams(wanted) => self.tcp_want(Owner::Client(index), &wanted),
            Output::Tun(packet) => {
                if let Some(probe) = packets::number(&packet).and_then(|number| self.probes.get_mut(&number))
                {
                    probe.answered.get_or_insert(self.now);
                } else if !packets::is_error(&packet) {
                    self.dns_answer = Some(packet);
                }
            }
            Output::Portal(message) => {
                let session = self.client_sessions[index].number;
                self.schedule(PORTAL_LATENCY, Delivery::FromClient(index, session, message));
            }
            Output::Event(ClientEvent::ConnectionChanged { status: None, .. }) => self.closings += 1,
            Output::Event(_) => {}
        }
    }

    fn gateway_output(&mut self, index: usize, output: Output<Gateway>) {
        let run = self.gateway_runs[index];
        match output {
            Output::Datagram { from, to, payload } => {
                self.transmit(Some(self.gateway_places[index]), from, to, payload);
            }
            Output::Stream { id, bytes } => self.tcp_send(Owner::Gateway(index), id, bytes),
            Output::Streams(wanted) => self.tcp_want(Owner::Gateway(index), &wanted),
            Output::Tun(packet) => self.reach_resource(index, run, &packet),
            Output::Portal(message) => {
                let session = self.gateway_sessions[index].number;
                self.schedule(PORTAL_LATENCY, Delivery::FromGateway(index, session, message));
            }
            Output::Event(GatewayEvent::Resolve { id, name }) => {
                let site = (0..self.shape.sites).find(|site| name_of(site * 2) == name);
                let addresses =
                    site.map(|site| IpAddr::from([10, 100 + byte(site), 0, 1])).into_iter().collect();
                self.schedule(LOCAL_LATENCY, Delivery::Resolved(index, run, id, addresses));
            }
            Output::Event(GatewayEvent::InterfaceChanged(_)) => {}
        }
    }

    fn reach_resource(&mut self, gateway: usize, run: u64, packet: &[u8]) {
        let Some(probe) = packets::number(packet).and_then(|number| self.probes.get(&number)) else { return };
        let Probe { client, resource, .. } = *probe;
        self.arrivals.push(Arrival { client, resource, gateway, at: self.now });
        if self.shape.has_echo
            && let Some(echo) = packets::echo(packet)
        {
            self.schedule(LOCAL_LATENCY, Delivery::Echo(gateway, run, echo));
        }
    }

    /// Everything that is known of probes sent before `until`, and forgets them.
    pub fn take_probes(&mut self, until: Instant) -> Vec<Probe> {
        let later = self.probes.iter().find(|(_, probe)| probe.sent >= until).map(|(number, _)| *number);
        let rest = self.probes.split_off(&later.unwrap_or(u64::MAX));
        std::mem::replace(&mut self.probes, rest).into_values().collect()
    }

    /// Everything that reached a resource since the last call.
    pub fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }

    /// Whether a pair can only meet through a relay.
    pub fn needs_relay(&self, client: usize, gateway: usize) -> bool {
        self.network.is_direct_blocked
            || self.network.is_unpredictable(self.client_places[client])
            || self.network.is_unpredictable(self.gateway_places[gateway])
    }

    /// What is left of connections anywhere: nothing, once nobody may reach anything.
    ///
    /// # Errors
    /// Whose tables hold what.
    pub fn check_nothing_left(&self) -> Result<(), String> {
        let clients = self.clients.iter().enumerate().filter(|(_, one)| one.is_on());
        let clients = clients.map(|(index, one)| (format!("client {index}"), one.held(), one.worker.sizes()));
        let gateways = self.gateways.iter().enumerate().filter(|(_, one)| one.is_on());
        let gateways =
            gateways.map(|(index, one)| (format!("gateway {index}"), one.held(), one.worker.sizes()));
        for (who, held, sizes) in clients.chain(gateways) {
            if held != Statistics::default() {
                return Err(format!("{who} still holds {held:?}"));
            }
            if (sizes.flows, sizes.peers, sizes.sessions) != (0, 0, 0) {
                return Err(format!("the worker of {who} still holds {sizes:?}"));
            }
        }
        Ok(())
    }

    /// Clients whose programs run.
    pub fn clients_on(&self) -> BTreeSet<usize> {
        (0..self.clients.len()).filter(|index| self.clients[*index].power == Power::On).collect()
    }

    fn unix(&self) -> Duration {
        UNIX_START + (self.now - self.start)
    }

    fn unix_ms(&self) -> u64 {
        u64::try_from(self.unix().as_millis()).expect("a time of this age")
    }

    fn tell(&mut self, out: Vec<Out>) {
        for message in out {
            match message {
                Out::Client(id, message) => {
                    let index = (0..self.clients.len()).find(|index| client_id(*index) == id).expect("known");
                    let session = self.client_sessions[index];
                    if session.is_open {
                        self.schedule(PORTAL_LATENCY, Delivery::ToClient(index, session.number, message));
                    }
                }
                Out::Gateway(id, message) => {
                    let index =
                        (0..self.gateways.len()).find(|index| gateway_id(*index) == id).expect("known");
                    let session = self.gateway_sessions[index];
                    if session.is_open {
                        self.schedule(PORTAL_LATENCY, Delivery::ToGateway(index, session.number, message));
                    }
                }
            }
        }
    }
}
