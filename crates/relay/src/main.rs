//! The relay `adit-relay`: STUN and TURN for peers that cannot reach each other directly.
//!
//! All protocol decisions are made by [`adit_turn::server::Server`]; this program owns the sockets and the clock around it. Each
//! processor has a thread of its own with a machine, sockets and an event loop of its own ([`shard`]), so that a datagram meets no lock
//! between its arrival and its departure. One more thread starts, watches and stops them, and talks to the portal ([`serve`]). If asked, the
//! kernel forwards what needs no decision ([`fast_path`]).

mod arguments;
mod certificate;
mod condition;
mod doctor;
mod egress;
mod fast_path;
mod identity;
mod metrics;
mod open;
mod portal;
mod probe;
mod serve;
mod settings;
mod shard;
mod sockets;
mod steering;
mod streams;

use std::process::ExitCode;

use crate::arguments::{Arguments, Task};
use crate::serve::RelayError;
use crate::settings::Settings;

/// Something went wrong while running.
const FAILED: u8 = 1;
/// The arguments make no sense; clap uses the same.
const USAGE: u8 = 2;
/// The portal refused the token for good.
const TOKEN_REFUSED: u8 = 4;

fn main() -> ExitCode {
    let arguments: Arguments = match adit_platform::settings::parse() {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    if arguments.task == Some(Task::Doctor) {
        return doctor::run(&arguments);
    }
    let guard = match adit_telemetry::init(adit_telemetry::Config {
        log_dir: arguments.log_dir.clone(),
        stdout: arguments.log_dir.is_none(),
        level: arguments.log_level.clone(),
        ..adit_telemetry::Config::new("adit-relay")
    }) {
        Ok(guard) => guard,
        Err(error) => return complain(&anyhow::Error::from(error), USAGE),
    };
    let settings = match Settings::new(arguments) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, USAGE),
    };
    let outcome = serve::run(settings);
    if let Err(error) = &outcome {
        tracing::error!(error = %error, "the relay failed");
    }
    drop(guard);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(RelayError::Token(reason)) => complain(&anyhow::Error::from(reason), TOKEN_REFUSED),
        Err(RelayError::Settings(error)) => complain(&error, USAGE),
        Err(RelayError::Failed(error)) => complain(&error, FAILED),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a program that could not go on")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("adit-relay: {error:#}");
    ExitCode::from(code)
}
