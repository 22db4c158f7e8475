//! Closing without making the other side wait for a timeout.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::probe::udp::Probe;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::topology::Options;

const LIMIT: Duration = Duration::from_secs(20);

/// Silence after which traffic counts as stopped.
const QUIET: Duration = Duration::from_secs(1);

/// A stage with traffic that flows.
fn flowing(options: &Options, context: &Context) -> Result<(Stage, Probe)> {
    let stage = Stage::complete(options, context)?;
    let probe = stage.probe(200)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    Ok((stage, probe))
}

/// Time from `since` to the last datagram that reached the resource.
fn last_delivered(stage: &Stage, probe: &Probe, since: Instant) -> Result<Duration> {
    probe.wait_for_silence(QUIET, LIMIT)?;
    let begin = Instant::now();
    loop {
        let (last, _) = stage.echo.last_received().context("nothing was ever delivered")?;
        // The resource may have heard a datagram whose reply no longer came through: its silence begins a little later.
        if last.elapsed() >= QUIET {
            return Ok(last.saturating_duration_since(since));
        }
        ensure!(begin.elapsed() < LIMIT, "datagrams still reach the resource");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn shutdown(context: &mut Context) -> Result<()> {
    with_one_gateway(context)?;
    with_two_gateways(context)
}

fn with_one_gateway(context: &mut Context) -> Result<()> {
    let (mut stage, probe) = flowing(&nearby(), context)?;
    let took = stage.gateways[0].stop()?;
    context.record_time("one gateway: SIGTERM to exit", took, Target::AtMost(2_000.0));
    let gone = stage.client().wait_for_no_connection(LIMIT)?;
    context.record_time("one gateway: exit to no connection at the client", gone, Target::AtMost(1_000.0));
    stage.gateways[0].start()?;
    let back = Instant::now();
    let reply = probe.wait_for_round_trip_after(back, LIMIT)?;
    context.record_time("one gateway: ready again to next reply", reply, Target::AtMost(10_000.0));
    drop(probe);
    stage.close()
}

fn with_two_gateways(context: &mut Context) -> Result<()> {
    let (mut stage, probe) = flowing(&Options { gateways_per_site: 2, ..nearby() }, context)?;
    let status = stage.client().status()?;
    let used = &status.connections.first().context("no connection")?.name;
    let index = stage
        .gateways
        .iter()
        .position(|gateway| gateway.process().is_some_and(|process| process.host().name() == used));
    let index = index.with_context(|| format!("no gateway is called {used}"))?;
    let asked = Instant::now();
    stage.gateways[index].stop()?;
    let reply = probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    context.record_time("two gateways: exit to next reply", reply, Target::AtMost(5_000.0));
    let report = probe.stop(Duration::from_millis(300));
    context.record_time("two gateways: longest gap", report.longest_gap, Target::AtMost(5_000.0));
    context.record_time("two gateways: SIGTERM to next reply", asked.elapsed(), Target::Shown);
    stage.close()
}

pub(super) fn revoked(context: &mut Context) -> Result<()> {
    let (stage, probe) = flowing(&nearby(), context)?;
    // Without policies nothing new is granted, so what stops stays stopped.
    let called = Instant::now();
    for policy in &stage.access.policies {
        stage.portal.delete_policy(policy)?;
    }
    let returned = called.elapsed();
    let last = last_delivered(&stage, &probe, called)?;
    context.record_time("revoke call", returned, Target::Shown);
    context.record_time("revoke call to last packet delivered", last, Target::AtMost(2_000.0));
    stage.client().wait_for_no_connection(LIMIT)?;
    ensure!(stage.portal.authorizations()?.is_empty(), "authorizations are left");
    drop(probe);
    stage.close()
}

pub(super) fn expired(context: &mut Context) -> Result<()> {
    let mut stage = Stage::raise(&nearby(), &context.programs, context.log_dir())?;
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    stage.start_gateways()?;
    stage.start_clients()?;
    let lifetime = Duration::from_secs(8);
    let signed_in = Instant::now();
    stage.sign_in(lifetime)?;
    let probe = stage.probe(200)?;
    probe.wait_for_reply_after(signed_in, LIMIT)?;
    let last = last_delivered(&stage, &probe, signed_in)?;
    // The lifetime runs from the token's creation, a moment after `signed_in`.
    context.record_time("sign-in to last packet delivered", last, Target::AtMost(10_000.0));
    context.record_time("token lifetime", lifetime, Target::Shown);
    ensure!(last + Duration::from_secs(2) > lifetime, "it ended early, after {last:?}");
    stage.client().wait_for_no_connection(LIMIT)?;
    drop(probe);
    stage.close()
}

pub(super) fn site_lost(context: &mut Context) -> Result<()> {
    let (stage, probe) = flowing(&nearby(), context)?;
    let called = Instant::now();
    stage.portal.delete_policy(&stage.access.policies[1])?;
    probe
        .wait_for_round_trip_after(Instant::now(), LIMIT)
        .context("one of two resources was lost, not both")?;
    stage.portal.delete_policy(&stage.access.policies[0])?;
    stage.client().wait_for_no_connection(LIMIT)?;
    context.record_time("policies deleted to no connection", called.elapsed(), Target::AtMost(5_000.0));
    last_delivered(&stage, &probe, called)?;
    drop(probe);
    stage.close()
}

pub(super) fn sign_out(context: &mut Context) -> Result<()> {
    let (stage, probe) = flowing(&nearby(), context)?;
    let called = Instant::now();
    stage.client().adit(&["logout"])?;
    context.record_time("adit logout", called.elapsed(), Target::AtMost(5_000.0));
    let last = last_delivered(&stage, &probe, called)?;
    context.record_time("logout call to last packet delivered", last, Target::AtMost(2_000.0));
    let status = stage.client().status()?;
    ensure!(status.state == "signed_out" && status.connections.is_empty(), "{status:?}");
    ensure!(stage.portal.authorizations()?.is_empty(), "authorizations are left");
    drop(probe);
    stage.close()
}
