//! More than fits: what waits for a stream stays short, data is dropped, and the connection stays.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{GRACE, LIMIT, behind_a_firewall, closed_at_client, flowing, require};
use crate::link::Profile;
use crate::probe::udp::{Probe, Report};
use crate::scenario::{Context, Target};
use crate::scenarios::download::download;
use crate::scenarios::nearby;
use crate::stage::Stage;

/// The client's uplink in the first act, in bits per second, and what its router lets wait.
const RATE: u64 = 10_000_000;
const ROUTER_QUEUE: usize = 64 * 1024;

/// Datagrams sent through it each second, and their size: five times as much as fits.
const FLOOD: (u32, usize) = (5_000, 1_200);

/// How long the flood lasts.
const LASTS: Duration = Duration::from_secs(5);

/// Share of frames lost in the second act.
const LOSS: f64 = 0.01;

/// Bytes of a transfer over the lossy line.
const TRANSFER: usize = 3_000_000;

pub(in crate::scenarios) fn loads(context: &mut Context) -> Result<()> {
    let stage = behind_a_firewall(&nearby(), context)?;
    flowing(&stage, 100)?.stop(Duration::ZERO);
    require(&stage, "tls")?;
    let before = closed_at_client(&stage)?;
    let link = stage.topology.client().link.as_ref().context("the client's link is emulated")?;
    let usual = nearby().client_link.context("the client's link is emulated")?;

    link.set(Profile { rate: Some(RATE), queue: ROUTER_QUEUE, ..usual });
    let report = flood(&stage)?;
    let round_trip = report.median_round_trip.context("nothing came back")?;
    let rate = report.received as f64 * FLOOD.1 as f64 * 8.0 / 1e6 / LASTS.as_secs_f64();
    context.record_time("flood, round trip p50", round_trip, Target::AtMost(600.0));
    context.record_time("flood, longest gap", report.longest_gap, Target::AtMost(1_000.0));
    context.record("flood, carried", rate, "Mbit/s", Target::AtLeast(5.0));
    ensure!(report.loss() > 0.5, "more came through than fits: {report:?}");
    link.set(usual);
    let after = flowing(&stage, 200)?;
    std::thread::sleep(Duration::from_secs(1));
    let round_trip = after.stop(GRACE).median_round_trip.context("nothing came back")?;
    context.record_time("after the flood, round trip p50", round_trip, Target::AtMost(120.0));

    link.set(usual.with_loss(LOSS));
    let beside = flowing(&stage, 50)?;
    let took = download(&stage, TRANSFER, LIMIT * 3)?;
    let report = beside.stop(GRACE);
    let rate = TRANSFER as f64 * 8.0 / 1e6 / took.as_secs_f64();
    context.record("1 % loss, download", rate, "Mbit/s", Target::AtLeast(0.5));
    context.record_time("1 % loss, longest gap beside it", report.longest_gap, Target::AtMost(3_000.0));
    require(&stage, "tls")?;
    ensure!(closed_at_client(&stage)? == before, "the connection did not survive");
    stage.close()
}

fn flood(stage: &Stage) -> Result<Report> {
    let (per_second, size) = FLOOD;
    let probe = Probe::start(stage.client().host(), stage.echo_address(), per_second, size)?;
    std::thread::sleep(LASTS);
    Ok(probe.stop(GRACE * 2))
}
