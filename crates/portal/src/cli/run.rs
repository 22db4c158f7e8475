//! From parsed arguments to an exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use super::{AdminLink, Backup, Bootstrap, Migrate, Restore, Serve, admin, output};
use crate::{archive, bootstrap as create, serve as server};

pub(super) fn bootstrap(arguments: Bootstrap) -> ExitCode {
    let json = arguments.json;
    let options = create::Options {
        data_dir: arguments.data_dir,
        database: arguments.database,
        url: arguments.url,
        extra_names: arguments.san,
        certificate: arguments.tls_cert.zip(arguments.tls_key),
        dns_upstreams: arguments.dns_upstream,
        search_domains: arguments.search_domain,
        ranges: create::Ranges {
            ipv4: arguments.ipv4_range,
            ipv4_proxy: arguments.ipv4_proxy_range,
            ipv6: arguments.ipv6_range,
            ipv6_proxy: arguments.ipv6_proxy_range,
        },
        rotate_admin_token: arguments.rotate_admin_token,
    };
    let outcome = one_thread().and_then(|runtime| runtime.block_on(create::bootstrap(&options)));
    match outcome {
        Ok(outcome) if json => output::json(&outcome),
        Ok(outcome) => {
            println!("{}", next_steps(&outcome));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// What a person does after bootstrap.
fn next_steps(made: &create::Outcome) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("The portal is ready to be served. Tokens are shown once:\n\n");
    let _ = writeln!(text, "  admin  {}", made.admin_token);
    if let Some(relay) = &made.relay_token {
        let _ = writeln!(text, "  relay  {relay}");
    }
    let _ = writeln!(text, "\nNext:\n\n  adit-portal serve --data-dir {}", made.data_dir.display());
    if let Some(url) = &made.welcome_url {
        let _ =
            writeln!(text, "\nthen choose password and authenticator here, once, within an hour:\n\n  {url}");
    }
    let _ = writeln!(text, "\nand in another terminal:\n");
    let _ = writeln!(text, "  export ADIT_PORTAL_URL={}", made.url);
    let _ = writeln!(text, "  export ADIT_ADMIN_TOKEN=…the admin token…");
    if let Some(ca) = &made.ca_file {
        let _ = writeln!(text, "  export ADIT_CA={}", ca.display());
    }
    let _ =
        write!(text, "  adit-portal site create office\n  adit-portal token create gateway --site office");
    text
}

/// Printed instead of [`first_run`] where it would end in a log.
const MADE_BY_A_SERVICE: &str = "The portal is made. `adit-portal admin-link` prints a link where password and authenticator are chosen, \
     `adit-portal bootstrap --rotate-admin-token` an admin token; the pages make tokens for relays.";

/// Makes the portal that is to be served, if it was asked for and is not there.
fn bootstrap_before(arguments: &Serve) -> Result<()> {
    let Some(url) = &arguments.bootstrap else { return Ok(()) };
    let options = create::Options {
        data_dir: arguments.data_dir.clone(),
        database: arguments.database.clone(),
        url: url.clone(),
        extra_names: Vec::new(),
        certificate: None,
        dns_upstreams: Vec::new(),
        search_domains: Vec::new(),
        ranges: create::Ranges::default(),
        rotate_admin_token: false,
    };
    let made = one_thread()?.block_on(create::bootstrap_if_absent(&options))?;
    // systemd says so when what is printed goes into a log, where no secret may be.
    let is_logged = std::env::var_os("JOURNAL_STREAM").is_some();
    match made {
        Some(_) if is_logged => println!("{MADE_BY_A_SERVICE}"),
        Some(made) => println!("{}", first_run(&made)),
        None => {}
    }
    Ok(())
}

/// What a person does while the portal that was just made is served.
fn first_run(made: &create::Outcome) -> String {
    use std::fmt::Write as _;
    let mut text =
        String::from("The portal is made. Choose password and authenticator here, once, within an hour:\n\n");
    let _ = writeln!(text, "  {}\n", made.welcome_url.as_deref().unwrap_or(&made.url));
    let _ = writeln!(text, "Everything else can be done there. Tokens for programs are shown once:\n");
    let _ = writeln!(text, "  admin  {}", made.admin_token);
    if let Some(relay) = &made.relay_token {
        let _ = writeln!(text, "  relay  {relay}");
    }
    if let Some(ca) = &made.ca_file {
        let _ = writeln!(text, "\nThe certificate is of a CA of the portal's own: {}", ca.display());
    }
    text
}

pub(super) fn serve(arguments: Serve) -> ExitCode {
    if let Err(error) = bootstrap_before(&arguments) {
        return failed(&error);
    }
    let config = adit_telemetry::Config {
        stderr: arguments.log_dir.is_none(),
        log_dir: arguments.log_dir,
        level: arguments.log_level,
        ..adit_telemetry::Config::new("adit-portal")
    };
    let guard = match adit_telemetry::init(config) {
        Ok(guard) => guard,
        Err(error) => return failed(&anyhow::Error::new(error)),
    };
    let security = match arguments.tls_cert.zip(arguments.tls_key) {
        _ if arguments.insecure_plain => server::Security::Plain,
        Some((certificate, key)) => server::Security::Files { certificate, key },
        None if arguments.acme.names.is_empty() => server::Security::Bootstrapped,
        None => server::Security::Acme(arguments.acme.options()),
    };
    let options = server::Options {
        data_dir: arguments.data_dir,
        database: arguments.database,
        listen: arguments.listen,
        security,
        health: arguments.health,
        behind_proxy: arguments.behind_proxy,
        api_rate: arguments.api_rate,
        take_over: arguments.take_over,
        keep_audit: Some(arguments.keep_audit).filter(|time| *time > 0).map(Duration::from_secs),
    };
    let served = many_threads().and_then(|runtime| runtime.block_on(serve_until_signal(&options)));
    let code = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "portal cannot run");
            failed(&error)
        }
    };
    drop(guard);
    code
}

async fn serve_until_signal(options: &server::Options) -> Result<()> {
    let metrics = match options.health {
        Some(_) => Some(adit_telemetry::metrics::install()?),
        None => None,
    };
    let signals = Signals::new()?;
    let running = server::start(options, metrics).await?;
    let signal = signals.wait().await;
    tracing::info!(signal, "portal stops");
    running.stop().await;
    Ok(())
}

pub(super) fn backup(arguments: Backup) -> ExitCode {
    let Backup { file, without_secrets, installation: at } = arguments;
    let database = at.database.as_ref();
    copied(at.json, "written", archive::backup(&at.data_dir, database, &file, !without_secrets))
}

pub(super) fn restore(arguments: Restore) -> ExitCode {
    let Restore { file, installation: at } = arguments;
    copied(at.json, "restored", archive::restore(&at.data_dir, at.database.as_ref(), &file))
}

pub(super) fn migrate(arguments: Migrate) -> ExitCode {
    let Migrate { to, installation: at } = arguments;
    let code = copied(at.json, "moved", archive::migrate(&at.data_dir, at.database.as_ref(), &to));
    if code == ExitCode::SUCCESS && !at.json {
        println!("Serve it from now on with ADIT_PORTAL_DATABASE or --database.");
    }
    code
}

pub(super) fn admin_link(arguments: AdminLink) -> ExitCode {
    let AdminLink { name, url, installation: at } = arguments;
    let work = create::admin_link(at.data_dir, at.database, &name, url);
    match one_thread().and_then(|runtime| runtime.block_on(work)) {
        Ok(link) if at.json => output::json(&link),
        Ok(link) => {
            println!(
                "{} chooses password and authenticator here, once, within an hour:\n\n  {}",
                link.name, link.url
            );
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn copied(json: bool, verb: &str, work: impl Future<Output = Result<archive::Copied>>) -> ExitCode {
    match one_thread().and_then(|runtime| runtime.block_on(work)) {
        Ok(copied) if json => output::json(&copied),
        Ok(copied) => {
            println!("{} rows {verb}, SHA-256 {}", copied.rows, copied.digest);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let handler = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    async fn wait(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn wait(self) -> &'static str {
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}

pub(super) fn admin(command: admin::Command) -> ExitCode {
    let answer = match one_thread() {
        Ok(runtime) => runtime.block_on(command.run()),
        Err(error) => return failed(&error),
    };
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-portal: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("adit-portal: {error:#}");
    ExitCode::FAILURE
}

pub(super) fn one_thread() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn many_threads() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("portal").build().context("cannot start the runtime")
}
