//! The relay's life: start, serve, drain, stop.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use adit_control_client::FatalReason;
use adit_platform::service::{self, StopSignals};
use adit_telemetry::{HealthServer, Readiness};
use adit_turn::server::{Config, Server};
use anyhow::Context as _;
use tokio::task::LocalSet;

use crate::forwarder::Forwarder;
use crate::identity::{self, Identity};
use crate::metrics;
use crate::portal::{News, Portal};
use crate::settings::{Mode, Settings};
use crate::sockets::Sockets;

/// How old the published figures may be.
const METRICS_INTERVAL: Duration = Duration::from_secs(2);
/// How often a draining relay looks whether it is empty.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Why the relay ended other than on request.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The portal refused the token.
    Token(FatalReason),
    /// The settings cannot work.
    Settings(anyhow::Error),
    /// Anything else.
    Failed(anyhow::Error),
}

impl std::fmt::Display for RelayError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(reason) => reason.fmt(formatter),
            Self::Settings(error) | Self::Failed(error) => write!(formatter, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for RelayError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs until a stop signal or a failure.
///
/// # Errors
///
/// See [`RelayError`].
pub(crate) fn run(settings: Settings) -> Result<(), RelayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    LocalSet::new().block_on(&runtime, serve(settings))
}

async fn serve(settings: Settings) -> Result<(), RelayError> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    if let Err(error) = service::raise_open_files() {
        tracing::info!(%error, "cannot raise the limit of open files; it bounds the number of allocations");
    }
    let readiness = Readiness::new();
    let has_metrics = settings.health.is_some();
    if let Some(address) = settings.health {
        serve_health(address, readiness.clone()).await?;
    }
    let sockets = Sockets::open(&settings).context("cannot listen for clients")?;
    announce_start(&settings);
    let (identity, config) = machine_config(&settings)?;
    let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut server = Server::new(Instant::now(), unix_now, config, identity::random()?);
    if identity.is_none() {
        // Users of a portal run our client; anybody else's may be older than RFC 8656.
        server.accept_old_channel_numbers();
    }
    let forwarder = Forwarder::start(server, sockets);
    let drain_timeout = settings.drain_timeout;
    let mut portal = match identity {
        Some(identity) => Some(Portal::start(settings, identity).map_err(RelayError::Settings)?),
        None => {
            become_ready(&readiness);
            None
        }
    };
    tokio::select! {
        refused = follow_portal(portal.as_mut(), &forwarder, &readiness) => return Err(refused),
        never = forwarder.keep_time() => match never {},
        () = publish_metrics(&forwarder), if has_metrics => {}
        () = keep_alive() => {}
        signal = signals.next() => {
            tracing::info!(?signal, allocations = forwarder.allocations(), "stopping: no new allocations");
        }
    }
    readiness.set(false);
    service::notify_stopping();
    forwarder.drain();
    if let Some(portal) = &portal {
        portal.announce_draining();
    }
    drain(&forwarder, &mut signals, drain_timeout).await;
    if let Some(portal) = portal {
        portal.close().await;
    }
    tracing::info!(allocations = forwarder.allocations(), "stopped");
    Ok(())
}

/// Waits until no allocation is left, or the time is over, or somebody is impatient.
async fn drain(forwarder: &Forwarder, signals: &mut StopSignals, limit: Duration) {
    let empty = async {
        while forwarder.allocations() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = empty => {}
        never = forwarder.keep_time() => match never {},
        () = tokio::time::sleep(limit) => tracing::info!("the time to drain is over"),
        signal = signals.next() => tracing::info!(?signal, "stopping at once"),
    }
}

/// Does what the portal says; returns only when it refuses us for good.
async fn follow_portal(
    portal: Option<&mut Portal>,
    forwarder: &Forwarder,
    readiness: &Readiness,
) -> RelayError {
    let Some(portal) = portal else { return std::future::pending().await };
    loop {
        match portal.next().await {
            Some(News::Accepted { unix_now }) => {
                // The portal stamps credentials with its own clock.
                forwarder.set_unix_time(unix_now);
                become_ready(readiness);
            }
            Some(News::Refused(reason)) => return RelayError::Token(reason),
            None => {
                return RelayError::Failed(anyhow::anyhow!("the session with the portal ended unexpectedly"));
            }
        }
    }
}

fn become_ready(readiness: &Readiness) {
    readiness.set(true);
    service::notify_ready("Relaying");
}

async fn publish_metrics(forwarder: &Forwarder) {
    loop {
        metrics::publish(&forwarder.snapshot());
        tokio::time::sleep(METRICS_INTERVAL).await;
    }
}

/// Feeds the service manager's watchdog, if there is one; never returns.
async fn keep_alive() {
    let Some(interval) = service::watchdog_interval() else { return std::future::pending().await };
    loop {
        service::notify_alive();
        tokio::time::sleep(interval).await;
    }
}

async fn serve_health(address: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
    let handle = adit_telemetry::metrics::install().context("cannot record metrics")?;
    let server = HealthServer::bind(address, readiness, Some(handle)).await?;
    tokio::spawn(server.run());
    Ok(())
}

/// The machine's configuration, and the identity it rests on unless the relay stands alone.
fn machine_config(settings: &Settings) -> Result<(Option<Identity>, Config), RelayError> {
    let (identity, secret, previous) = match &settings.mode {
        Mode::Alone { secret } => (None, secret.clone(), None),
        Mode::Portal(portal) => {
            let identity =
                Identity::load(&portal.state_dir, portal.rotate_secret).map_err(RelayError::Settings)?;
            let (secret, previous) = (identity.secret.clone(), identity.previous.clone());
            (Some(identity), secret, previous)
        }
    };
    let config = Config {
        public_v4: settings.public_v4(),
        public_v6: settings.public_v6(),
        own_addresses: own_addresses(settings),
        listener_port: settings.port,
        ports: settings.ports.clone(),
        realm: "adit".to_owned(),
        secret: secret.into_bytes(),
        previous_secret: previous.map(String::into_bytes),
        allowed_peers: settings.allowed_peers.clone(),
        announce_routes: false,
        dont_fragment: false,
        limits: settings.limits,
    };
    Ok((identity, config))
}

/// The addresses of this machine, which peers must not name.
fn own_addresses(settings: &Settings) -> Vec<IpAddr> {
    let binds = [settings.v4, settings.v6].into_iter().flatten().map(|address| address.bind);
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    binds.chain(interfaces).filter(|ip| !ip.is_unspecified()).collect()
}

fn announce_start(settings: &Settings) {
    for address in [settings.v4, settings.v6].into_iter().flatten() {
        tracing::info!(
            public = %SocketAddr::new(address.public, settings.port),
            bound = %SocketAddr::new(address.bind, settings.port),
            first_port = settings.ports.start(),
            last_port = settings.ports.end(),
            "listening"
        );
    }
}
