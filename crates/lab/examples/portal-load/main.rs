//! A load generator for portals: it is every device at once. Not shipped.
//!
//! It makes an installation of its own in a temporary directory, starts the program that it is given, opens real
//! WebSocket sessions over TLS as clients and gateways, and prints one sample a line: figure, whose it is, round, value.
//! `cargo xtask bench portal` runs it. It shares the machine with the portal that it measures, so it has one thread,
//! reads of the portal's messages only what it needs, and buffers little.
//!
//! Portals limit how often one address connects, so devices come from many addresses of the loopback network.

mod api;
mod authorizations;
mod connected;
mod installation;
mod nodes;
mod page;
mod peer;
mod postgres;
mod revocation;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

/// Load a portal with devices and say what became of it.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    case: Case,
    /// The program `adit-portal`.
    #[arg(long, value_name = "FILE")]
    portal: PathBuf,
    /// Keep the installation on a PostgreSQL server that is started for it.
    #[arg(long)]
    postgres: bool,
    /// Devices.
    #[arg(long, value_name = "N", default_value_t = 100)]
    devices: u32,
    /// How long the load lasts.
    #[arg(long, value_name = "S", default_value_t = 5)]
    seconds: u64,
    /// Which round the samples belong to.
    #[arg(long, value_name = "N", default_value_t = 1)]
    round: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Memory of a portal to which devices are connected that want nothing.
    Idle,
    /// Many devices that stay.
    Connected,
    /// Requests for access, answered at both ends.
    Authorizations,
    /// One change that takes access from many.
    Revocation,
    /// A page of a long list.
    Page,
    /// The death of one of two nodes under load.
    Nodes,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let run = || -> Result<()> {
        raise_file_limit(arguments.devices)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(measure(&arguments))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portal-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let time = Duration::from_secs(arguments.seconds);
    let samples = match arguments.case {
        Case::Idle => connected::idle(arguments, time).await?,
        Case::Connected => connected::many(arguments, time).await?,
        Case::Authorizations => authorizations::measure(arguments, time).await?,
        Case::Revocation => revocation::measure(arguments).await?,
        Case::Page => page::measure(arguments).await?,
        Case::Nodes => nodes::measure(arguments, time).await?,
    };
    for (figure, value) in samples {
        println!("{figure} adit {} {value}", arguments.round);
    }
    Ok(())
}

/// Files that are open besides sessions.
const OTHER_FILES: u64 = 200;

/// A session is a file at either end, and the portal inherits the limit.
fn raise_file_limit(devices: u32) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let needed = u64::from(devices) + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
    raised.with_context(|| format!("{devices} devices need {needed} open files; the limit here is {hard}"))
}
