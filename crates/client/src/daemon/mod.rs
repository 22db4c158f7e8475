//! The daemon `aditd`: owns session, token and tunnel.
//!
//! One task, the session, owns the engine and does one thing after the other: connect,
//! disconnect, sign in and out. Front ends see what it publishes and ask it for changes
//! through the [`server`]; none of them is needed for the tunnel to stay.

mod access;
mod arguments;
mod memory;
mod netcheck;
mod places;
mod presence;
mod server;
mod session;
mod sign_in;
mod view;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use adit_client_ipc::Reason;
use adit_engine::client::Place;
use adit_engine::{DohServer, Offloads};
use adit_platform::dns_control::{
    Automatic, Bus, Delegating, Disabled, DnsControl, NetworkManager, ResolvConf, Resolvconf, Resolved,
};
use adit_platform::login_manager::Logind;
use adit_platform::network::{Bypass, LinuxNetwork, NetworkControl as _};
use adit_platform::secrets::FileSecrets;
use adit_platform::service::{self, StopSignals};
use adit_platform::settings;
use adit_telemetry::{Guard, HealthServer, Readiness};
use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, watch};

use self::access::Authority;
use self::arguments::{Arguments, DnsControlKind};
use self::places::Places;
use self::server::Server;
use self::session::Session;
use self::view::Constants;

/// Requests of front ends that wait for the session.
const CALL_QUEUE: usize = 32;

/// Runs the daemon until it is told to stop.
pub fn run() -> ExitCode {
    let (arguments, mut settings) = match settings::parse_described::<Arguments>() {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    // What to do instead of serving is no setting.
    settings.retain(|setting| setting.name != "cleanup");
    let places = Places::of(&arguments);
    let guard = match adit_telemetry::init(adit_telemetry::Config {
        log_dir: Some(places.log.clone()),
        level: arguments.log_level.clone(),
        ..adit_telemetry::Config::new("aditd")
    }) {
        Ok(guard) => guard,
        Err(error) => return complain(&anyhow::Error::from(error), 2),
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let outcome = runtime.block_on(serve(arguments, &places, settings, &guard));
            runtime.shutdown_timeout(Duration::from_millis(100));
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the daemon failed");
            complain(&error, 1)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a program that could not go on")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("aditd: {error:#}");
    ExitCode::from(code)
}

async fn serve(
    arguments: Arguments,
    places: &Places,
    mut settings: Vec<settings::Setting>,
    guard: &Guard,
) -> anyhow::Result<()> {
    let place = places.place(arguments.profile.as_ref())?;
    let secrets = FileSecrets::open(&places.state).context("cannot use the state directory")?;
    let _lock = lock(&places.state)?;
    let interface = places::interface(&arguments, &place);
    places.complete(&mut settings, &interface);
    let changes =
        Changes { places, place: &place, interface: &interface, resolv_conf: &arguments.resolv_conf };
    if arguments.cleanup {
        return changes.take_back(keeps_guard(|name| std::env::var(name).ok())).await;
    }
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let portal = arguments.portal.clone().context("no portal: give --portal or ADIT_PORTAL")?;
    let constants = Constants {
        portal: portal.to_string(),
        profile: arguments.profile.as_ref().map(ToString::to_string),
        interface: interface.clone(),
        log_directory: places.log.display().to_string(),
    };
    let (publisher, view) = watch::channel(constants.idle(Reason::NoToken));
    let (calls, call_queue) = mpsc::channel(CALL_QUEUE);
    let (active_users, users_seen) = watch::channel(BTreeSet::new());
    let (resumed, wakes) = mpsc::channel(1);
    let server = Server::bind(&places.socket, Authority::from_system(users_seen), calls, view.clone())?;
    tokio::spawn(memory::give_back(view.clone()));
    tokio::spawn(presence::follow(Logind::new(Bus::System), active_users, resumed));
    // An earlier daemon may have been killed, and this one may never connect.
    if let Err(error) = changes.take_back(true).await {
        tracing::error!(error = format!("{error:#}"), "cannot undo what an earlier run left behind");
    }
    let readiness = Readiness::new();
    if let Some(address) = arguments.health {
        let metrics = adit_telemetry::metrics::install().context("cannot record metrics")?;
        let health = HealthServer::bind(address, readiness.clone(), Some(metrics)).await?;
        tokio::spawn(health.run());
    }
    let doh = doh_server(&arguments)?;
    let config = session::Config {
        doh,
        portal,
        ca: arguments.ca.as_deref().map(adit_control_client::read_authority).transpose()?,
        allow_plain: arguments.insecure_plain_portal,
        name: arguments.name,
        interface: interface.clone(),
        port: arguments.port,
        offloads: Offloads::without(&arguments.without_offload),
        flow_spool: arguments.flow_spool * 1024 * 1024,
        workers: arguments.workers.unwrap_or_else(adit_engine::default_workers),
        dns: dns_factory(arguments.dns_control, interface, arguments.resolv_conf, places.shared.clone()),
        state_dir: places.state.clone(),
        place,
        settings: settings.into_iter().map(view::setting).collect(),
    };
    let mut session = Session::new(config, secrets, constants, publisher, guard.level());
    session.resume();
    session.open_network().await;
    readiness.set(true);
    service::notify_ready("Waiting for front ends");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the daemon is ready");
    tokio::select! {
        () = server.run() => {}
        () = session.serve(call_queue, wakes) => {}
        signal = signals.next() => tracing::info!(?signal, "stopping"),
    }
    service::notify_stopping();
    session.shut_down().await;
    Ok(())
}

/// Keeps other daemons, and a cleanup, away from the state of this one while it is held.
fn lock(state_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("another daemon uses {}", state_dir.display()))
}

type DnsFactory = Box<dyn Fn() -> Box<dyn DnsControl>>;

fn dns_factory(
    kind: DnsControlKind,
    interface: String,
    resolv_conf: std::path::PathBuf,
    state_dir: std::path::PathBuf,
) -> DnsFactory {
    Box::new(move || match kind {
        DnsControlKind::Auto => Box::new(Automatic::new(&interface, &resolv_conf, &state_dir, Bus::System)),
        DnsControlKind::Resolved => Box::new(Resolved::new(&interface, Bus::System)),
        DnsControlKind::NetworkManager => Box::new(NetworkManager::new(&interface, &state_dir, Bus::System)),
        DnsControlKind::Resolvconf => {
            Box::new(Resolvconf::new(Path::new("resolvconf"), &interface, &resolv_conf))
        }
        DnsControlKind::ResolvConf => Box::new(ResolvConf::new(&resolv_conf, &state_dir)),
        DnsControlKind::Off => Box::new(Disabled::new(&resolv_conf)),
    })
}

/// The server for DNS over HTTPS, if there is to be one.
fn doh_server(arguments: &Arguments) -> anyhow::Result<Option<DohServer>> {
    let Some(url) = arguments.doh.clone() else { return Ok(None) };
    let ca = arguments.doh_ca.as_deref().map(adit_control_client::read_authority).transpose()?;
    let server = DohServer::new(url, &arguments.doh_address, ca.as_deref());
    Ok(Some(server.context("--doh cannot be used (--doh-address, --doh-ca)")?))
}

/// Whether the next daemon is expected soon, and nothing may go past the tunnel until it is there: only where systemd says
/// that it starts the service again. Whoever calls by hand wants the network as it was.
fn keeps_guard(variable: impl Fn(&str) -> Option<String>) -> bool {
    let failed = variable("SERVICE_RESULT").is_some_and(|result| result != "success");
    // Of wrong arguments nothing comes by itself; see RestartPreventExitStatus.
    failed && variable("EXIT_STATUS").as_deref() != Some("2")
}

/// What a daemon changes on its host.
struct Changes<'a> {
    places: &'a Places,
    place: &'a Place,
    interface: &'a str,
    resolv_conf: &'a Path,
}

impl Changes<'_> {
    /// Takes back what a crashed daemon left behind, whatever way it was told to go.
    async fn take_back(&self, keeps_guard: bool) -> anyhow::Result<()> {
        let mut network = LinuxNetwork::new(&self.places.state, Some(Bypass::of_profile(self.place.number)));
        let routes = if keeps_guard { network.recover().await } else { network.clear().await };
        let routes = routes.context("cannot remove routes and rules");
        let control = Automatic::new(self.interface, self.resolv_conf, &self.places.shared, Bus::System);
        let mut resolver = Delegating::new(&self.place.delegations, self.place.number, Box::new(control));
        let resolver = resolver.recover().await.context("cannot restore the system's resolver");
        routes.and(resolver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_that_comes_back_keeps_the_network_closed() {
        let keeps = |result: Option<&str>, status: &str| {
            keeps_guard(|name| match name {
                "SERVICE_RESULT" => result.map(str::to_owned),
                _ => Some(status.to_owned()),
            })
        };
        assert!(
            keeps(Some("signal"), "KILL") && keeps(Some("exit-code"), "1") && keeps(Some("watchdog"), "ABRT")
        );
        assert!(!keeps(Some("success"), "0"));
        assert!(!keeps(Some("exit-code"), "2"));
        assert!(!keeps(None, "0"), "by hand");
    }

    #[test]
    fn one_state_belongs_to_one_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        assert!(lock(directory.path()).is_err());
        drop(held);
        assert!(lock(directory.path()).is_ok(), "as it is when the daemon was killed");
    }
}
