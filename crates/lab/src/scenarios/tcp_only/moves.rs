//! A network without UDP is entered and left, by moving or because its firewall changes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{GRACE, LIMIT, behind_a_firewall, closed_at_client, flowing, require};
use crate::nat::Udp;
use crate::scenario::{Context, Target};
use crate::scenarios::nearby;
use crate::topology::Options;

/// Moves in one world: out of the strict network and back, twice.
const MOVES: usize = 4;

/// Traffic between two moves.
const SETTLE: Duration = Duration::from_secs(2);

/// After this long the first requests over UDP were given up.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// From then on UDP is tried every half a minute.
const UDP_LIMIT: Duration = Duration::from_secs(45);

pub(in crate::scenarios) fn roam(context: &mut Context) -> Result<()> {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
    let options = Options { relays: 2, second_way: true, ..nearby() };
    let stage = behind_a_firewall(&options, context)?;
    let way = stage.topology.client().second.as_ref().context("the client has no second network")?;
    stage.probe(100)?.wait_for_reply_after(Instant::now(), LIMIT)?;
    require(&stage, "tls")?;
    std::thread::sleep(SETTLE);
    for number in 0..MOVES {
        let probe = stage.probe(1_000)?;
        probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        std::thread::sleep(Duration::from_millis(300));
        let leaves = number % 2 == 0;
        let moved = Instant::now();
        if leaves { way.take() } else { way.leave() }?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        if leaves {
            stage.client().wait_for_path("direct", LIMIT)?;
            context.record_time("direct again_ms", moved.elapsed(), Target::AtMost(5_000.0));
        } else {
            require(&stage, "tls")?;
        }
        std::thread::sleep(SETTLE);
        let report = probe.stop(Duration::from_millis(500));
        let (metric, target) = match leaves {
            true => ("outage_ms, to the open network", Target::Percentile(95, 700.0)),
            // The silence of UDP is waited for, for a second.
            false => ("outage_ms, to the strict network", Target::Percentile(95, 2_500.0)),
        };
        context.record_time(metric, report.longest_gap, target);
    }
    stage.close()
}

/// The firewall before the client opens and closes while traffic flows; the connection stays.
pub(in crate::scenarios) fn firewall(context: &mut Context) -> Result<()> {
    let options = Options { relays: 2, ..nearby() };
    let stage = behind_a_firewall(&options, context)?;
    let router = stage.topology.client().router.clone();
    stage.probe(100)?.wait_for_reply_after(Instant::now(), LIMIT)?;
    require(&stage, "tls")?;
    let before = closed_at_client(&stage)?;
    std::thread::sleep(GIVEN_UP);

    let probe = flowing(&stage, 1_000)?;
    router.set(options.client_nat, Udp::Open)?;
    let opened = Instant::now();
    stage.client().wait_for_path("direct", UDP_LIMIT)?;
    context.record_time("opened to direct_ms", opened.elapsed(), Target::AtMost(40_000.0));
    std::thread::sleep(SETTLE);
    let gap = probe.stop(GRACE).longest_gap;
    context.record_time("outage_ms, opened", gap, Target::AtMost(300.0));

    let probe = flowing(&stage, 1_000)?;
    router.set(options.client_nat, Udp::OnlyHttps)?;
    let closed = Instant::now();
    probe.wait_for_round_trip_after(closed + Duration::from_millis(1), LIMIT)?;
    require(&stage, "tls")?;
    std::thread::sleep(SETTLE);
    let gap = probe.stop(GRACE).longest_gap;
    context.record_time("outage_ms, closed", gap, Target::AtMost(4_000.0));
    ensure!(closed_at_client(&stage)? == before, "the connection did not survive");
    stage.close()
}
