//! Networks that are hard on everybody, and many clients at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::download::download;
use super::nearby;
use crate::nat::Nat;
use crate::probe::udp::Probe;
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, Stage};
use crate::topology::{Families, Options};
use crate::world::{End, Host};

const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the download.
const DOWNLOAD: usize = 2_000_000;

/// Clients of [`many_clients`].
const MANY: usize = 100;

/// A download while one packet of five is lost.
pub(super) fn lossy(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    stage.open_page(&stage.page_by_address())?;
    // Two links of a little more than ten percent each make twenty.
    let profile = nearby().client_link.context("the client's link is emulated")?.with_loss(0.106);
    for edge in [stage.topology.client(), stage.topology.gateway()] {
        edge.link.as_ref().context("the link is emulated")?.set(profile);
    }
    let took = download(&stage, DOWNLOAD, Duration::from_secs(120))?;
    let rate = DOWNLOAD as f64 * 8.0 / 1e6 / took.as_secs_f64();
    context.record("download at 20 % loss", rate, "Mbit/s", Target::Shown);
    let log = std::fs::read_to_string(stage.client().host().log_dir()?.join("aditd.log"))?;
    let closed = log.lines().filter(|line| line.contains("connection closed")).count();
    context.record("connections lost", closed as f64, "connections", Target::AtMost(0.0));
    stage.close()
}

/// Both NATs choose a port for each destination: nobody can be predicted, and a relay must carry it.
pub(super) fn symmetric(context: &mut Context) -> Result<()> {
    let options = Options {
        client_nat: Nat::Symmetric,
        gateway_nat: Nat::Symmetric,
        families: Families::V4,
        ..nearby()
    };
    let stage = Stage::complete(&options, context)?;
    std::thread::sleep(Duration::from_millis(700));
    let begin = Instant::now();
    let probe = stage.probe(1_000)?;
    let first = probe.wait_for_reply_after(begin, LIMIT)?;
    context.record_time("first_reply_ms", first, Target::Percentile(95, 1_000.0));
    stage.client().wait_for_path("relayed", LIMIT)?;
    stage.open_page(&stage.page_by_name())?;
    std::thread::sleep(Duration::from_secs(2));
    let report = probe.stop(Duration::from_millis(300));
    context.record("datagrams lost from the first on", report.loss() * 100.0, "%", Target::AtMost(5.0));
    stage.close()
}

/// A hundred devices on one network use one gateway, which restarts under them; then all lose access.
pub(super) fn many_clients(context: &mut Context) -> Result<()> {
    let mut stage = Stage::complete(&Options { families: Families::V4, ..Options::lan() }, context)?;
    let hosts = office(&mut stage)?;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for host in &hosts {
        clients.push(stage.start_client_on(host)?);
    }
    context.record_time("daemons started", begin.elapsed(), Target::Shown);
    let begin = Instant::now();
    for client in &clients {
        let token = stage.portal.create_client_token(&stage.access.actor, MONTH)?;
        client.sign_in(&token, &stage.state)?;
    }
    context.record_time("all signed in", begin.elapsed(), Target::Shown);

    let begin = Instant::now();
    let probes: Vec<Probe> =
        hosts.iter().map(|host| Probe::start(host, stage.echo_address(), 20, 64)).collect::<Result<_>>()?;
    all_answered(&probes, begin)?;
    context.record_time("first packets to all answered", begin.elapsed(), Target::AtMost(5_000.0));
    stage.record_memory(context)?;
    std::thread::sleep(Duration::from_secs(2));

    let took = stage.gateways[0].restart()?;
    context.record_time("restart with all of them", took, Target::Shown);
    all_answered(&probes, Instant::now())?;
    std::thread::sleep(Duration::from_secs(1));
    let worst = probes.iter().map(|probe| probe.report().longest_gap).max().unwrap_or_default();
    context.record_time("worst_stall_ms", worst, Target::Percentile(100, 2_000.0));

    let called = Instant::now();
    for policy in &stage.access.policies {
        stage.portal.delete_policy(policy)?;
    }
    for probe in &probes {
        probe.wait_for_silence(Duration::from_millis(500), LIMIT)?;
    }
    let (last, _) = stage.echo.last_received().context("nothing was ever delivered")?;
    let last = last.saturating_duration_since(called);
    context.record_time("revoke call to the last packet of all", last, Target::AtMost(2_000.0));
    drop(probes);
    for client in clients {
        client.stop()?;
    }
    stage.close()
}

fn all_answered(probes: &[Probe], since: Instant) -> Result<()> {
    for probe in probes {
        probe.wait_for_round_trip_after(since, LIMIT)?;
    }
    Ok(())
}

/// A network with many machines behind the first client's router.
fn office(stage: &mut Stage) -> Result<Vec<Host>> {
    let router = stage.topology.client().router.host.clone();
    let outside = stage.topology.client().public.v4;
    let world = &mut stage.topology.world;
    let switch = world.add_host("office")?;
    switch.ip("link add lan type bridge")?;
    switch.ip("link set lan up")?;
    world.connect(&End::new(&switch, "uplink"), &End::new(&router, "office"))?;
    switch.ip("link set uplink master lan")?;
    router.ip("address add 10.4.0.1/16 dev office")?;
    let mut hosts = Vec::new();
    for number in 0..MANY {
        let host = world.add_host(&format!("desk{number}"))?;
        let port = format!("p{number}");
        world.connect(&End::new(&switch, &port), &End::new(&host, "eth0"))?;
        switch.ip(&format!("link set {port} master lan"))?;
        host.ip(&format!("address add 10.4.1.{}/16 dev eth0", number + 1))?;
        host.ip("route add default via 10.4.0.1")?;
        host.set_resolvers(&[crate::topology::PUBLIC_RESOLVER.v4.into()])?;
        hosts.push(host);
    }
    stage.topology.internet.ip(&format!("route add 10.4.0.0/16 via {outside}"))?;
    Ok(hosts)
}
