//! A TURN client on Adit's own machine, to be set against other servers. Not shipped.
//!
//! It makes an allocation, reaches echo servers through it, refreshes and deletes it, and prints one JSON object with
//! what it counted. Exit status 0 when the visit came to its end; the counts are for the caller to judge.

mod exchange;
mod way;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use adit_turn::client::Transport;
use adit_turn::credentials;
use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use rand::TryRngCore as _;
use serde_json::{Value, json};

use crate::exchange::{Exchange, Framing, NUMBER, Plan, Report};
use crate::way::Way;

/// How long the credentials are good.
const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(3600);

/// The longest wait for a datagram before time is looked at again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Visit a TURN server: allocate, send datagrams to echo servers, refresh, delete.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// The secret from which server and client make credentials.
    #[arg(long, value_name = "SECRET")]
    secret: String,
    /// Name of the user within the credentials.
    #[arg(long, value_name = "NAME", default_value = "lab")]
    user: String,
    /// An echo server; may be repeated, then datagrams go to each in turn.
    #[arg(long = "peer", value_name = "ADDRESS:PORT", required = true)]
    peers: Vec<SocketAddr>,
    /// What carries datagrams between client and server.
    #[arg(long, value_enum, default_value_t = TransportArgument::Udp)]
    transport: TransportArgument,
    /// The certificate (PEM) of whoever signed the server's; for TLS.
    #[arg(long, value_name = "FILE", required_if_eq("transport", "tls"))]
    ca: Option<PathBuf>,
    /// How datagrams travel between client and server.
    #[arg(long, value_enum, default_value_t = FramingArgument::Channel)]
    framing: FramingArgument,
    /// Datagrams to send.
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    /// Payload sizes in bytes, at least 8, used in turn.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "100")]
    sizes: Vec<usize>,
    /// Milliseconds between two datagrams.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    interval: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FramingArgument {
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Indication,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportArgument {
    Udp,
    Tcp,
    Tls,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut seed = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut seed).context("no randomness")?;
    let mut way = match arguments.transport {
        TransportArgument::Udp => Way::udp(arguments.server)?,
        TransportArgument::Tcp => Way::tcp(arguments.server)?,
        TransportArgument::Tls => {
            Way::tls(arguments.server, arguments.ca.as_deref().context("TLS needs --ca")?)?
        }
    };
    let mut exchange = Exchange::new(Instant::now(), plan(arguments)?, seed);
    run(&mut way, &mut exchange)?;
    let report = exchange.report();
    println!("{}", as_json(report));
    Ok(if report.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Feeds the machine until it is done. A server may end the connection of an allocation that is gone.
fn run(way: &mut Way, exchange: &mut Exchange) -> Result<()> {
    while !exchange.is_done() {
        match step(way, exchange) {
            Err(_) if exchange.may_be_left() => exchange.note_left(),
            outcome => outcome?,
        }
    }
    Ok(())
}

fn step(way: &mut Way, exchange: &mut Exchange) -> Result<()> {
    while let Some(transmit) = exchange.poll_transmit() {
        way.send(&transmit)?;
    }
    let (deadline, _) = exchange.poll_timeout();
    let wait = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
    if wait.is_zero() {
        exchange.handle_timeout(Instant::now());
        return Ok(());
    }
    way.receive(wait, |from, datagram| exchange.handle_datagram(Instant::now(), from, datagram))
}

fn plan(arguments: Arguments) -> Result<Plan> {
    let sizes = NUMBER..=60_000;
    ensure!(arguments.sizes.iter().all(|size| sizes.contains(size)), "sizes are {} to {}", NUMBER, 60_000);
    let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + CREDENTIAL_LIFETIME;
    let username = credentials::username(expires.as_secs(), &arguments.user);
    Ok(Plan {
        password: credentials::password(arguments.secret.as_bytes(), &username),
        username,
        server: arguments.server,
        transport: match arguments.transport {
            TransportArgument::Udp => Transport::Udp,
            TransportArgument::Tcp | TransportArgument::Tls => Transport::Stream,
        },
        peers: arguments.peers,
        framing: match arguments.framing {
            FramingArgument::Channel => Framing::Channel,
            FramingArgument::Indication => Framing::Indication,
        },
        count: arguments.count,
        sizes: arguments.sizes,
        interval: Duration::from_millis(arguments.interval),
    })
}

fn as_json(report: &Report) -> Value {
    let milliseconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    json!({
        "failure": report.failure,
        "mapped": report.mapped,
        "relayed": report.relayed,
        "allocate_ms": milliseconds(report.allocated_after),
        "open_ms": milliseconds(report.opened_after),
        "sent": report.sent,
        "received": report.received,
        "duplicates": report.duplicates,
        "corrupt": report.corrupt,
        "round_trip_ms": milliseconds(report.median_round_trip),
        "errors": report.errors,
        "refreshed": report.refreshed,
        "deleted": report.deleted,
        "after_deletion": report.after_deletion,
        "retransmissions": report.retransmissions,
        "wrong_integrity": report.wrong_integrity,
        "garbage": report.garbage,
    })
}
