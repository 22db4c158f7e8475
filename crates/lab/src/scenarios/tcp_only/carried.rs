//! Life in a network that lets out TCP 443 alone: the first page, a download, goodbyes of either end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{GRACE, LIMIT, Strict, behind_a_firewall, closed, flowing, raise, require};
use crate::scenario::{Context, Target};
use crate::scenarios::download::download;
use crate::scenarios::nearby;
use crate::stage::Stage;
use crate::topology::Options;

/// Bytes of a transfer.
const TRANSFER: usize = 20_000_000;

/// Relays' listeners, and what status calls a path through them.
const LISTENERS: [(&str, &[&str]); 2] =
    [("tls", &["--tls-port", "443", "--tcp-port", "3478"]), ("tcp", &["--tcp-port", "443"])];

pub(in crate::scenarios) fn carried(context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    for (transport, listeners) in LISTENERS {
        context.programs = programs.with_relay_listeners(listeners);
        let options = Options { relays: 2, gateways_per_site: 2, ..nearby() };
        let mut stage = behind_a_firewall(&options, context)?;
        let probe = stage.probe(200)?;
        let first = probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        probe.stop(Duration::ZERO);
        context.record_time(&format!("first_reply_cold_ms, {transport}"), first, Target::AtMost(3_000.0));
        require(&stage, transport)?;
        let netcheck = stage.client().adit(&["netcheck"])?.stdout;
        ensure!(netcheck.contains("UDP is blocked") && netcheck.contains("UDP no answer"), "{netcheck}");
        stage.open_page(&stage.page_by_name())?;
        let rate = TRANSFER as f64 * 8.0 / 1e6 / download(&stage, TRANSFER, LIMIT * 3)?.as_secs_f64();
        context.record(&format!("download, {transport}"), rate, "Mbit/s", Target::AtLeast(20.0));
        gateway_leaves(&mut stage, transport, context)?;
        client_leaves(&mut stage, transport, context)?;
        stage.close()?;
    }
    context.programs = programs;
    Ok(())
}

/// Neither end has UDP: datagrams go from relay to relay, or through one of them twice.
pub(in crate::scenarios) fn both(context: &mut Context) -> Result<()> {
    let mut stage = raise(&Options { relays: 2, ..nearby() }, Strict::BothEnds, context)?;
    let probe = stage.probe(200)?;
    let first = probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    probe.stop(Duration::ZERO);
    context.record_time("first_reply_cold_ms", first, Target::AtMost(5_000.0));
    require(&stage, "tls")?;
    stage.open_page(&stage.page_by_name())?;
    let rate = TRANSFER as f64 * 8.0 / 1e6 / download(&stage, TRANSFER, LIMIT * 3)?.as_secs_f64();
    context.record("download", rate, "Mbit/s", Target::AtLeast(10.0));
    client_leaves(&mut stage, "tls", context)?;
    stage.close()
}

/// The gateway's goodbye comes over the stream, and the next connection finds the stream ready.
fn gateway_leaves(stage: &mut Stage, transport: &str, context: &mut Context) -> Result<()> {
    let log = stage.client().host().log_dir()?.join("aditd.log");
    let before = closed(&log, "goodbye")?;
    let probe = flowing(stage, 1_000)?;
    let index = stage.gateway_in_use()?;
    stage.gateways[index].stop()?;
    probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    let gap = probe.stop(GRACE).longest_gap;
    context.record_time(&format!("next_connection_ms, {transport}"), gap, Target::AtMost(700.0));
    ensure!(closed(&log, "goodbye")? > before, "the gateway's goodbye did not arrive");
    require(stage, transport)
}

/// The client's goodbye leaves over the stream before that is closed; the portal cannot tell the gateway.
fn client_leaves(stage: &mut Stage, transport: &str, context: &mut Context) -> Result<()> {
    let log = stage.gateways[stage.gateway_in_use()?].host().log_dir()?.join("adit-gateway.log");
    let before = closed(&log, "goodbye")?;
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
    stage.portal.stop()?;
    let left = Instant::now();
    stage.clients.remove(0).stop()?;
    while closed(&log, "goodbye")? == before {
        if left.elapsed() > LIMIT {
            bail!("the client's goodbye did not arrive");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let heard = left.elapsed();
    context.record_time(&format!("SIGTERM to goodbye heard, {transport}"), heard, Target::AtMost(3_000.0));
    Ok(())
}
