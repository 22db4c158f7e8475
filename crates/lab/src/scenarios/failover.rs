//! A gateway goes away while another one serves the same site.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::nearby;
use crate::process::Signal;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::topology::Options;

const LIMIT: Duration = Duration::from_secs(20);

/// Times that a gateway goes away in one world.
const ROUNDS: usize = 3;

/// Traffic before the event, so that nothing of the connection's beginning is in the figure.
const SETTLE: Duration = Duration::from_secs(2);

/// Programs that complain while a gateway is away, and rightly so.
fn announce(context: &mut Context) {
    context.expectations.announce("adit-gateway", "portal");
    context.expectations.announce("adit-portal", "gateway");
}

/// Lets the gateway in use go away, measures the gap in a stream of a datagram each millisecond, and
/// brings the gateway back; several times.
fn measure(
    context: &mut Context,
    target: f64,
    away: fn(&mut Stage, usize) -> Result<()>,
    back: fn(&mut Stage, usize) -> Result<()>,
) -> Result<()> {
    let mut stage = Stage::complete(&Options { gateways_per_site: 2, ..nearby() }, context)?;
    for _ in 0..ROUNDS {
        let probe = stage.probe(1_000)?;
        probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        std::thread::sleep(SETTLE);
        let index = stage.gateway_in_use()?;
        away(&mut stage, index)?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        let report = probe.stop(Duration::from_millis(300));
        context.record_time("outage_ms", report.longest_gap, Target::Percentile(95, target));
        back(&mut stage, index)?;
        stage.client().wait_for("one connection", LIMIT, |status| status.connections.len() == 1)?;
    }
    stage.close()
}

pub(super) fn restart(context: &mut Context) -> Result<()> {
    measure(
        context,
        300.0,
        |stage, index| stage.gateways[index].stop().map(drop),
        |stage, index| stage.gateways[index].start().map(drop),
    )
}

pub(super) fn crash(context: &mut Context) -> Result<()> {
    announce(context);
    measure(
        context,
        1_000.0,
        |stage, index| stage.gateways[index].crash(),
        |stage, index| stage.gateways[index].start().map(drop),
    )
}

/// Somebody pulls the gateway's cable. Its own private network stays.
pub(super) fn link_down(context: &mut Context) -> Result<()> {
    announce(context);
    measure(
        context,
        1_000.0,
        |stage, index| stage.topology.sites[0].gateways[index].router.host.ip("link set lan down"),
        |stage, index| {
            stage.topology.sites[0].gateways[index].router.host.ip("link set lan up")?;
            stage.gateways[index].wait_ready()
        },
    )
}

/// The gateway's process stands still: its machine answers, it does not.
pub(super) fn frozen(context: &mut Context) -> Result<()> {
    announce(context);
    measure(
        context,
        1_000.0,
        |stage, index| stage.gateways[index].signal(Signal::SIGSTOP),
        |stage, index| {
            stage.gateways[index].signal(Signal::SIGCONT)?;
            stage.gateways[index].wait_ready()
        },
    )
}
