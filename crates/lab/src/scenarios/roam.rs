//! The client changes its network; connections stay.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::topology::Options;

const LIMIT: Duration = Duration::from_secs(20);

/// Moves in one world: there and back, twice.
const MOVES: usize = 4;

/// Traffic between two moves.
const SETTLE: Duration = Duration::from_millis(1_500);

fn second_way(options: Options) -> Options {
    Options { second_way: true, ..options }
}

/// Programs that complain about the session with the portal, which breaks with the network.
fn announce(context: &mut Context) {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
}

pub(super) fn roam(context: &mut Context) -> Result<()> {
    announce(context);
    let stage = Stage::complete(&second_way(nearby()), context)?;
    move_about(&stage, context, "outage_ms", Target::Percentile(95, 500.0))?;
    stage.close()?;
    let stage = Stage::complete(&second_way(Options::lan()), context)?;
    move_about(&stage, context, "outage_lan_ms", Target::Percentile(50, 30.0))?;
    stage.close()
}

pub(super) fn portal_down(context: &mut Context) -> Result<()> {
    announce(context);
    let mut stage = Stage::complete(&second_way(nearby()), context)?;
    stage.probe(100)?.wait_for_reply_after(Instant::now(), LIMIT)?;
    stage.portal.stop()?;
    move_about(&stage, context, "outage_ms", Target::Percentile(95, 500.0))?;
    stage.close()
}

/// The gap in a stream of a datagram each millisecond around each move; the connection must stay the same.
fn move_about(stage: &Stage, context: &mut Context, metric: &str, target: Target) -> Result<()> {
    let way = stage.topology.client().second.as_ref().context("the client has no second network")?;
    stage.probe(100)?.wait_for_reply_after(Instant::now(), LIMIT)?;
    std::thread::sleep(SETTLE);
    let before = closed_connections(stage)?;
    for number in 0..MOVES {
        let probe = stage.probe(1_000)?;
        probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        std::thread::sleep(Duration::from_millis(300));
        if number % 2 == 0 { way.take() } else { way.leave() }?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        std::thread::sleep(SETTLE);
        let report = probe.stop(Duration::from_millis(300));
        context.record_time(metric, report.longest_gap, target);
        ensure!(closed_connections(stage)? == before, "the connection did not survive the move");
    }
    Ok(())
}

/// Connections that the client's log says were closed.
fn closed_connections(stage: &Stage) -> Result<usize> {
    let file = stage.client().host().log_dir()?.join("aditd.log");
    let log = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(log.lines().filter(|line| line.contains("connection closed")).count())
}
