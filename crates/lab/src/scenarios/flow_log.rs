//! What went through the tunnel is in the portal's flow log, whoever dies in between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::download::download;
use super::nearby;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);

/// Whoever reports a flow: the ends of the tunnel.
const ENDS: [&str; 2] = ["gateway", "client"];

/// A connection that was closed is over after ten seconds; then it is reported and on disk.
const ON_DISK: Duration = Duration::from_secs(14);

/// Headers of packets and acknowledgements beside what is downloaded, at most.
const HEADERS: f64 = 0.08;

pub(super) fn run(context: &mut Context) -> Result<()> {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
    context.expectations.announce("adit-portal", "gateway");
    let mut stage = Stage::complete(&nearby(), context)?;
    let first = 5_000_000;
    download(&stage, first, LIMIT)?;
    let ended = Instant::now();
    for end in ENDS {
        let flow = wait_for(&stage, first, end)?;
        context.record_time(
            "download done to its flow in the log",
            ended.elapsed(),
            Target::AtMost(20_000.0),
        );
        record_bytes(context, "first", first, &flow);
        ensure!(flow["path"] == "direct", "{flow}");
        ensure!(!flow["actor_name"].is_null() && !flow["resource_name"].is_null(), "{flow}");
    }

    // The portal dies; what goes on meanwhile is on the disks of both ends, and survives them too.
    stage.portal.crash()?;
    let second = 3_000_000;
    download(&stage, second, LIMIT)?;
    std::thread::sleep(ON_DISK);
    stage.gateways[0].crash()?;
    stage.clients[0].crash()?;
    stage.clients[0].start_again()?;
    stage.portal.start()?;
    stage.gateways[0].start()?;
    for end in ENDS {
        let flow = wait_for(&stage, second, end)?;
        record_bytes(context, "second", second, &flow);
    }

    // Killed at random moments while a batch may be under way: nothing is there twice.
    for round in 0..3_u64 {
        stage.reach(LIMIT)?;
        download(&stage, 1_000_000, LIMIT)?;
        std::thread::sleep(Duration::from_millis(9_600 + 300 * round));
        stage.portal.crash()?;
        stage.portal.start()?;
    }
    std::thread::sleep(ON_DISK);
    for end in ENDS {
        let flows = flows(&stage, end)?;
        let downloads = flows.iter().filter(|flow| is_of(flow, 1_000_000)).count();
        context.record("downloads of three in the log", downloads as f64, "", Target::AtLeast(3.0));
        context.record("downloads of three in the log, at most", downloads as f64, "", Target::AtMost(3.0));
        let key =
            |flow: &Value| format!("{} {} {}", flow["source_port"], flow["destination"], flow["opened_ms"]);
        let distinct: BTreeSet<String> = flows.iter().map(key).collect();
        ensure!(distinct.len() == flows.len(), "flows are in the log twice: {flows:?}");
    }
    stage.close()
}

fn flows(stage: &Stage, end: &str) -> Result<Vec<Value>> {
    let listed = stage.portal.admin(&["flows", "list", "--limit", "500", "--reported-by", end])?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// Whether a flow is that of a download of so many bytes.
fn is_of(flow: &Value, bytes: usize) -> bool {
    let received = flow["received_bytes"].as_f64().unwrap_or(0.0);
    let bytes = bytes as f64;
    flow["protocol"] == 6 && (bytes..bytes * (1.0 + HEADERS)).contains(&received)
}

fn wait_for(stage: &Stage, bytes: usize, end: &str) -> Result<Value> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        let found =
            flows(stage, end)?.into_iter().find(|flow| is_of(flow, bytes) && !flow["closed_ms"].is_null());
        if let Some(flow) = found {
            return Ok(flow);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    bail!("the download of {bytes} bytes is not in the {end}'s log: {:?}", flows(stage, end)?)
}

fn record_bytes(context: &mut Context, which: &str, bytes: usize, flow: &Value) {
    let over = flow["received_bytes"].as_f64().unwrap_or(0.0) / bytes as f64 - 1.0;
    let metric = format!("{which} download: bytes in the log beyond those of the page");
    context.record(&metric, over * 100.0, "%", Target::AtMost(HEADERS * 100.0));
}
