//! How traffic finds its way: directly, through a relay, over IPv6, by name.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::nearby;
use crate::probe::ping;
use crate::scenario::{Context, Target};
use crate::stage::{PRIVATE_NAME, PUBLIC_NAME, Stage};
use crate::topology::{Families, Options};

/// Longest wait for a kind of path.
const PATH_LIMIT: Duration = Duration::from_secs(15);

pub(super) fn direct(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    stage.record_memory(context)?;
    traffic_over(&stage, "direct", context)?;
    stage.close()
}

pub(super) fn relayed(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    stage.topology.direct_paths.block()?;
    traffic_over(&stage, "relayed", context)?;
    stage.close()
}

pub(super) fn ipv6(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&Options { families: Families::V6, ..nearby() }, context)?;
    ensure!(stage.is_ipv6_only(), "the world has IPv4");
    traffic_over(&stage, "direct", context)?;
    let probe = stage.probe(50)?;
    probe.wait_for_reply_after(Instant::now(), PATH_LIMIT)?;
    stage.topology.direct_paths.block()?;
    let begin = Instant::now();
    stage.client().wait_for_path("relayed", PATH_LIMIT)?;
    probe.wait_for_round_trip_after(begin, PATH_LIMIT)?;
    context.record_time("direct path lost to next reply, relayed", begin.elapsed(), Target::AtMost(5_000.0));
    probe.stop(Duration::from_millis(500));
    stage.open_page(&stage.page_by_address())?;
    stage.close()
}

/// Cold start, then the kind of path, a page, and the quality of the path.
fn traffic_over(stage: &Stage, kind: &str, context: &mut Context) -> Result<()> {
    let begin = Instant::now();
    let probe = stage.probe(50)?;
    let first = probe.wait_for_reply_after(begin, PATH_LIMIT)?;
    context.record_time(
        &format!("first packet to first reply, cold, {kind}"),
        first,
        Target::AtMost(2_000.0),
    );
    stage.client().wait_for_path(kind, PATH_LIMIT)?;
    context.record_time(&format!("first packet to {kind} path"), begin.elapsed(), Target::AtMost(5_000.0));
    let page = stage.open_page(&stage.page_by_address())?;
    context.record_time("page by address", page.total, Target::AtMost(2_000.0));
    let report = probe.stop(Duration::from_millis(500));
    context.record("datagrams lost from the first on", report.loss() * 100.0, "%", Target::AtMost(5.0));
    let target = stage.echo_address().ip().to_string();
    let pings = ping::ping(stage.client().host(), &target, 20, Duration::from_millis(50))?;
    ensure!(pings.received == pings.sent, "{pings:?}");
    context.record_time("round trip", pings.average.unwrap_or_default(), Target::Shown);
    Ok(())
}

pub(super) fn dns(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    let page = stage.open_page(&stage.page_by_name())?;
    context.record_time("page by name, cold", page.total, Target::AtMost(5_000.0));
    let page = stage.open_page(&stage.page_by_name())?;
    context.record_time("page by name, warm", page.total, Target::AtMost(2_000.0));
    ensure!(stage.site_dns.questions(PRIVATE_NAME) > 0, "the site's DNS server was not asked");
    ensure!(stage.public_dns.questions(PRIVATE_NAME) == 0, "the private name leaked to the public resolver");

    let host = stage.client().host();
    let resolved = host.run(&["getent", "ahosts", PUBLIC_NAME])?;
    ensure!(!resolved.trim().is_empty(), "{PUBLIC_NAME} has no address");
    ensure!(stage.public_dns.questions(PUBLIC_NAME) > 0, "the public resolver was not asked");
    ensure!(stage.site_dns.questions(PUBLIC_NAME) == 0, "a public name went to the site");

    let before = std::fs::read_to_string(host.etc_dir().join("resolv.conf"))?;
    stage.client().adit(&["down"])?;
    let after = std::fs::read_to_string(host.etc_dir().join("resolv.conf"))?;
    ensure!(before != after, "resolv.conf was not changed back: {after}");
    let resolved = host.run(&["getent", "ahosts", PUBLIC_NAME])?;
    ensure!(!resolved.trim().is_empty(), "{PUBLIC_NAME} has no address without the tunnel");
    stage.close()
}
