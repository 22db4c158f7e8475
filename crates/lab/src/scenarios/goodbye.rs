//! Closing without making the other side wait for a timeout.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::nat::Udp;
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
    let index = stage.gateway_in_use()?;
    let asked = Instant::now();
    stage.gateways[index].stop()?;
    let reply = probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    context.record_time("two gateways: exit to next reply", reply, Target::AtMost(5_000.0));
    let report = probe.stop(Duration::from_millis(300));
    context.record_time("two gateways: longest gap", report.longest_gap, Target::AtMost(5_000.0));
    context.record_time("two gateways: SIGTERM to next reply", asked.elapsed(), Target::Shown);
    stage.close()
}

/// A goodbye that nobody hears: the client finds out by the network's and the portal's word, or by probes.
pub(super) fn lossy(context: &mut Context) -> Result<()> {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
    let options = Options { gateways_per_site: 2, ..nearby() };
    let mut stage = Stage::complete(&options, context)?;
    stage.probe(100)?.wait_for_reply_after(Instant::now(), LIMIT)?;
    let lossy = nearby().client_link.context("the client's link is emulated")?.with_loss(0.1);
    for edge in stage.topology.clients.iter().chain(&stage.topology.sites[0].gateways) {
        edge.link.as_ref().context("the link is emulated")?.set(lossy);
    }
    for _ in 0..4 {
        let probe = stage.probe(1_000)?;
        probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        std::thread::sleep(Duration::from_secs(1));
        let index = stage.gateway_in_use()?;
        let router = stage.topology.sites[0].gateways[index].router.clone();
        router.set(options.gateway_nat, Udp::Blocked)?;
        stage.gateways[index].stop()?;
        router.set(options.gateway_nat, Udp::Open)?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        let report = probe.stop(Duration::from_millis(300));
        context.record_time("outage_ms", report.longest_gap, Target::Percentile(95, 1_000.0));
        stage.gateways[index].start()?;
        stage.client().wait_for("one connection", LIMIT, |status| status.connections.len() == 1)?;
    }
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
