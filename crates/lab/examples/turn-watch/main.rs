//! One channel in constant use, and when data came through it: what it shows is when data *stopped*. Not shipped.
//!
//! Client and peer are this program. A third socket, to whom the client never gave a permission, sends to the relayed
//! address all the time. Everybody goes on sending after the allocation has ended. One JSON object is printed; its
//! times are seconds since 1970, so that whoever did something to the relay meanwhile can tell before from after.

mod ends;
mod trace;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::ends::Ends;
use crate::trace::unix_now;

/// How often sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Longest wait for the channel.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for the last datagrams.
const GRACE: Duration = Duration::from_millis(500);

/// Use a channel of a TURN relay, and say when data came through it.
#[derive(Debug, Parser)]
struct Arguments {
    /// The relay.
    #[arg(long, value_name = "ADDRESS:PORT")]
    relay: SocketAddr,
    /// The secret from which relay and users make credentials.
    #[arg(long, value_name = "SECRET")]
    secret: String,
    /// The user.
    #[arg(long, value_name = "NAME", default_value = "watch")]
    user: String,
    /// Address of client and peer.
    #[arg(long, value_name = "ADDRESS")]
    address: IpAddr,
    /// Address of somebody without permission, also of this machine.
    #[arg(long, value_name = "ADDRESS")]
    stranger: IpAddr,
    /// How long the credentials are good.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    credentials_for: u64,
    /// Give the allocation back after so long.
    #[arg(long, value_name = "SECONDS")]
    delete_after: Option<f64>,
    /// How long to send.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Datagrams a second, from each.
    #[arg(long, value_name = "RATE", default_value_t = 250)]
    rate: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
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

fn run(arguments: &Arguments) -> Result<Value> {
    ensure!(arguments.rate > 0 && arguments.seconds.is_finite(), "nothing to send");
    let (now, unix) = (Instant::now(), unix_now()?);
    let expires = unix as u64 + arguments.credentials_for;
    let user = (arguments.user.as_str(), expires);
    let mut ends =
        Ends::open(now, arguments.relay, [arguments.address, arguments.stranger], &arguments.secret, user)?;
    while !ends.is_open() {
        ensure!(now.elapsed() < OPEN_LIMIT, "no channel after {OPEN_LIMIT:?}");
        ends.work(Instant::now())?;
        thread::sleep(LOOK_EVERY);
    }
    println!("open");
    let began = unix_now()?;
    send(&mut ends, arguments)?;
    let last = Instant::now();
    while last.elapsed() < GRACE {
        ends.work(Instant::now())?;
        thread::sleep(LOOK_EVERY);
    }
    Ok(json!({
        "began": began,
        "expires": expires,
        "deleted": ends.deleted,
        "sent": ends.sent,
        "from_stranger": ends.from_stranger,
        "to_peer": ends.to_peer.report(),
        "to_client": ends.to_client.report(),
    }))
}

/// Sends at the rate until the time is over, and deletes the allocation at its time.
fn send(ends: &mut Ends, arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let end = Duration::try_from_secs_f64(arguments.seconds)?;
    let mut delete_at = arguments.delete_after.map(Duration::try_from_secs_f64).transpose()?;
    let mut rounds = 0;
    loop {
        let passed = begin.elapsed();
        if passed >= end {
            return Ok(());
        }
        // What a busy machine did not let us send in time is sent late: rates are not what is measured here.
        while f64::from(rounds) < passed.as_secs_f64() * f64::from(arguments.rate) {
            ends.send();
            rounds += 1;
        }
        if delete_at.is_some_and(|at| passed >= at) {
            delete_at = None;
            ends.delete(Instant::now());
        }
        ends.work(Instant::now())?;
        thread::sleep(LOOK_EVERY);
    }
}
