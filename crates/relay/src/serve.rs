//! The relay's life: start, serve, drain, stop. All of it on one thread, beside the shards.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_control_client::FatalReason;
use adit_platform::service::{self, StopSignals};
use adit_telemetry::{HealthServer, Readiness};
use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::certificate::Store;
use crate::condition::Condition;
use crate::fast_path::{self, FastPath};
use crate::identity::Identity;
use crate::metrics;
use crate::open::{self, Secrets};
use crate::portal::{News, Portal};
use crate::probe;
use crate::settings::{Mode, Place, Settings};
use crate::shard::{Failures, Order, Shards};

/// How old the published figures may be.
const METRICS_INTERVAL: Duration = Duration::from_secs(2);
/// How often a draining relay looks whether it is empty.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How often certificate files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(30);

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

/// The time of day by which credentials are judged: the portal's, once it has told us.
struct Clock(Cell<(Instant, Duration)>);

impl Clock {
    fn new() -> Self {
        let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(Cell::new((Instant::now(), unix_now)))
    }

    fn set(&self, unix_now: Duration) {
        self.0.set((Instant::now(), unix_now));
    }

    fn unix_now(&self) -> Duration {
        let (at, unix) = self.0.get();
        unix + at.elapsed()
    }
}

/// What the parts of the control thread share.
struct Relay {
    place: Place,
    shards: Shards,
    condition: Condition,
    clock: Clock,
    /// The secret under which the relay makes credentials for itself.
    secret: RefCell<String>,
}

/// Runs until a stop signal or a failure.
///
/// # Errors
///
/// See [`RelayError`].
pub(crate) fn run(settings: Settings) -> Result<(), RelayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), RelayError> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    if let Err(error) = service::raise_open_files() {
        tracing::info!(%error, "cannot raise the limit of open files; it bounds the number of allocations");
    }
    let readiness = Readiness::new();
    let has_metrics = settings.place.health.is_some();
    if let Some(address) = settings.place.health {
        serve_health(address, readiness.clone()).await?;
    }
    let mut certificates = certificates(&settings.place).map_err(RelayError::Settings)?;
    let (identity, secrets) = secrets(&settings.mode).map_err(RelayError::Settings)?;
    let clock = Clock::new();
    let tls = certificates.as_ref().map(|store| &store.current().config);
    let mut fast_path = FastPath::start(&settings.place).map_err(RelayError::Settings)?;
    let (shards, mut failures) = open::shards(&settings, &secrets, clock.unix_now(), tls, &fast_path)?;
    let condition = Condition::new(readiness);
    let relay = Relay {
        place: settings.place.clone(),
        shards,
        condition,
        clock,
        secret: RefCell::new(secrets.current),
    };
    let drain_timeout = settings.drain_timeout;
    let mut portal = match (settings.mode, identity) {
        (Mode::Portal(portal), Some(identity)) => {
            let tls = certificates.as_ref().map(Store::current);
            Some(Portal::start(*portal, &relay.place, identity, tls).map_err(RelayError::Settings)?)
        }
        _ => {
            relay.condition.accept();
            None
        }
    };
    let fast_path_is_on = fast_path.is_on();
    tokio::select! {
        failed = follow_portal(portal.as_mut(), &relay, &mut signals.rotate) => return Err(failed),
        failed = failures.next() => return Err(RelayError::Failed(failed)),
        () = keep_certificate(certificates.as_mut(), &relay.shards, &mut signals.reload) => {}
        () = keep_probing(&relay) => {}
        () = publish_metrics(&relay.shards), if has_metrics => {}
        () = keep_alive(&relay.shards) => {}
        () = keep_forwarding(&mut fast_path, &relay.shards), if fast_path_is_on => {}
        signal = signals.stop.next() => tracing::info!(?signal, "stopping: no new allocations"),
    }
    relay.condition.drain();
    service::notify_stopping();
    relay.shards.tell(|| Order::Drain);
    if let Some(portal) = &portal {
        portal.announce_draining();
    }
    tokio::select! {
        () = drain(&relay.shards, &mut failures, &mut signals.stop, drain_timeout) => {}
        () = keep_forwarding(&mut fast_path, &relay.shards), if fast_path_is_on => {}
    }
    if let Some(portal) = portal {
        portal.close().await;
    }
    relay.shards.stop();
    tracing::info!("stopped");
    Ok(())
}

/// The signals that the relay understands.
struct Signals {
    stop: StopSignals,
    /// Read the certificate again.
    reload: Signal,
    /// Make a new secret.
    rotate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (reload, rotate) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
        Ok(Self { stop: StopSignals::new()?, reload, rotate })
    }
}

/// Waits until no allocation is left, or the time is over, or somebody is impatient.
async fn drain(shards: &Shards, failures: &mut Failures, signals: &mut StopSignals, limit: Duration) {
    let empty = async {
        // A shard that does not answer may have some.
        while shards.report().await.is_none_or(|shards| shards.iter().any(|shard| shard.allocations > 0)) {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    tokio::select! {
        () = empty => tracing::info!("no allocation is left"),
        failed = failures.next() => tracing::error!(error = format!("{failed:#}"), "stopping at once"),
        () = tokio::time::sleep(limit) => tracing::info!("the time to drain is over"),
        signal = signals.next() => tracing::info!(?signal, "stopping at once"),
    }
}

/// Does what the portal says, and makes a new secret when told to; returns only when the portal refuses us for good.
async fn follow_portal(portal: Option<&mut Portal>, relay: &Relay, rotate: &mut Signal) -> RelayError {
    let Some(portal) = portal else {
        while rotate.recv().await.is_some() {
            tracing::warn!("a relay that stands alone has only the secrets it is started with");
        }
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            news = portal.next() => match news {
                Some(News::Accepted { unix_now }) => {
                    // The portal stamps credentials with its own clock.
                    relay.clock.set(unix_now);
                    relay.shards.tell(|| Order::SetUnixTime(unix_now));
                    relay.condition.accept();
                }
                Some(News::Refused(reason)) => return RelayError::Token(reason),
                None => return RelayError::Failed(anyhow::anyhow!("the session with the portal ended unexpectedly")),
            },
            Some(()) = rotate.recv() => match portal.rotate_secret() {
                Ok(secret) => {
                    relay.shards.tell(|| Order::RotateSecret(secret.clone()));
                    portal.announce_secret();
                    *relay.secret.borrow_mut() = secret;
                    tracing::info!("there is a new secret; credentials under the old one stay good until the next one");
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "the secret stays as it is"),
            },
        }
    }
}

/// Looks at the certificate's files from time to time and when told to; never returns.
async fn keep_certificate(store: Option<&mut Store>, shards: &Shards, reload: &mut Signal) {
    let Some(store) = store else {
        while reload.recv().await.is_some() {}
        return std::future::pending().await;
    };
    loop {
        metrics::publish_certificate(store.current().seconds_left(SystemTime::now()));
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_INTERVAL) => {}
            _ = reload.recv() => {}
        }
        match store.reload() {
            Ok(None) => {}
            Ok(Some(certificate)) => {
                tracing::info!(
                    name = certificate.server_name,
                    "there is a new certificate for new connections"
                );
                let config = &certificate.config;
                shards.tell(|| Order::SetCertificate(Arc::clone(config)));
            }
            Err(error) => {
                metrics::count_failed_reload();
                tracing::error!(error = format!("{error:#}"), "the certificate stays as it is");
            }
        }
    }
}

/// Asks the relay for an allocation from time to time; never returns.
async fn keep_probing(relay: &Relay) {
    loop {
        let secret = relay.secret.borrow().clone();
        let outcome = probe::run(&relay.place, &secret, relay.clock.unix_now()).await;
        metrics::count_probe(&outcome);
        tokio::time::sleep(relay.condition.probed(&outcome)).await;
    }
}

async fn publish_metrics(shards: &Shards) {
    loop {
        if let Some(shards) = shards.report().await {
            metrics::publish(&shards);
        }
        tokio::time::sleep(METRICS_INTERVAL).await;
    }
}

/// Feeds the service manager's watchdog, if there is one, as long as all shards answer; never returns.
async fn keep_alive(shards: &Shards) {
    let Some(interval) = service::watchdog_interval() else { return std::future::pending().await };
    loop {
        if shards.report().await.is_some() {
            service::notify_alive();
        }
        tokio::time::sleep(interval).await;
    }
}

/// Lets the kernel forward as long as all shards answer: one that stands still ends no route. Never returns.
async fn keep_forwarding(fast_path: &mut FastPath, shards: &Shards) {
    loop {
        if shards.report().await.is_some() {
            fast_path.renew();
        }
        fast_path.publish();
        tokio::time::sleep(fast_path::RENEWAL).await;
    }
}

async fn serve_health(address: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
    let handle = adit_telemetry::metrics::install().context("cannot record metrics")?;
    let server = HealthServer::bind(address, readiness, Some(handle)).await?;
    tokio::spawn(server.run());
    Ok(())
}

fn certificates(place: &Place) -> anyhow::Result<Option<Store>> {
    let Some(tls) = &place.tls else { return Ok(None) };
    Store::open(tls.source.clone(), tls.name.clone()).map(Some)
}

/// The identity, unless the relay stands alone, and what credentials are made under.
fn secrets(mode: &Mode) -> anyhow::Result<(Option<Identity>, Secrets)> {
    match mode {
        Mode::Alone { secret, previous } => {
            Ok((None, Secrets { current: secret.clone(), previous: previous.clone() }))
        }
        Mode::Portal(portal) => {
            let identity = Identity::load(&portal.state_dir, portal.rotate_secret)?;
            let secrets = Secrets { current: identity.secret.clone(), previous: identity.previous.clone() };
            Ok((Some(identity), secrets))
        }
    }
}
