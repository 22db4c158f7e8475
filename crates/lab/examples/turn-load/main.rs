//! A load generator for TURN relays, on Adit's own client machine. Not shipped.
//!
//! It is every client and every peer at once, so that one clock measures one-way times. Each command prints one JSON
//! object. `cargo xtask bench relay` runs it against our relay and others; by hand it runs against any relay that makes
//! credentials from a shared secret, on machines that are yours to load.

mod flood;
mod flow;
mod histogram;
mod load;
mod opening;
mod report;
mod socket;
mod tally;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_lab::bench::rate_search::{self, Trial};
use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::flood::Question;
use crate::flow::{Flow, Place};
use crate::load::{Direction, Load};

/// Requests under way at a time where nothing else is said.
const AT_ONCE: usize = 64;

/// Longest that allocations are kept for somebody who looks at the relay meanwhile.
const HOLD_LIMIT: Duration = Duration::from_secs(120);

/// Load a TURN relay over UDP and say what became of it.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send numbered datagrams at a given rate.
    Load(LoadArguments),
    /// Search the highest rate of which at most 1 % is lost, beginning at the given one.
    Search(LoadArguments),
    /// Open allocations with a channel each, as fast as the relay answers.
    Allocate(AllocateArguments),
    /// Ask as a stranger, each time from another address.
    Flood(FloodArguments),
    /// Ask everything that a stranger can ask, and say how much comes back.
    Amplification(AmplificationArguments),
}

#[derive(Debug, Args)]
struct PlaceArguments {
    /// The relay; without one, datagrams go straight to the peers.
    #[arg(long, value_name = "ADDRESS:PORT")]
    relay: Option<SocketAddr>,
    /// The secret from which relay and users make credentials.
    #[arg(long, value_name = "SECRET", default_value = "")]
    secret: String,
    /// Addresses of the clients, one after the other.
    #[arg(long, value_name = "NETWORK")]
    clients: IpNet,
    /// Address of the peers.
    #[arg(long, value_name = "ADDRESS")]
    peers: IpAddr,
}

#[derive(Debug, Args)]
struct LoadArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Clients, each with an allocation, a channel and a peer of its own.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// Datagrams a second, all flows together.
    #[arg(long, value_name = "RATE", default_value_t = 50_000.0)]
    rate: f64,
    /// Length of the load, or of each trial of a search.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// Bytes of payload.
    #[arg(long, value_name = "BYTES", default_value_t = 1_200)]
    size: usize,
    /// Datagrams that leave together.
    #[arg(long, value_name = "N", default_value_t = 1)]
    train: usize,
    #[arg(long, value_enum, default_value_t = DirectionArgument::Both)]
    direction: DirectionArgument,
}

#[derive(Debug, Args)]
struct AllocateArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Allocations.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Requests under way at a time.
    #[arg(long, value_name = "N", default_value_t = AT_ONCE)]
    at_once: usize,
    /// Keep them until SIGTERM, two minutes at most.
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, Args)]
struct FloodArguments {
    /// The relay.
    #[arg(long, value_name = "ADDRESS:PORT")]
    relay: SocketAddr,
    /// Whence they ask; all of it must belong to this machine.
    #[arg(long, value_name = "NETWORK")]
    strangers: IpNet,
    /// Questions.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    count: u64,
    /// Questions a second.
    #[arg(long, value_name = "RATE", default_value_t = 50_000.0)]
    rate: f64,
}

#[derive(Debug, Args)]
struct AmplificationArguments {
    /// The relay.
    #[arg(long, value_name = "ADDRESS:PORT")]
    relay: SocketAddr,
    /// Whence they ask; all of it must belong to this machine.
    #[arg(long, value_name = "NETWORK")]
    strangers: IpNet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DirectionArgument {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
    /// Half of the datagrams each way.
    Both,
}

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value> {
    let arguments = Arguments::parse();
    socket::raise_open_files()?;
    match arguments.command {
        Command::Load(arguments) => load(&arguments, |flows, load| {
            let outcome = load::run(flows, load)?;
            Ok(report::load(load, flows.len(), &outcome))
        }),
        Command::Search(arguments) => load(&arguments, search),
        Command::Allocate(arguments) => allocate(&arguments),
        Command::Flood(arguments) => flood(&arguments),
        Command::Amplification(arguments) => amplification(&arguments),
    }
}

/// Opens the flows, lets `act` use them, and gives them back.
fn load(arguments: &LoadArguments, act: impl FnOnce(&[Flow], &Load) -> Result<Value>) -> Result<Value> {
    let load = arguments.load();
    load.check()?;
    let place = arguments.place.place();
    let (flows, _) = opening::open(&place, arguments.flows.into(), AT_ONCE)?;
    let report = act(&flows, &load)?;
    opening::release(flows, &place, AT_ONCE)?;
    Ok(report)
}

fn search(flows: &[Flow], load: &Load) -> Result<Value> {
    let highest = rate_search::highest(load.rate, |rate| {
        let outcome = load::run(flows, &Load { rate, ..load.clone() })?;
        let sum = outcome.sum();
        let offered = sum.sent as f64 / outcome.duration.as_secs_f64();
        // What stands in queues at the end arrives later and must not count as if it had come in time.
        let took = outcome.duration.max(sum.last).as_secs_f64();
        Ok(Trial { offered, rate: sum.tally.received as f64 / took, loss: sum.loss() })
    })?;
    Ok(json!({ "rate": highest }))
}

fn allocate(arguments: &AllocateArguments) -> Result<Value> {
    ensure!(arguments.place.relay.is_some(), "give --relay: who else could allocate?");
    let place = arguments.place.place();
    let (flows, opened) = opening::open(&place, arguments.count.into(), arguments.at_once)?;
    let report = report::opened(flows.len(), &opened);
    if arguments.hold {
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
        // Whoever waits for it now knows that all are open.
        println!("{report}");
        let begin = Instant::now();
        while !stop.load(Ordering::Relaxed) && begin.elapsed() < HOLD_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let released = opening::release(flows, &place, arguments.at_once)?;
    Ok(if arguments.hold { json!({ "released": released }) } else { report })
}

fn flood(arguments: &FloodArguments) -> Result<Value> {
    let FloodArguments { relay, strangers, count, rate } = arguments;
    Ok(report::answers(&flood::ask(*relay, *strangers, Question::Allocate, *count, *rate)?))
}

/// Few questions of each kind, and slowly: what a relay answers when no budget holds it back.
fn amplification(arguments: &AmplificationArguments) -> Result<Value> {
    let AmplificationArguments { relay, strangers } = arguments;
    let mut report = serde_json::Map::new();
    for question in Question::ALL {
        let answers = flood::ask(*relay, *strangers, question, 16, 100.0)?;
        report.insert(question.name().to_owned(), report::answers(&answers));
    }
    Ok(Value::Object(report))
}

impl PlaceArguments {
    fn place(&self) -> Place {
        let Self { relay, secret, clients, peers } = self;
        Place { relay: *relay, secret: secret.clone(), clients: *clients, peers: *peers }
    }
}

impl LoadArguments {
    fn load(&self) -> Load {
        let directions = match self.direction {
            DirectionArgument::Up => vec![Direction::Up],
            DirectionArgument::Down => vec![Direction::Down],
            DirectionArgument::Both => vec![Direction::Up, Direction::Down],
        };
        Load {
            rate: self.rate,
            duration: Duration::from_secs_f64(self.seconds.clamp(0.0, 60.0)),
            size: self.size,
            train: self.train,
            directions,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
