//! A gateway restarts on its host, and no connection through it ends.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::nearby;
use crate::probe::streams::{Report, Streams, Traffic};
use crate::scenario::{Context, Target};
use crate::stage::{PRIVATE_NAME, Stage};

const LIMIT: Duration = Duration::from_secs(20);

/// Where the streams' server listens.
const PORT: u16 = 9000;

/// Connections by name, and as many by address.
const HALF: usize = 100;

/// Traffic before the event.
const SETTLE: Duration = Duration::from_secs(2);

/// Traffic after it: longer than any stall that is acceptable.
const AFTER: Duration = Duration::from_secs(5);

/// A connection on which nothing has come for so long is lost.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn restart(context: &mut Context) -> Result<()> {
    let mut stage = Stage::complete(&nearby(), context)?;
    let streams = open(&stage)?;
    let took = stage.gateways[0].restart()?;
    context.record_time("restart: signal to ready again", took, Target::Shown);
    record(context, &streams);
    drop(streams);
    stage.close()
}

pub(super) fn upgrade(context: &mut Context) -> Result<()> {
    let mut stage = Stage::raise(&nearby(), &context.programs, context.log_dir())?;
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    let installed = install(&context.programs.path("adit-gateway"), &stage.state.of("installed")?)?;
    stage.start_gateways_from(&installed)?;
    stage.start_clients()?;
    stage.sign_in(crate::stage::MONTH)?;
    let streams = open(&stage)?;
    let probe = stage.probe(1_000)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    replace(&installed)?;
    let took = stage.gateways[0].restart()?;
    context.record_time("upgrade: signal to ready again", took, Target::Shown);
    record(context, &streams);
    let report = probe.stop(Duration::from_millis(300));
    context.record_time("outage_ms", report.longest_gap, Target::Percentile(95, 1_000.0));
    drop(streams);
    stage.close()
}

/// Connections by name and by address, in all directions, with traffic that flows.
fn open(stage: &Stage) -> Result<Streams> {
    let resolved = stage.client().host().run(&["getent", "ahostsv4", PRIVATE_NAME])?;
    let first = resolved.split_whitespace().next().context("the name has no address")?;
    let by_name = SocketAddr::new(first.parse()?, PORT);
    let by_address = SocketAddr::new(IpAddr::V4(stage.topology.sites[0].web_address.v4), PORT);
    let kinds = [Traffic::Both, Traffic::Up, Traffic::Down];
    let targets: Vec<_> = [by_name, by_address]
        .into_iter()
        .flat_map(|target| (0..HALF).map(move |number| (target, kinds[number % kinds.len()])))
        .collect();
    let streams = Streams::open(&stage.topology.sites[0].web, PORT, stage.client().host(), &targets)?;
    std::thread::sleep(SETTLE);
    streams.measure();
    Ok(streams)
}

fn record(context: &mut Context, streams: &Streams) {
    std::thread::sleep(AFTER);
    let Report { lost, worst_stall } = streams.report(PATIENCE);
    for one in lost.iter().take(5) {
        println!("  lost: {one}");
    }
    context.record("tcp_lost", lost.len() as f64, "connections", Target::AtMost(0.0));
    context.record_time("worst_stall_ms", worst_stall, Target::Percentile(100, 1_000.0));
}

/// A copy of the program, as a package would install it.
fn install(program: &Path, directory: &Path) -> Result<PathBuf> {
    let installed = directory.join("adit-gateway");
    fs::copy(program, &installed).with_context(|| format!("copying {}", program.display()))?;
    Ok(installed)
}

/// Puts another file in the program's place while it runs, as a package manager does.
fn replace(installed: &Path) -> Result<()> {
    let mut contents = fs::read(installed)?;
    // What follows the last section of a program means nothing to the kernel.
    contents.extend_from_slice(b"another build");
    let new = installed.with_extension("new");
    fs::write(&new, contents)?;
    fs::set_permissions(&new, fs::metadata(installed)?.permissions())?;
    fs::rename(&new, installed).context("replacing the program")
}
