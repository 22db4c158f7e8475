//! The portal is away or dies at the worst moment: open connections go on, and no decision is lost or half made.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::probe::tls::Talk;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(30);

/// How long the portal is away.
const OUTAGE: Duration = Duration::from_secs(4);

/// Silence after which traffic counts as stopped.
const QUIET: Duration = Duration::from_millis(800);

fn announce(context: &mut Context) {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
}

/// Killed under traffic, and back: nothing is lost, and leases end at their time all the same.
pub(super) fn portal(context: &mut Context) -> Result<()> {
    announce(context);
    let mut stage = Stage::raise(&nearby(), &context.programs, context.log_dir())?;
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    stage.start_gateways()?;
    stage.start_clients()?;
    let lifetime = Duration::from_secs(14);
    let signed_in = Instant::now();
    stage.sign_in(lifetime)?;
    let probe = stage.probe(1_000)?;
    probe.wait_for_reply_after(signed_in, LIMIT)?;
    stage.client().wait_for_path("direct", LIMIT)?;
    probe.stop(Duration::from_millis(100));

    let during = stage.probe(1_000)?;
    during.wait_for_reply_after(Instant::now(), LIMIT)?;
    stage.portal.crash()?;
    std::thread::sleep(OUTAGE);
    let report = during.report();
    context.record("datagrams lost in the outage", report.loss() * 100.0, "%", Target::AtMost(2.0));
    context.record_time("outage_ms", report.longest_gap, Target::Percentile(95, 200.0));
    // The portal stays away: the gateway alone must end what was granted.
    during.wait_for_silence(QUIET, LIMIT)?;
    let (last, _) = stage.echo.last_received().context("nothing was ever delivered")?;
    let lasted = last.saturating_duration_since(signed_in);
    context.record_time("sign-in to last packet, portal away", lasted, Target::AtMost(15_500.0));
    ensure!(lasted + Duration::from_secs(2) > lifetime, "it ended early, after {lasted:?}");
    drop(during);
    stage.portal.start()?;
    stage.close()
}

/// Killed after a revocation was committed and before anybody could hear of it; then at random moments.
pub(super) fn kill_after_commit(context: &mut Context) -> Result<()> {
    announce(context);
    let mut stage = Stage::complete(&nearby(), context)?;
    let probe = stage.probe(1_000)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    std::thread::sleep(Duration::from_secs(1));

    // Nothing that the portal says reaches anybody, so what it commits now was told to nobody.
    let portal = stage.topology.portal.host.clone();
    portal.nft(DEAF)?;
    for policy in &stage.access.policies {
        stage.portal.delete_policy(policy)?;
    }
    stage.portal.crash()?;
    forget_connections(&stage)?;
    portal.nft("flush ruleset\n")?;
    std::thread::sleep(Duration::from_millis(500));
    let (before, _) = stage.echo.last_received().context("nothing was ever delivered")?;
    ensure!(before.elapsed() < Duration::from_millis(200), "the traffic stopped before the portal was back");
    stage.portal.start()?;
    let ready = Instant::now();
    probe.wait_for_silence(QUIET, LIMIT)?;
    let (last, _) = stage.echo.last_received().context("nothing was ever delivered")?;
    let took = last.saturating_duration_since(ready);
    // The sessions come back after the backoff of their first tries.
    context.record_time("portal ready to last packet", took, Target::AtMost(3_000.0));
    ensure!(stage.portal.authorizations()?.is_empty(), "authorizations are left");
    drop(probe);

    for pause in [0, 1, 2, 4, 8] {
        acknowledged_or_not(&mut stage, Duration::from_millis(pause))?;
    }
    stage.close()
}

/// The kernel would still deliver what the dead portal had written; and peers would wait for it.
fn forget_connections(stage: &Stage) -> Result<()> {
    let port = format!(":{}", stage.portal.address().port());
    stage.topology.portal.host.run(&["ss", "-K", "-t", "sport", "=", &port])?;
    let gateways = stage.topology.sites[0].gateways.iter().map(|edge| &edge.host);
    for host in stage.topology.clients.iter().map(|edge| &edge.host).chain(gateways) {
        host.run(&["ss", "-K", "-t", "dport", "=", &port])?;
    }
    Ok(())
}

/// Drops what leaves the portal's machine but for its own administrator.
const DEAF: &str = "flush ruleset
table inet deaf {
    chain output {
        type filter hook output priority filter; policy accept;
        oifname \"eth0\" drop
    }
}
";

/// A policy is made and the portal killed a moment after the call; what it acknowledged must be there.
fn acknowledged_or_not(stage: &mut Stage, pause: Duration) -> Result<()> {
    let resource = stage.portal.resource_named("office network")?;
    let body = format!("{{\"group\":\"{}\",\"resource\":\"{resource}\"}}", stage.access.group);
    let talk = Talk::begin(&stage.topology.portal.host, &stage.portal, Vec::new())?;
    std::thread::sleep(Duration::from_millis(150));
    let before = stage.portal.policies()?;
    talk.say(stage.portal.request("POST", "/api/v1/policies", &body).into_bytes());
    std::thread::sleep(pause);
    stage.portal.crash()?;
    let acknowledged = talk.wait_heard("HTTP/1.1 201", Duration::from_millis(100));
    stage.portal.start()?;
    let after = stage.portal.policies()?;
    ensure!(!acknowledged || after.len() == before.len() + 1, "an acknowledged policy is gone");
    // Whatever there is works: clients and gateways agree with the portal.
    if after.len() > before.len() {
        stage.reach(LIMIT)?;
        for policy in after.iter().filter(|policy| !before.contains(policy)) {
            stage.portal.delete_policy(policy)?;
        }
        stage.client().wait_for_no_connection(LIMIT)?;
    }
    Ok(())
}
