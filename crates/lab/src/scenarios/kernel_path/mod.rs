//! The relay's path through the kernel (XDP) on virtual cables.

mod cable;
pub(super) mod counters;
mod ends;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::scenario::{Context, Target};
use crate::stage::{MONTH, Stage};
use crate::system::Programs;
use crate::topology::{Families, Options};
use crate::world::End;
use counters::Counters;
pub(super) use ends::ends;

const LIMIT: Duration = Duration::from_secs(20);

/// How long numbered datagrams go through a tunnel.
const PROBED: Duration = Duration::from_secs(4);

/// Numbered datagrams per second.
const RATE: u32 = 500;

/// Under which name figures are recorded, the relay's arguments, and the IP versions outside.
const WAYS: [(&str, &[&str], Families); 4] = [
    ("driver", &["--xdp", "driver"], Families::Both),
    ("generic", &["--xdp", "generic"], Families::Both),
    ("driver, IPv6", &["--xdp", "driver"], Families::V6),
    ("generic, IPv6", &["--xdp", "generic"], Families::V6),
];

/// Numbered datagrams and a download through the kernel.
pub(super) fn tunnel(context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    for (way, arguments, families) in WAYS {
        context.programs = programs.with_relay_arguments(arguments);
        let stage = relayed(&Options { families, ..Options::default() }, true, context)?;
        let before = relay_counters(&stage)?;
        let report = probe(&stage)?;
        let after = relay_counters(&stage)?;
        context.record(&format!("{way}: lost"), report.loss(), "share", Target::AtMost(0.0));
        // To the gateway and back: one packet each way.
        let expected = 2 * report.sent as u64;
        let forwarded = after.forwarded() - before.forwarded();
        context.record(
            &format!("{way}: share of single packets in the kernel"),
            forwarded as f64 / expected as f64,
            "",
            Target::AtLeast(0.95),
        );
        bulk(&stage, way, &after, context)?;
        stop_leaves_nothing(stage)?;
    }
    context.programs = programs;
    Ok(())
}

/// A download: bulk traffic comes in trains, of which the two modes see different things.
fn bulk(stage: &Stage, way: &str, before: &Counters, context: &mut Context) -> Result<()> {
    let url = format!("{}bytes/20000000", stage.page_by_address());
    let begin = Instant::now();
    let host = stage.client().host();
    let size = host.run(&["sh", "-c", &format!("curl -sS --max-time 55 {url} | wc -c")])?;
    ensure!(size.trim() == "20000000", "the download has {size} bytes");
    let rate = 160.0 / begin.elapsed().as_secs_f64();
    let after = relay_counters(stage)?;
    let kernel = (after.forwarded() - before.forwarded()) as f64;
    let sockets = (after.by_sockets() - before.by_sockets()) as f64;
    context.record(&format!("{way}: download"), rate, "Mbit/s", Target::AtLeast(20.0));
    context.record(
        &format!("{way}: share of a download's packets in the kernel"),
        kernel / (kernel + sockets).max(1.0),
        "",
        Target::Shown,
    );
    context.record(
        &format!("{way}: super-packets left to the relay"),
        (after.passed("unfinished_checksum") - before.passed("unfinished_checksum")) as f64,
        "packets",
        Target::Shown,
    );
    Ok(())
}

/// Ends the relay without a word; the kernel takes the program away.
fn stop_leaves_nothing(mut stage: Stage) -> Result<()> {
    let host = stage.topology.relays[0].host.clone();
    ensure!(cable::has_program(&host, "eth0")?, "no program is attached");
    stage.relays.remove(0).crash()?;
    ensure!(!cable::has_program(&host, "eth0")?, "the program is still attached");
    stage.close()
}

/// What the kernel does not forward goes through the relay's sockets.
pub(super) fn fallback(context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    full_table(&programs, context)?;
    automatic(&programs, context)?;
    lossy_interface(&programs, context)?;
    context.programs = programs;
    Ok(())
}

/// A table with room for one channel, and two clients.
fn full_table(programs: &Programs, context: &mut Context) -> Result<()> {
    context.programs = programs.with_relay_arguments(&["--xdp", "driver", "--xdp-routes", "1"]);
    let stage = relayed(&Options { clients: 2, ..Options::default() }, true, context)?;
    let second = stage.clients[1].host();
    let page = stage.page_by_address();
    second.run(&["curl", "-sS", "--max-time", "20", &page])?;
    let before = relay_counters(&stage)?;
    let report = probe(&stage)?;
    second.run(&["curl", "-sS", "--max-time", "20", &page])?;
    let after = relay_counters(&stage)?;
    context.record("full table: lost", report.loss(), "share", Target::AtMost(0.0));
    context.record(
        "full table: refused routes",
        after.refused("full") as f64,
        "routes",
        Target::AtLeast(1.0),
    );
    let by_sockets = (after.by_sockets() - before.by_sockets()) as f64;
    context.record("full table: through the sockets", by_sockets, "packets", Target::AtLeast(1.0));
    stage.close()
}

/// `auto` does not trust a virtual cable, whose other end it does not know.
fn automatic(programs: &Programs, context: &mut Context) -> Result<()> {
    context.programs = programs.with_relay_arguments(&["--xdp", "auto"]);
    let stage = relayed(&Options::default(), false, context)?;
    let report = probe(&stage)?;
    let host = &stage.topology.relays[0].host;
    ensure!(!cable::has_program(host, "eth0")?, "auto attached the program to a veth");
    context.record("auto: lost", report.loss(), "share", Target::AtMost(0.0));
    let log = host.run(&["sh", "-c", &format!("cat {}/*.log", host.log_dir()?.display())])?;
    let said = log.lines().filter(|line| line.contains("XDP is off")).count();
    context.record("auto: lines that say so", said as f64, "lines", Target::AtLeast(1.0));
    context.record("auto: lines that say so, at most", said as f64, "lines", Target::AtMost(1.0));
    stage.close()
}

/// A virtual cable whose other end does not take what the program sends.
fn lossy_interface(programs: &Programs, context: &mut Context) -> Result<()> {
    context.programs = programs.with_relay_arguments(&["--xdp", "driver"]);
    context.expectations.announce("adit-relay", "the interface loses what the program sends");
    let stage = relayed(&Options::default(), true, context)?;
    ensure!(relay_counters(&stage)?.is_attached(), "no program is attached");
    let running = stage.probe(RATE)?;
    running.wait_for_reply_after(Instant::now(), LIMIT)?;
    let broken = Instant::now();
    relay_cable(&stage).face_no_program()?;
    let back = running.wait_for_round_trip_after(broken, LIMIT)?;
    std::thread::sleep(PROBED);
    let report = running.stop(Duration::from_millis(500));
    context.record_time("losing frames: outage", report.longest_gap, Target::AtMost(5_000.0));
    context.record_time("losing frames: first round trip", back, Target::Shown);
    let counters = relay_counters(&stage)?;
    ensure!(!counters.is_attached(), "the program still claims to be attached");
    ensure!(!cable::has_program(&stage.topology.relays[0].host, "eth0")?, "the program is still attached");
    stage.close()
}

/// The whole system with direct paths blocked and the relay in use.
fn relayed(options: &Options, is_prepared: bool, context: &Context) -> Result<Stage> {
    let mut stage = Stage::raise(options, &context.programs, context.log_dir())?;
    if is_prepared {
        relay_cable(&stage).face_program()?;
    }
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    stage.start_gateways()?;
    stage.topology.direct_paths.block()?;
    stage.start_clients()?;
    stage.sign_in(MONTH)?;
    stage.reach(LIMIT)?;
    stage.client().wait_for_path("relayed", LIMIT)?;
    // Channels are bound a moment after the path is found.
    std::thread::sleep(Duration::from_secs(2));
    Ok(stage)
}

/// The other end of the first relay's cable.
fn relay_cable(stage: &Stage) -> End {
    End::new(&stage.topology.internet, stage.topology.relays[0].host.name())
}

fn probe(stage: &Stage) -> Result<crate::probe::udp::Report> {
    let probe = stage.probe(RATE)?;
    std::thread::sleep(PROBED);
    Ok(probe.stop(Duration::from_millis(500)))
}

fn relay_counters(stage: &Stage) -> Result<Counters> {
    let server = stage.topology.relays.first().context("no relay")?;
    Counters::settled(&server.host)
}
