//! One measurement: a test on one implementation.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::affinity;
use super::case::Test;
use super::contestant::Contestant;
use super::ground::Ground;
use super::iperf::{self, Order, Transfer};
use super::rate_search::{self, Trial};
use super::samples::Quantity;
use super::usage;
use crate::probe::udp::EchoServer;
use crate::probe::udp_load::{self, Arrivals, Load};
use crate::probe::{new_flow, ping};

/// Where datagrams go.
const UDP_PORT: u16 = 5301;

/// Payload of a small datagram in bytes.
const SMALL: usize = 64;

/// A rate that every implementation can carry.
const STEADY: f64 = 30_000.0;

/// Time of one trial in the search for the highest rate.
const TRIAL: Duration = Duration::from_millis(1_200);

/// Where datagrams are echoed, at first; each measurement takes the next port.
static ECHO_PORT: AtomicU16 = AtomicU16::new(5400);

const NEW_FLOWS: u32 = 500;
const NEW_FLOW_PAUSE: Duration = Duration::from_millis(2);

const PINGS: u32 = 200;
const PING_IDLE_INTERVAL: Duration = Duration::from_millis(5);
const PING_LOADED_INTERVAL: Duration = Duration::from_millis(10);

/// Time until a TCP connection has filled the queues on its way.
const RAMP: Duration = Duration::from_millis(700);

/// A shorter look says too little about rare events.
const IDLE_AT_LEAST: u32 = 5;

/// Time without traffic after which every tunnel has noticed that there is none.
const QUIET: Duration = Duration::from_secs(30);

/// What a test gave.
pub(super) type Figures = Vec<(Quantity, f64)>;

/// Performs a test that is made on one implementation alone.
///
/// # Errors
/// When nothing could be measured.
pub(super) fn measure(test: Test, contestant: &Contestant, ground: &Ground, seconds: u32) -> Result<Figures> {
    match test {
        Test::Tcp { streams, reverse } => tcp(contestant, ground, streams, reverse, seconds),
        Test::UdpSearch => udp_search(contestant, ground),
        Test::UdpSteady => udp_steady(contestant, ground, seconds),
        Test::PingIdle => {
            let times = ping::round_trips(&contestant.host, &contestant.target, PINGS, PING_IDLE_INTERVAL)?;
            Ok(vec![(Quantity::RoundTrip, median_microseconds(times))])
        }
        Test::PingLoaded => iperf::retry(|| ping_loaded(contestant, ground, seconds)),
        Test::NewFlows => new_flows(contestant, ground),
        Test::Idle => bail!("idle programs are looked at all together"),
    }
}

/// Wake-ups of every client's program while nothing happens, all at the same time.
///
/// # Errors
/// When a program has ended.
pub(super) fn idle(contestants: &[&Contestant], seconds: u32) -> Result<Vec<Figures>> {
    let seconds = seconds.max(IDLE_AT_LEAST);
    std::thread::sleep(QUIET);
    let count = |contestant: &&Contestant| contestant.client.map(usage::context_switches).transpose();
    let (begin, before) = (Instant::now(), contestants.iter().map(count).collect::<Result<Vec<_>>>()?);
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let elapsed = begin.elapsed().as_secs_f64();
    let mut all = Vec::new();
    for (contestant, before) in contestants.iter().zip(before) {
        let switches = count(contestant)?.zip(before).map(|(after, before)| after.saturating_sub(before));
        let figure = switches.map(|switches| (Quantity::WakeUps, switches as f64 / elapsed));
        all.push(figure.into_iter().collect());
    }
    Ok(all)
}

/// Peak memory of its programs.
///
/// # Errors
/// When one has ended.
pub(super) fn memory(contestant: &Contestant) -> Result<Figures> {
    let programs = [
        (Quantity::ClientMemory, contestant.client),
        (Quantity::GatewayMemory, contestant.gateway),
        (Quantity::RelayMemory, contestant.relay),
    ];
    let running = programs.into_iter().filter_map(|(quantity, pid)| Some((quantity, pid?)));
    running.map(|(quantity, pid)| Ok((quantity, usage::peak_mebibytes(pid)?))).collect()
}

fn tcp(
    contestant: &Contestant,
    ground: &Ground,
    streams: u8,
    reverse: bool,
    seconds: u32,
) -> Result<Figures> {
    // Time used by an attempt that fails must not count.
    let (transfer, used) = iperf::retry(|| {
        let before = cpu(contestant)?;
        let transfer = transfer(contestant, ground, streams, reverse, seconds)?;
        Ok((transfer, cpu(contestant)?.zip(before).map(|(after, before)| after - before)))
    })?;
    let mut figures = vec![(Quantity::Throughput, transfer.gigabits_per_second)];
    if let Some(used) = used {
        figures.push((Quantity::CpuPerGigabyte, used / (transfer.bytes / 1e9)));
    }
    Ok(figures)
}

/// One attempt.
fn transfer(
    contestant: &Contestant,
    ground: &Ground,
    streams: u8,
    reverse: bool,
    seconds: u32,
) -> Result<Transfer> {
    let order = Order { target: &contestant.target, streams, reverse, seconds };
    affinity::on(ground.client_processor(), || iperf::run(&contestant.host, &order))
}

/// Processor seconds of everything that carries its packets; `None` when the kernel alone does.
fn cpu(contestant: &Contestant) -> Result<Option<f64>> {
    let used = contestant.pids().map(usage::cpu_seconds).collect::<Result<Vec<_>>>()?;
    Ok((!used.is_empty()).then(|| used.iter().sum()))
}

fn datagrams(
    contestant: &Contestant,
    ground: &Ground,
    per_second: f64,
    duration: Duration,
) -> Result<Arrivals> {
    let target = SocketAddr::new(contestant.target.parse()?, UDP_PORT);
    let load = Load { per_second, duration, size: SMALL };
    udp_load::run(&contestant.host, &ground.resource, target, &load)
}

fn udp_search(contestant: &Contestant, ground: &Ground) -> Result<Figures> {
    let first = if contestant.client.is_some() { 120_000.0 } else { 400_000.0 };
    let best = rate_search::highest(first, |rate| {
        let arrivals = datagrams(contestant, ground, rate, TRIAL)?;
        Ok(Trial { offered: arrivals.offered, rate: arrivals.rate, loss: arrivals.loss() })
    })?;
    Ok(vec![(Quantity::PacketRate, best)])
}

fn udp_steady(contestant: &Contestant, ground: &Ground, seconds: u32) -> Result<Figures> {
    let before = cpu(contestant)?;
    let arrivals = datagrams(contestant, ground, STEADY, Duration::from_secs(seconds.into()))?;
    if arrivals.received == 0 {
        bail!("{}: no datagram arrived", contestant.implementation.name());
    }
    if arrivals.stale > 0 {
        let (name, stale) = (contestant.implementation.name(), arrivals.stale);
        println!("  NOTE: {name}: {stale} datagrams of an earlier load arrived only now");
    }
    let mut figures = vec![
        (Quantity::Reordered, arrivals.reordered as f64),
        (Quantity::OneWay, arrivals.median_delay.as_secs_f64() * 1e6),
    ];
    if let Some(used) = cpu(contestant)?.zip(before).map(|(after, before)| after - before) {
        figures.insert(0, (Quantity::CpuPerPacket, used / arrivals.received as f64 * 1e6));
    }
    Ok(figures)
}

fn ping_loaded(contestant: &Contestant, ground: &Ground, seconds: u32) -> Result<Figures> {
    let pings = seconds * 1_000 / PING_LOADED_INTERVAL.as_millis().max(1) as u32;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| transfer(contestant, ground, 1, false, seconds + 2));
        std::thread::sleep(RAMP);
        let times = ping::round_trips(&contestant.host, &contestant.target, pings, PING_LOADED_INTERVAL);
        match load.join() {
            Ok(transfer) => transfer?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(vec![(Quantity::RoundTrip, median_microseconds(times?))])
    })
}

/// The 99th percentile of first datagrams less that of second ones: what the same moment costs anyway is not their fault.
fn new_flows(contestant: &Contestant, ground: &Ground) -> Result<Figures> {
    let port = ECHO_PORT.fetch_add(1, Ordering::Relaxed);
    let _echo = EchoServer::start(&ground.resource, port)?;
    let target = SocketAddr::new(contestant.target.parse()?, port);
    let times = new_flow::round_trips(&contestant.host, target, NEW_FLOWS, NEW_FLOW_PAUSE)?;
    let [first, second] = [times.first, times.second].map(|mut times| {
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    });
    Ok(vec![(Quantity::NewFlowExtra, first - second)])
}

fn median_microseconds(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
