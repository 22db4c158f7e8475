//! The control thread of a client.

mod pings;
mod resolver;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_control_client::Event as SessionEvent;
use adit_platform::addresses::{self, Watcher};
use adit_platform::dns_control::Delegating;
use adit_platform::network::{Bypass, LinuxNetwork, NetworkControl, PROFILES, default_interface};
use adit_platform::tun::{self, Tun};
use adit_protocol::flow::Flows;
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{ClientToPortal, PortalToClient};
use adit_tunnel::{
    Client, ClientConfig as MachineConfig, ClientEvent, DnsFailure, DnsQueryId, DnsTransport, Interface,
};
use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use self::pings::PendingPing;
use self::resolver::system_resolvers;
use super::collisions::{self, Claims, Collision, HostNetworks};
use super::{ClientConfig, Command, InterfaceState, PortalState, Snapshot};
use crate::dial::MarkedDial;
use crate::doh::DohServer;
use crate::driver::{Driver, PortalChange, machine};
use crate::export;
use crate::flows::Reports;
use crate::identity::{Run, unix_now};
use crate::interface::network_state;
use crate::netcheck::RelayPlace;
use crate::sockets::Sockets;
use crate::streams::{Keeper, News, Streams};
use crate::upstream::{Answer, Transport, Upstreams};
use crate::worker::FromWorker;
use crate::workers::{Ground, Workers};

machine!(Client, PortalToClient, ClientToPortal, ClientEvent);

/// Flows that a client keeps at most, in all its workers.
const MOST_FLOWS: usize = 65_536;

/// How long what still runs in the background may take when the client stops.
const RUNTIME_LIMIT: Duration = Duration::from_millis(100);

/// Messages of the worker taken in one turn.
const WORKER_TURN: usize = 64;

/// How often the snapshot is refreshed beside events (round trips, states of resources).
const REFRESH: Duration = Duration::from_secs(5);

/// Runs a client until it is told to stop; what goes wrong shows in the snapshot.
pub(super) fn run(
    config: ClientConfig,
    commands: mpsc::Receiver<Command>,
    publisher: &watch::Sender<Snapshot>,
) {
    let _crash = Crash(publisher);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(publisher, &anyhow::Error::from(error)),
    };
    if let Err(error) = runtime.block_on(live(config, commands, publisher)) {
        fail(publisher, &error);
    }
    // A look-up that is stuck in the system's resolver must not keep the process.
    runtime.shutdown_timeout(RUNTIME_LIMIT);
}

fn fail(publisher: &watch::Sender<Snapshot>, error: &anyhow::Error) {
    tracing::error!(error = format!("{error:#}"), "the client stopped");
    let reason = format!("{error:#}");
    publisher.send_modify(|snapshot| snapshot.interface = InterfaceState::Failed { reason });
}

/// Shows that the thread panicked; otherwise its last words would look alive for ever.
struct Crash<'a>(&'a watch::Sender<Snapshot>);

impl Drop for Crash<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail(self.0, &anyhow::anyhow!("the control thread panicked"));
        }
    }
}

async fn live(
    config: ClientConfig,
    commands: mpsc::Receiver<Command>,
    publisher: &watch::Sender<Snapshot>,
) -> anyhow::Result<()> {
    let (mut control, inputs) = Control::new(config, commands, publisher).await?;
    let ended = control.serve(inputs).await;
    let reason = *ended.as_ref().unwrap_or(&GoodbyeReason::InternalError);
    control.stop(reason).await;
    ended.map(drop)
}

/// What the control thread listens to.
struct Inputs {
    commands: mpsc::Receiver<Command>,
    from_workers: mpsc::Receiver<FromWorker>,
    stream_news: mpsc::Receiver<News>,
    answers: mpsc::Receiver<Answer<DnsQueryId>>,
    addresses: Watcher,
    /// Reports of flows to send.
    flow_batches: mpsc::Receiver<Flows>,
}

struct Control<'a> {
    driver: Driver<Client>,
    network: Box<dyn NetworkControl>,
    interface: String,
    desired: Option<Interface>,
    /// Where the host is.
    place: addresses::Snapshot,
    dns: Delegating,
    /// The names that are answered here.
    patterns: Vec<String>,
    /// Names that other tunnels of this host answer, and who.
    delegations: Vec<(Vec<String>, Vec<SocketAddr>)>,
    upstreams: Upstreams<DnsQueryId>,
    doh: Option<DohServer>,
    flows: Reports,
    pings: Vec<PendingPing>,
    snapshot: Snapshot,
    publisher: &'a watch::Sender<Snapshot>,
}

/// The interfaces that lead nowhere but into tunnels of ours.
fn own_interfaces(own: &str) -> Vec<String> {
    (0..PROFILES).map(default_interface).chain([own.to_owned()]).collect()
}

impl<'a> Control<'a> {
    async fn new(
        config: ClientConfig,
        commands: mpsc::Receiver<Command>,
        publisher: &'a watch::Sender<Snapshot>,
    ) -> anyhow::Result<(Self, Inputs)> {
        let bypass = Bypass::of_profile(config.place.number);
        let tun_config = tun::Config {
            name: config.interface.clone(),
            mtu: u32::from(adit_tunnel::DEFAULT_MTU),
            offload: config.offloads.tun,
        };
        // Before anything is undone: whoever holds the interface is no earlier run.
        let tun = Tun::create(&tun_config)?;
        let mut network = LinuxNetwork::new(&config.state_dir, Some(bypass));
        network.recover().await.context("cannot undo what an earlier run left behind")?;
        let mut dns = Delegating::new(&config.place.delegations, config.place.number, config.dns);
        dns.recover()
            .await
            .context("cannot undo what an earlier run left of the resolver's configuration")?;

        let mark = bypass.fwmark;
        let sockets = Sockets::bind(config.port, Some(mark), config.offloads)?;
        let (streams, stream_news) = Streams::new().context("cannot watch streams")?;
        let dial = MarkedDial { mark: Some(mark) };
        let keeper = Keeper::new(Arc::clone(&streams), dial, config.portal.trusted()?);
        let ground = Ground::divide(tun, sockets, streams, config.workers, Some(mark), config.offloads);
        let (now, run) = (Instant::now(), Run::new()?);
        let worker_config = adit_dataplane::Config { seed: run.hash_seed, max_flows: MOST_FLOWS };
        let machine_config =
            MachineConfig { private_key: run.private_key, seed: run.seed, profile: config.place.number };
        let mut machine = Client::new(now, unix_now(), machine_config);
        machine.set_system_resolvers(now, system_resolvers(&mut dns, config.doh.as_ref()).await);

        let session_config = config.portal.session("v1/client", "aditd", Arc::new(dial))?;
        let hello = config.identity.hello(machine.public_key());
        let session =
            adit_control_client::start(session_config, move || ClientToPortal::Hello(hello.clone()))?;
        let filter = addresses::Filter {
            own_interfaces: own_interfaces(&config.interface),
            excluded: Vec::new(),
            fwmark: Some(mark),
            lists_networks: true,
        };
        let watcher = addresses::watch(filter).await.context("cannot watch the host's addresses")?;
        let (workers, from_workers) = Workers::start(now, &worker_config, &ground)?;
        let (upstreams, answers) = Upstreams::new(dial, config.doh.clone());
        let mut driver = Driver::new(machine, ground, workers, keeper, session);
        let place = watcher.current();
        driver.set_addresses(&place.ips().collect::<Vec<_>>());
        let owner = config.portal.token_digest();
        let (flows, flow_batches) = Reports::open(&config.state_dir.join("flows"), config.flow_spool, &owner);
        let inputs =
            Inputs { commands, from_workers, stream_news, answers, addresses: watcher, flow_batches };
        let pings = Vec::new();
        let snapshot = Snapshot::default();
        let (network, interface) = (Box::new(network), config.interface);
        Ok((
            Self {
                driver,
                network,
                interface,
                desired: None,
                place,
                dns,
                patterns: Vec::new(),
                delegations: Vec::new(),
                upstreams,
                doh: config.doh,
                flows,
                pings,
                snapshot,
                publisher,
            },
            inputs,
        ))
    }

    /// Works until a command or a failure ends it.
    async fn serve(&mut self, mut inputs: Inputs) -> anyhow::Result<GoodbyeReason> {
        let mut batch = Vec::with_capacity(WORKER_TURN);
        let mut refresh = tokio::time::interval(REFRESH);
        let mut export = tokio::time::interval(export::INTERVAL);
        loop {
            self.carry_out().await;
            let wake = self.wake();
            tokio::select! {
                event = self.driver.next_session_event() => {
                    self.handle_session_event(event.context("the session with the portal ended")?);
                    // Nobody will let us in again: the host gets its own resolver and routes back.
                    if matches!(self.snapshot.portal, PortalState::Dead { .. }) {
                        return Ok(GoodbyeReason::SignedOut);
                    }
                }
                taken = inputs.from_workers.recv_many(&mut batch, WORKER_TURN) => {
                    anyhow::ensure!(taken > 0, "the packet path stopped");
                    for message in batch.drain(..) {
                        self.driver.handle_worker(message)?;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    self.driver.handle_timeout();
                    self.settle_pings();
                }
                Some((id, answer)) = inputs.answers.recv() => {
                    let answer = answer.map_err(|error| {
                        tracing::debug!(%error, "an upstream resolver failed");
                        DnsFailure::Unreachable
                    });
                    self.driver.machine.handle_dns_response(Instant::now(), id, answer);
                }
                Some(batch) = inputs.flow_batches.recv() => {
                    if self.flows.is_online() {
                        self.driver.tell_portal(ClientToPortal::Flows(batch));
                    }
                }
                Some(news) = inputs.stream_news.recv() => self.driver.handle_stream_news(news),
                () = self.dns.changed() => {
                    tracing::info!("other tunnels of this host changed");
                    self.assert_interface().await;
                }
                place = inputs.addresses.changed() => {
                    if self.place.is_same_place(&place) {
                        self.place = place;
                        self.publish();
                    } else {
                        tracing::info!("the host's addresses changed");
                        self.meet_network(place).await;
                    }
                }
                command = inputs.commands.recv() => match command {
                    Some(Command::Ping { resource, reply }) => self.ping(&resource, reply),
                    Some(Command::Recheck) => {
                        let addresses = inputs.addresses.current();
                        self.meet_network(addresses).await;
                    }
                    Some(Command::Stop { reason }) => return Ok(reason),
                    None => return Ok(GoodbyeReason::ShuttingDown),
                },
                _ = refresh.tick() => self.publish(),
                _ = export.tick() => {
                    let machine = &self.driver.machine;
                    export::machine(machine.drops(), machine.statistics().connections);
                }
            }
        }
    }

    /// Finds its way in a network that is new, or may be.
    async fn meet_network(&mut self, place: addresses::Snapshot) {
        self.driver.set_addresses(&place.ips().collect::<Vec<_>>());
        self.place = place;
        // A new way out needs its reverse path filter loosened, and may have taken our resolver away.
        self.assert_interface().await;
    }

    /// Sets once more what somebody else may have changed.
    async fn assert_interface(&mut self) {
        if let Some(interface) = self.desired.clone() {
            self.configure(&interface).await;
        }
    }

    fn handle_session_event(&mut self, event: SessionEvent<PortalToClient>) {
        if let SessionEvent::Message(PortalToClient::Init(init)) = &event {
            tracing::info!(actor = init.actor_name, resources = init.resources.len(), "signed in");
            self.snapshot.actor = Some(init.actor_name.clone());
            self.snapshot.session_expires_at_ms = init.session_expires_at_ms;
            self.snapshot.portal = PortalState::Connected;
        }
        if let SessionEvent::Message(PortalToClient::SignIn(sign_in)) = &event {
            self.snapshot.session_expires_at_ms = sign_in.expires_at_ms;
            self.snapshot.sign_in = Some(*sign_in);
        }
        self.note_for_flows(&event);
        match self.driver.handle_session_event(event) {
            None | Some(PortalChange::Connected) => {}
            Some(PortalChange::Lost { reason }) => self.snapshot.portal = PortalState::Lost { reason },
            Some(PortalChange::Dead { reason }) => {
                tracing::info!(%reason, "the session ended for good");
                self.snapshot.portal = PortalState::Dead { reason };
            }
        }
        self.publish();
    }

    /// Whether and what the portal takes of the flows.
    fn note_for_flows(&mut self, event: &SessionEvent<PortalToClient>) {
        match event {
            SessionEvent::Message(PortalToClient::Init(init)) => self.flows.set_online(init.keeps_flows),
            SessionEvent::Message(PortalToClient::FlowLogChanged(changed)) => {
                self.flows.set_online(changed.keeps_flows);
            }
            SessionEvent::Message(PortalToClient::FlowsStored(stored)) => self.flows.stored(*stored),
            SessionEvent::Disconnected { .. } => self.flows.set_online(false),
            _ => {}
        }
    }

    /// Does everything that the machine wants.
    async fn carry_out(&mut self) {
        loop {
            let events = self.driver.drain();
            let (now, machine) = (Instant::now(), &mut self.driver.machine);
            self.flows.take(std::iter::from_fn(|| machine.poll_flow(now)));
            if events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    ClientEvent::InterfaceChanged(interface) => self.configure(&interface).await,
                    ClientEvent::DnsQuery { id, upstream, transport, message } => {
                        let transport = match transport {
                            DnsTransport::Udp => Transport::Udp,
                            DnsTransport::Tcp => Transport::Tcp,
                        };
                        self.upstreams.query(id, upstream, transport, message);
                    }
                    ClientEvent::ResourcesChanged => {
                        if let Some(interface) =
                            self.desired.clone().filter(|_| self.patterns != self.names_here())
                        {
                            self.set_resolver(&interface).await;
                        }
                        self.publish();
                    }
                    ClientEvent::ConnectionChanged { .. } => self.publish(),
                }
            }
        }
    }

    /// Brings the interface and the system's resolver in line.
    async fn configure(&mut self, interface: &Interface) {
        self.desired = Some(interface.clone());
        let state = network_state(&self.interface, interface, true);
        if let Err(error) = self.network.apply(&state).await {
            tracing::error!(error = format!("{error:#}"), "cannot configure the tunnel interface");
            self.snapshot.interface = InterfaceState::Failed { reason: format!("{error:#}") };
            return self.publish();
        }
        let is_dns_controlled = self.set_resolver(interface).await;
        let resolver = self.dns.name();
        tracing::info!(ipv4 = %interface.ipv4, ipv6 = %interface.ipv6, routes = interface.routes.len(), resolver, "the tunnel interface is up");
        self.snapshot.interface =
            InterfaceState::Up { ipv4: interface.ipv4, ipv6: interface.ipv6, is_dns_controlled, resolver };
        self.publish();
    }

    /// Shows the state to whoever watches, if it changed.
    fn publish(&mut self) {
        self.snapshot.resources = self.driver.machine.resources(Instant::now());
        self.snapshot.connections = self.driver.machine.connections();
        self.snapshot.names = self.names();
        self.snapshot.relays = self.driver.machine.relays().map(RelayPlace::from).collect();
        let collisions = self.collisions();
        collisions::tell(&self.snapshot.collisions, &collisions);
        self.snapshot.collisions = collisions;
        self.publisher.send_if_modified(|shown| {
            let is_new = *shown != self.snapshot;
            if is_new {
                shown.clone_from(&self.snapshot);
            }
            is_new
        });
    }

    /// What is in use both in the tunnel and around the host.
    fn collisions(&self) -> Vec<Collision> {
        let (InterfaceState::Up { .. }, Some(interface)) = (&self.snapshot.interface, &self.desired) else {
            return Vec::new();
        };
        let host = HostNetworks {
            networks: &self.place.networks,
            routers: self.place.routers().collect(),
            resolvers: self.snapshot.names.upstreams.iter().map(SocketAddr::ip).collect(),
        };
        collisions::find(&Claims::new(interface, &self.snapshot.resources), &host)
    }

    /// Says goodbye and takes everything back.
    async fn stop(self, reason: GoodbyeReason) {
        let Self { driver, mut network, mut dns, flows, mut snapshot, publisher, .. } = self;
        // The resolver first: nobody answers for it from here on.
        if let Err(error) = dns.clear().await {
            tracing::error!(error = format!("{error:#}"), "cannot restore the system's resolver");
        }
        let mut machine = driver.shut_down(reason).await;
        let now = Instant::now();
        flows.finish(std::iter::from_fn(|| machine.poll_flow(now)));
        if let Err(error) = network.clear().await {
            tracing::error!(error = format!("{error:#}"), "cannot remove the routes of the tunnel");
        }
        snapshot.interface = InterfaceState::Waiting;
        snapshot.resources.clear();
        snapshot.connections.clear();
        snapshot.relays.clear();
        snapshot.collisions.clear();
        publisher.send_replace(snapshot);
        tracing::info!(reason = reason.name(), "the client stopped");
    }
}
