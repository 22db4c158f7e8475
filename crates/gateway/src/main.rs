//! The gateway `adit-gateway`: ends tunnels beside the resources and enforces who may reach what.

mod arguments;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use adit_engine::gateway::{GatewayConfig, GatewayError, GatewayStatus, Stop};
use adit_engine::{Identity, Offloads, PortalConfig};
use adit_platform::secrets::FileSecrets;
use adit_platform::service::{self, RestartSignal, StopSignals};
use adit_platform::settings;
use adit_telemetry::{HealthServer, Readiness};
use anyhow::Context as _;
use tokio::sync::watch;

use self::arguments::Arguments;

/// The token was refused for good.
const TOKEN_REFUSED: u8 = 4;

fn main() -> ExitCode {
    let arguments: Arguments = match settings::parse() {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let guard = match adit_telemetry::init(adit_telemetry::Config {
        log_dir: arguments.log_dir.clone(),
        stdout: arguments.log_dir.is_none(),
        level: arguments.log_level.clone(),
        ..adit_telemetry::Config::new("adit-gateway")
    }) {
        Ok(guard) => guard,
        Err(error) => return complain(&anyhow::Error::from(error), 2),
    };
    let outcome = run(&arguments);
    drop(guard);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(GatewayError::Token(reason)) => complain(&anyhow::Error::from(reason), TOKEN_REFUSED),
        Err(GatewayError::Failed(error)) => complain(&error, 1),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a program that could not go on")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("adit-gateway: {error:#}");
    ExitCode::from(code)
}

fn run(arguments: &Arguments) -> Result<(), GatewayError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(arguments));
    // A look-up that is stuck in the system's resolver must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "the gateway failed");
    }
    outcome
}

async fn serve(arguments: &Arguments) -> Result<(), GatewayError> {
    let mut signals = StopSignals::new().context("cannot listen for signals")?;
    let mut restart = RestartSignal::new().context("cannot listen for signals")?;
    let hold = Duration::from_secs(arguments.restart_hold);
    if let Err(error) = service::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let secrets = FileSecrets::open(&arguments.state_dir).context("cannot use the state directory")?;
    let config = configuration(arguments, &secrets)?;
    let readiness = Readiness::new();
    if let Some(address) = arguments.health {
        serve_health(address, readiness.clone()).await?;
    }
    let (status, shown) = watch::channel(GatewayStatus::default());
    tokio::spawn(announce(shown, readiness));
    let stop = async move {
        let stop = tokio::select! {
            signal = signals.next() => {
                tracing::info!(?signal, "stopping");
                Stop::Forever
            }
            () = restart.received() => {
                tracing::info!("making room for a successor");
                Stop::ForSuccessor(hold)
            }
        };
        service::notify_stopping();
        stop
    };
    adit_engine::gateway::run(config, &secrets, status, stop).await
}

fn configuration(arguments: &Arguments, secrets: &FileSecrets) -> anyhow::Result<GatewayConfig> {
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => token.trim().to_owned(),
        (None, Some(path)) => read(path)?.trim().to_owned(),
        (None, None) => anyhow::bail!("no token: give --token-file, --token or ADIT_TOKEN"),
    };
    let ca = arguments.ca.as_deref().map(adit_control_client::read_authority).transpose()?;
    Ok(GatewayConfig {
        portal: PortalConfig {
            url: arguments.portal.clone(),
            token,
            ca,
            allow_plain: arguments.insecure_plain_portal,
        },
        identity: Identity::load(secrets, arguments.name.clone())
            .context("cannot keep the gateway's identity")?,
        interface: arguments.interface.clone(),
        port: arguments.port,
        offloads: Offloads::without(&arguments.without_offload),
        workers: arguments.workers.unwrap_or_else(adit_engine::default_workers),
        state_dir: arguments.state_dir.clone(),
        flow_spool: arguments.flow_spool * 1024 * 1024,
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

async fn serve_health(address: SocketAddr, readiness: Readiness) -> anyhow::Result<()> {
    let metrics = adit_telemetry::metrics::install().context("cannot record metrics")?;
    let server = HealthServer::bind(address, readiness, Some(metrics))
        .await
        .with_context(|| format!("cannot serve health at {address}"))?;
    tokio::spawn(server.run());
    Ok(())
}

/// Tells the service manager and the health endpoint when the gateway becomes ready, or no longer is.
async fn announce(mut status: watch::Receiver<GatewayStatus>, readiness: Readiness) {
    while status.changed().await.is_ok() {
        let is_ready = status.borrow_and_update().is_ready;
        readiness.set(is_ready);
        if is_ready {
            service::notify_ready("Serving clients");
        } else {
            service::notify_status("The portal cannot be reached; open connections keep working");
        }
    }
}
