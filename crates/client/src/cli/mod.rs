//! The command line `adit`.
//!
//! Every command is one conversation with the daemon. What it prints for people fits in 80
//! columns; `--json` prints one JSON object with `"schema":1` instead.

mod args;
mod browser;
mod bundle;
mod config;
mod dns;
mod doctor;
mod exit;
mod generate;
mod log;
mod login;
mod netcheck;
mod profiles;
mod progress;
mod render;
mod service;
mod wait;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use adit_client_ipc::{CallError, Event, FrontEnd, Reason, Request, ResourceStatus, Response, Status, Token};
use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use self::args::{
    Arguments, Awaited, Command, ConfigCommand, DebugCommand, DnsCommand, LogCommand, ServiceCommand,
};
pub use self::exit::ExitCode;
use self::exit::Failure;
use self::progress::Progress;

/// How long the daemon may take for a call that only reads or changes its state.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Runs the command line and returns the exit code of the process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let json = arguments.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&Failure::from(anyhow::Error::from(error)), json),
    };
    match runtime.block_on(execute(&arguments)) {
        Ok(()) => ExitCode::Ok,
        Err(failure) => exit::report(&failure, json),
    }
}

async fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let socket = arguments.socket();
    // These need no daemon.
    match &arguments.command {
        Command::Help { topic } => return help(topic.as_deref(), arguments.json),
        Command::Completion { shell } => return generate::completion(*shell, Arguments::command()),
        Command::Man { directory } => return Ok(generate::manual(directory, Arguments::command())?),
        Command::Service { command: ServiceCommand::Install { portal, daemon } } => {
            let profile = arguments.profile.as_ref();
            return service::install(profile, daemon.as_deref(), portal.as_ref(), arguments.json);
        }
        Command::Service { command: ServiceCommand::Uninstall } => {
            return service::uninstall(arguments.profile.as_ref(), arguments.json);
        }
        Command::Profiles => return profiles::list(arguments.json).await,
        // These are wanted most when there is no daemon.
        Command::Doctor => return doctor::doctor(&socket, arguments.json).await,
        Command::Debug { command: DebugCommand::Bundle { output, redact, preview } } => {
            let mut daemon = FrontEnd::connect(&socket).await.ok();
            let wish = bundle::Wish { output, redaction: *redact, preview: *preview, json: arguments.json };
            return bundle::bundle(daemon.as_mut(), wish).await;
        }
        _ => {}
    }
    let mut daemon = FrontEnd::connect(&socket).await.map_err(|error| Failure::connecting(error, &socket))?;
    match &arguments.command {
        Command::Up { token_file, wait, timeout } => {
            let token = token_file.as_deref().map(read_token).transpose()?;
            daemon.call(Request::Up { token }, CALL_LIMIT).await?;
            if *wait {
                wait::wait(&mut daemon, &Awaited::Online, Duration::from_secs(*timeout), arguments.json)
                    .await?;
            }
            show_status(&mut daemon, arguments.json).await
        }
        Command::Login { cancel: true, .. } => {
            daemon.call(Request::CancelLogin {}, CALL_LIMIT).await?;
            say(arguments.json, "Nobody is signing in any more.")
        }
        Command::Login { device_code, no_browser, cancel: false } => {
            let (device_code, no_browser, json) = (*device_code, *no_browser, arguments.json);
            let wish = login::Wish { device_code, no_browser, json };
            login::login(&mut daemon, &socket, wish).await
        }
        Command::Down => {
            daemon.call(Request::Down {}, CALL_LIMIT).await?;
            say(arguments.json, "Disconnected.")
        }
        Command::Logout => {
            daemon.call(Request::Logout {}, CALL_LIMIT).await?;
            say(arguments.json, "Signed out.")
        }
        Command::Status { watch: false } => show_status(&mut daemon, arguments.json).await,
        Command::Status { watch: true } => watch_status(&mut daemon, arguments.json).await,
        Command::Resources => show_resources(&mut daemon, arguments.json).await,
        Command::Route { destination } => route(&mut daemon, destination, arguments.json).await,
        Command::Wait { what, timeout } => {
            wait::wait(&mut daemon, what, Duration::from_secs(*timeout), arguments.json).await?;
            say(arguments.json, "So it is.")
        }
        Command::Netcheck => netcheck::netcheck(&mut daemon, arguments.json).await,
        Command::Config { command: ConfigCommand::List } => config::list(&mut daemon, arguments.json).await,
        Command::Dns { command: DnsCommand::Status } => dns::status(&mut daemon, arguments.json).await,
        Command::Dns { command: DnsCommand::Query { name, rtype } } => {
            dns::query(&mut daemon, name, *rtype, arguments.json).await
        }
        Command::Log { command } => log_command(&mut daemon, command, arguments.json).await,
        Command::Help { .. }
        | Command::Completion { .. }
        | Command::Man { .. }
        | Command::Service { .. }
        | Command::Profiles
        | Command::Doctor
        | Command::Debug { .. } => Ok(()),
        Command::Ping { resource, timeout } => {
            ping(&mut daemon, resource, Duration::from_secs(*timeout), arguments.json).await
        }
    }
}

/// Explains a code, or a command as `--help` does.
fn help(topic: Option<&str>, json: bool) -> Result<(), Failure> {
    if let Some(reason) = topic.and_then(Reason::from_code) {
        let (code, cause, fix) = (reason.code(), reason.cause(), reason.fix());
        let explained = render::Explained { code, cause, fix };
        return print(&if json { render::json(&explained)? } else { render::reason(reason) });
    }
    let mut command = Arguments::command();
    command.build();
    let found = match topic {
        None => Some(&mut command),
        Some(name) => command.find_subcommand_mut(name),
    };
    let Some(found) = found else {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        return Err(Failure::usage(format!("no such command or code; the codes are {}", known.join(", "))));
    };
    print(&found.render_long_help().to_string())
}

/// Reads a token file; anything but one line with a token is an error that names the file.
fn read_token(path: &Path) -> anyhow::Result<Token> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("cannot read the token from standard input")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    let token = text.trim();
    anyhow::ensure!(!token.is_empty(), "{} holds no token", path.display());
    anyhow::ensure!(!token.contains(char::is_whitespace), "{} holds more than one token", path.display());
    Ok(Token(token.to_owned()))
}

async fn fetch_status(daemon: &mut FrontEnd) -> Result<Status, Failure> {
    match daemon.call(Request::Status {}, CALL_LIMIT).await? {
        Response::Status(status) => Ok(*status),
        other => Err(Failure::unexpected(&other)),
    }
}

async fn show_status(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    let status = fetch_status(daemon).await?;
    print(&if json { render::json(&status)? } else { render::status(&status) })
}

async fn watch_status(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    daemon.call(Request::Subscribe {}, CALL_LIMIT).await?;
    show_status(daemon, json).await?;
    loop {
        if let Event::Status(status) = daemon.next_event().await? {
            print(&if json { render::json(&*status)? } else { render::status(&status) })?;
        }
    }
}

async fn fetch_resources(daemon: &mut FrontEnd) -> Result<Vec<ResourceStatus>, Failure> {
    match daemon.call(Request::Resources {}, CALL_LIMIT).await? {
        Response::Resources(resources) => Ok(resources),
        other => Err(Failure::unexpected(&other)),
    }
}

async fn show_resources(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    let resources = fetch_resources(daemon).await?;
    print(&if json { render::json_list("resources", &resources)? } else { render::resources(&resources) })
}

async fn ping(daemon: &mut FrontEnd, resource: &str, limit: Duration, json: bool) -> Result<(), Failure> {
    let request = Request::Ping { resource: resource.to_owned() };
    let progress = Progress::start(json, format!("Looking for a path to {resource}"));
    let answer = daemon.call(request, limit).await;
    drop(progress);
    match answer {
        Ok(Response::Ping(report)) => {
            print(&if json { render::json(&report)? } else { render::ping(&report) })
        }
        Ok(other) => Err(Failure::unexpected(&other)),
        Err(CallError::Timeout) => {
            Err(Failure::timeout(format!("no path to {resource} after {} s", limit.as_secs())))
        }
        Err(error) => Err(error.into()),
    }
}

async fn route(daemon: &mut FrontEnd, destination: &str, json: bool) -> Result<(), Failure> {
    match daemon.call(Request::Route { destination: destination.to_owned() }, CALL_LIMIT).await? {
        Response::Route(report) => {
            print(&if json { render::json(&*report)? } else { render::route(&report) })
        }
        other => Err(Failure::unexpected(&other)),
    }
}

async fn log_command(daemon: &mut FrontEnd, command: &LogCommand, json: bool) -> Result<(), Failure> {
    match command {
        LogCommand::Path => {
            let directory = fetch_status(daemon).await?.log_directory;
            print(&if json {
                render::json(&render::LogPath { directory })?
            } else {
                format!("{directory}\n")
            })
        }
        LogCommand::Tail { lines, follow } => {
            let directory = fetch_status(daemon).await?.log_directory;
            log::tail(Path::new(&directory), *lines, *follow, json).await
        }
        LogCommand::Level { filter: Some(filter) } => {
            daemon.call(Request::SetLogLevel { level: filter.clone() }, CALL_LIMIT).await?;
            say(json, "The level is set until the daemon's next start.")
        }
        LogCommand::Level { filter: None } => match daemon.call(Request::LogLevel {}, CALL_LIMIT).await? {
            Response::LogLevel(level) => {
                print(&if json { render::json(&render::LogLevel { level })? } else { format!("{level}\n") })
            }
            other => Err(Failure::unexpected(&other)),
        },
    }
}

fn say(json: bool, sentence: &str) -> Result<(), Failure> {
    print(&if json { render::json(&render::Done { ok: true })? } else { format!("{sentence}\n") })
}

/// Says to a person that something takes its time; nothing to a pipe, and nothing to rely on.
fn note(sentence: &str) {
    let mut terminal = std::io::stderr().lock();
    if std::io::IsTerminal::is_terminal(&terminal) {
        // A terminal that is gone misses nothing.
        let _ = writeln!(terminal, "{sentence}");
    }
}

/// Writes to standard output; a reader that went away ends the command, without a failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(anyhow::Error::from(error).context("cannot write to standard output").into()),
    }
}
