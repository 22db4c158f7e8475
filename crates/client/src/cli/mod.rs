//! The command line `adit`.
//!
//! Every command is one conversation with the daemon. What it prints for people fits in 80
//! columns; `--json` prints one JSON object with `"schema":1` instead.

mod args;
mod exit;
mod render;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_client_ipc::{CallError, Event, FrontEnd, Reason, Request, Response, State, Status, Token};
use anyhow::Context as _;
use clap::Parser as _;

use self::args::{Arguments, Command};
pub use self::exit::ExitCode;
use self::exit::Failure;

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
    let mut daemon = FrontEnd::connect(&arguments.socket)
        .await
        .map_err(|error| Failure::connecting(error, &arguments.socket))?;
    match &arguments.command {
        Command::Up { token_file, wait, timeout } => {
            let token = token_file.as_deref().map(read_token).transpose()?;
            daemon.call(Request::Up { token }, CALL_LIMIT).await?;
            if *wait {
                wait_until_online(&mut daemon, Duration::from_secs(*timeout)).await?;
            }
            show_status(&mut daemon, arguments.json).await
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
        Command::Ping { resource, timeout } => {
            ping(&mut daemon, resource, Duration::from_secs(*timeout), arguments.json).await
        }
    }
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

/// Waits until resources can be reached, or until it is clear that they will not be.
async fn wait_until_online(daemon: &mut FrontEnd, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    daemon.call(Request::Subscribe {}, CALL_LIMIT).await?;
    let mut status = fetch_status(daemon).await?;
    loop {
        match status.state {
            State::Online | State::Degraded => return Ok(()),
            State::Blocked => return Err(Failure::blocked(&status)),
            State::SignedOut if status.reason == Some(Reason::NoToken) => return Err(Failure::signed_out()),
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let event = tokio::time::timeout(left, daemon.next_event())
            .await
            .map_err(|_| Failure::timeout(format!("not online after {} s", limit.as_secs())))??;
        if let Event::Status(new) = event {
            status = *new;
        }
    }
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

async fn show_resources(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    match daemon.call(Request::Resources {}, CALL_LIMIT).await? {
        Response::Resources(resources) if json => print(&render::json_list("resources", &resources)?),
        Response::Resources(resources) => print(&render::resources(&resources)),
        other => Err(Failure::unexpected(&other)),
    }
}

async fn ping(daemon: &mut FrontEnd, resource: &str, limit: Duration, json: bool) -> Result<(), Failure> {
    let request = Request::Ping { resource: resource.to_owned() };
    match daemon.call(request, limit).await {
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

fn say(json: bool, sentence: &str) -> Result<(), Failure> {
    print(&if json { render::json(&render::Done { ok: true })? } else { format!("{sentence}\n") })
}

/// Writes to standard output; a reader that went away is no failure of the command.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to standard output").into())
        }
        _ => Ok(()),
    }
}
