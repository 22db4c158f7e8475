//! A gateway, running: the machine, its threads, the interface and the kernel's NAT.
//!
//! [`run`] works until it is asked to stop, then tells the portal, says goodbye to every
//! client and takes back what it changed on the host.

mod succession;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_control_client::{Event as SessionEvent, FatalReason};
use adit_platform::addresses::{self, Watcher};
use adit_platform::masquerade::{MasqueradeControl, MasqueradeState, NftablesMasquerade};
use adit_platform::network::{LinuxNetwork, NetworkControl};
use adit_platform::secrets::SecretStore;
use adit_platform::tun::{self, Tun};
use adit_protocol::flow::Flows;
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{GatewayToPortal, PortalToGateway};
use adit_tunnel::{
    Gateway, GatewayConfig as MachineConfig, GatewayEvent, Interface, LookupId, ResolveFailure,
};
use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use self::succession::{Inheritance, Succession};
use crate::dial::MarkedDial;
use crate::driver::{Driver, First, PortalChange, machine};
use crate::export;
use crate::flows::Reports;
use crate::identity::{Run, lasting_secret, unix_now};
use crate::interface::network_state;
use crate::lookup::{LookupFailure, Lookups, Outcome};
use crate::offloads::Offloads;
use crate::sockets::Sockets;
use crate::streams::{Keeper, News, Streams};
use crate::worker::FromWorker;
use crate::workers::{Ground, Workers};
use crate::{Identity, PortalConfig};

machine!(Gateway, PortalToGateway, GatewayToPortal, GatewayEvent);

/// Flows that a gateway keeps at most, in all its workers.
const MOST_FLOWS: usize = 1_048_576;

/// Messages of the worker taken in one turn.
const WORKER_TURN: usize = 64;

/// The name under which the secret of the reset tokens is kept.
const RESET_SECRET: &str = "reset-secret";

/// How a gateway is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nobody comes after us: clients go elsewhere, and the host gets back what was changed.
    Forever,
    /// A successor on this host takes over within this time: clients wait for it.
    ForSuccessor(Duration),
}

/// What a gateway needs to run.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where the portal is.
    pub portal: PortalConfig,
    /// What the gateway is known by.
    pub identity: Identity,
    /// The name of the tunnel interface.
    pub interface: String,
    /// The UDP port for tunnels; 0 takes any free one.
    pub port: u16,
    /// Which of the kernel's offloads to use.
    pub offloads: Offloads,
    /// Threads that move packets.
    pub workers: NonZeroUsize,
    /// Where changes of the host are written down, so that they can be taken back after a crash.
    pub state_dir: PathBuf,
    /// Bytes on disk for reports of flows that the portal has not stored yet; 0 reports none.
    pub flow_spool: u64,
}

/// How a gateway stands; shown while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GatewayStatus {
    /// Whether the portal knows it and its interface is up.
    pub is_ready: bool,
}

/// Why a gateway stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The portal does not accept the token any more.
    #[error("{0}; make a new gateway token in the portal")]
    Token(#[from] FatalReason),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Runs a gateway until `stop` completes.
///
/// Must run on a current-thread tokio runtime of its own.
///
/// # Errors
///
/// See [`GatewayError`].
pub async fn run(
    config: GatewayConfig,
    secrets: &dyn SecretStore,
    status: watch::Sender<GatewayStatus>,
    stop: impl Future<Output = Stop>,
) -> Result<(), GatewayError> {
    let (mut control, inputs) = Control::new(config, secrets, status).await?;
    let ended = tokio::select! {
        ended = control.serve(inputs) => ended.map(|()| Stop::Forever),
        stop = stop => Ok(stop),
    };
    match &ended {
        Ok(Stop::Forever) => control.stop(GoodbyeReason::ShuttingDown).await,
        Ok(Stop::ForSuccessor(back_within)) => control.make_room(*back_within).await,
        Err(_) => control.stop(GoodbyeReason::InternalError).await,
    }
    ended.map(drop)
}

/// What the control thread listens to.
struct Inputs {
    from_workers: mpsc::Receiver<FromWorker>,
    stream_news: mpsc::Receiver<News>,
    lookups: mpsc::Receiver<(LookupId, Outcome)>,
    addresses: Watcher,
    /// Reports of flows to send.
    flow_batches: mpsc::Receiver<Flows>,
}

struct Control {
    driver: Driver<Gateway>,
    network: Box<dyn NetworkControl>,
    masquerade: Box<dyn MasqueradeControl>,
    lookups: Lookups<LookupId>,
    interface: String,
    succession: Succession,
    flows: Reports,
    is_interface_up: bool,
    is_initialised: bool,
    status: watch::Sender<GatewayStatus>,
}

impl Control {
    async fn new(
        config: GatewayConfig,
        secrets: &dyn SecretStore,
        status: watch::Sender<GatewayStatus>,
    ) -> anyhow::Result<(Self, Inputs)> {
        let tun_config = tun::Config {
            name: config.interface.clone(),
            mtu: u32::from(adit_tunnel::DEFAULT_MTU),
            offload: config.offloads.tun,
        };
        // Before anything is undone: whoever holds the interface is no earlier run.
        let tun = Tun::create(&tun_config)?;
        let succession = Succession::new(&config.state_dir);
        let inheritance = succession.take();
        // Without an heir nobody takes the device down after us.
        tun.set_persistent(false).context("cannot own the tunnel interface")?;
        let mut network = LinuxNetwork::new(&config.state_dir, None);
        let mut masquerade = NftablesMasquerade::new(&config.state_dir);
        if inheritance.is_none() {
            network.recover().await.context("cannot undo what an earlier run left behind")?;
            masquerade.clear().context("cannot undo what an earlier run left of the packet filter")?;
        }

        let sockets = bind(config.port, config.offloads, inheritance.as_ref())?;
        let (streams, stream_news) = Streams::new().context("cannot watch streams")?;
        let dial = MarkedDial { mark: None };
        let keeper =
            Keeper::new(Arc::clone(&streams), dial, config.portal.trusted().map_err(anyhow::Error::from)?);
        let ground = Ground::divide(tun, sockets, streams, config.workers, None, config.offloads);
        let (now, mut run) = (Instant::now(), Run::new()?);
        if let Some(inheritance) = &inheritance {
            run.private_key = inheritance.private_key.clone();
        }
        let succession = succession.with_key(&run.private_key);
        let worker_config = adit_dataplane::Config { seed: run.hash_seed, max_flows: MOST_FLOWS };
        let reset_secret = Some(lasting_secret(secrets, RESET_SECRET)?);
        let machine_config = MachineConfig { private_key: run.private_key, seed: run.seed, reset_secret };
        let machine = Gateway::new(now, unix_now(), machine_config);

        let session_config = config.portal.session("v1/gateway", "adit-gateway", Arc::new(dial))?;
        let hello = config.identity.hello(machine.public_key());
        let session =
            adit_control_client::start(session_config, move || GatewayToPortal::Hello(hello.clone()))?;
        let filter = addresses::Filter {
            own_interfaces: vec![config.interface.clone()],
            excluded: Vec::new(),
            fwmark: None,
            lists_networks: false,
        };
        let watcher = addresses::watch(filter).await.context("cannot watch the host's addresses")?;
        let (workers, from_workers) = Workers::start(now, &worker_config, &ground)?;
        let (lookups, lookup_results) = Lookups::new();
        let mut driver = Driver::new(machine, ground, workers, keeper, session);
        driver.set_addresses(&watcher.current().ips().collect::<Vec<_>>());
        if let Some(Inheritance { state, away, .. }) = inheritance {
            let (clients, flows) = (state.clients(), state.flows());
            tracing::info!(clients, flows, away_ms = away.as_millis() as u64, "taking over");
            driver.machine.take_over(Instant::now(), state, away);
        }
        let owner = config.portal.token_digest();
        let (flows, flow_batches) = Reports::open(&config.state_dir.join("flows"), config.flow_spool, &owner);
        let inputs =
            Inputs { from_workers, stream_news, lookups: lookup_results, addresses: watcher, flow_batches };
        let control = Self {
            driver,
            network: Box::new(network),
            masquerade: Box::new(masquerade),
            lookups,
            interface: config.interface,
            succession,
            flows,
            is_interface_up: false,
            is_initialised: false,
            status,
        };
        Ok((control, inputs))
    }

    /// Works until a failure ends it.
    async fn serve(&mut self, mut inputs: Inputs) -> Result<(), GatewayError> {
        let mut batch = Vec::with_capacity(WORKER_TURN);
        let mut export = tokio::time::interval(export::INTERVAL);
        loop {
            self.carry_out().await?;
            let deadline = self.driver.deadline();
            tokio::select! {
                event = self.driver.next_session_event() => {
                    let event = event.context("the session with the portal ended")?;
                    self.handle_session_event(event)?;
                }
                taken = inputs.from_workers.recv_many(&mut batch, WORKER_TURN) => {
                    if taken == 0 {
                        return Err(anyhow::anyhow!("the packet path stopped").into());
                    }
                    for message in batch.drain(..) {
                        self.driver.handle_worker(message)?;
                    }
                }
                () = tokio::time::sleep_until(deadline) => self.driver.handle_timeout(),
                Some((id, outcome)) = inputs.lookups.recv() => {
                    let outcome = outcome.map_err(|failure| match failure {
                        LookupFailure::NotFound => ResolveFailure::NotFound,
                        LookupFailure::Unavailable => ResolveFailure::ResolverFailed,
                    });
                    self.driver.machine.handle_resolved(Instant::now(), id, outcome);
                }
                _ = export.tick() => {
                    let machine = &self.driver.machine;
                    export::machine(machine.drops(), machine.statistics().connections);
                }
                Some(batch) = inputs.flow_batches.recv() => {
                    if self.flows.is_online() {
                        self.driver.tell_portal(GatewayToPortal::Flows(batch));
                    }
                }
                Some(news) = inputs.stream_news.recv() => self.driver.handle_stream_news(news),
                snapshot = inputs.addresses.changed() => {
                    tracing::info!("the host's addresses changed");
                    self.driver.set_addresses(&snapshot.ips().collect::<Vec<_>>());
                }
            }
        }
    }

    fn handle_session_event(&mut self, event: SessionEvent<PortalToGateway>) -> Result<(), GatewayError> {
        if let SessionEvent::Message(PortalToGateway::Init(init)) = &event {
            tracing::info!(
                site = init.site.name,
                gateway = %init.gateway,
                authorizations = init.authorizations.len(),
                "connected to the portal"
            );
            self.is_initialised = true;
        }
        self.note_for_flows(&event);
        match self.driver.handle_session_event(event) {
            None | Some(PortalChange::Connected) => {}
            Some(PortalChange::Lost { .. }) => self.is_initialised = false,
            Some(PortalChange::Dead { reason }) => return Err(reason.into()),
        }
        self.publish();
        Ok(())
    }

    /// Whether and what the portal takes of the flows.
    fn note_for_flows(&mut self, event: &SessionEvent<PortalToGateway>) {
        match event {
            SessionEvent::Message(PortalToGateway::Init(init)) => self.flows.set_online(init.keeps_flows),
            SessionEvent::Message(PortalToGateway::FlowLogChanged(changed)) => {
                self.flows.set_online(changed.keeps_flows);
            }
            SessionEvent::Message(PortalToGateway::FlowsStored(stored)) => self.flows.stored(*stored),
            SessionEvent::Disconnected { .. } => self.flows.set_online(false),
            _ => {}
        }
    }

    /// Does everything that the machine wants.
    async fn carry_out(&mut self) -> anyhow::Result<()> {
        loop {
            let events = self.driver.drain();
            let (now, machine) = (Instant::now(), &mut self.driver.machine);
            self.flows.take(std::iter::from_fn(|| machine.poll_flow(now)));
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                match event {
                    GatewayEvent::InterfaceChanged(interface) => self.configure(&interface).await?,
                    GatewayEvent::Resolve { id, name } => self.lookups.start(id, name),
                }
            }
        }
    }

    /// Brings interface and masquerading in line; without either a gateway is of no use.
    async fn configure(&mut self, interface: &Interface) -> anyhow::Result<()> {
        let state = network_state(&self.interface, interface, false);
        self.network.apply(&state).await.context("cannot configure the tunnel interface")?;
        let ranges = MasqueradeState { interface: self.interface.clone(), ranges: interface.routes.clone() };
        self.masquerade.apply(&ranges).context("cannot set up masquerading")?;
        tracing::info!(ipv4 = %interface.ipv4, ipv6 = %interface.ipv6, "the tunnel interface is up");
        self.is_interface_up = true;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let status = GatewayStatus { is_ready: self.is_interface_up && self.is_initialised };
        self.status.send_if_modified(|shown| std::mem::replace(shown, status) != status);
    }

    /// Leaves everything as it is for a successor: its clients' state, the interface, the packet filter.
    async fn make_room(self, back_within: Duration) {
        let Self { mut driver, succession, flows, .. } = self;
        let begin = Instant::now();
        let Some(state) = driver.machine.hand_over(begin, back_within) else {
            tracing::info!("there is nothing to hand over");
            drop(driver.finish(First::Portal).await);
            return;
        };
        let (clients, handed_flows) = (state.clients(), state.flows());
        let port = driver.port();
        // The flows can only go on if the kernel keeps what they rest on.
        let kept = driver.tun().set_persistent(true).map_err(anyhow::Error::from);
        if let Err(error) = kept.and_then(|()| succession.leave(&state, port, back_within)) {
            tracing::error!(error = format!("{error:#}"), "cannot hand over; the successor begins anew");
        }
        let mut machine = driver.finish(First::Peers).await;
        let now = Instant::now();
        flows.finish(std::iter::from_fn(|| machine.poll_flow(now)));
        let took_ms = begin.elapsed().as_millis() as u64;
        tracing::info!(clients, flows = handed_flows, took_ms, "the gateway made room for its successor");
    }

    /// Says goodbye and takes everything back.
    async fn stop(self, reason: GoodbyeReason) {
        let Self { driver, mut network, mut masquerade, flows, .. } = self;
        let mut machine = driver.shut_down(reason).await;
        let now = Instant::now();
        flows.finish(std::iter::from_fn(|| machine.poll_flow(now)));
        if let Err(error) = masquerade.clear() {
            tracing::error!(error = format!("{error:#}"), "cannot remove the packet filter's rules");
        }
        if let Err(error) = network.clear().await {
            tracing::error!(error = format!("{error:#}"), "cannot remove the routes of the tunnel");
        }
        tracing::info!(reason = reason.name(), "the gateway stopped");
    }
}

/// The sockets of an earlier run, as far as nobody has taken their port: clients look for us there.
fn bind(port: u16, offloads: Offloads, inheritance: Option<&Inheritance>) -> anyhow::Result<Sockets> {
    let wanted = inheritance.and_then(|inheritance| inheritance.port).filter(|_| port == 0);
    match wanted.map(|port| Sockets::bind(port, None, offloads)) {
        Some(Ok(sockets)) => Ok(sockets),
        Some(Err(_)) | None => Ok(Sockets::bind(port, None, offloads)?),
    }
}
