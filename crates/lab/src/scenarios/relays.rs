//! The relay in use goes away while there is another one.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::nearby;
use crate::bench::relay;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::system::Relay;
use crate::topology::Options;

const LIMIT: Duration = Duration::from_secs(20);

/// Times that the relay in use goes away in one world.
const ROUNDS: usize = 2;

/// Traffic before the event; also the time in which both ends use a relay that has come back.
const SETTLE: Duration = Duration::from_secs(3);

/// Time for the last echoes.
const GRACE: Duration = Duration::from_millis(300);

/// Of a thousand a second. What is wanted is none, and that is what a quiet machine shows; on a busy one a datagram
/// is lost now and then, with or without a change of the path.
const FEW: f64 = 3.0;

/// A relay that is about to leave says so, and both ends have another way before it is gone: nothing is lost.
pub(super) fn drain(context: &mut Context) -> Result<()> {
    measure(context, |relay| relay.stop().map(drop), Target::AtMost(FEW))
}

pub(super) fn kill(context: &mut Context) -> Result<()> {
    context.expectations.announce("adit-portal", "relay");
    measure(context, Relay::crash, Target::Shown)
}

fn measure(context: &mut Context, away: fn(Relay) -> Result<()>, lost: Target) -> Result<()> {
    let mut stage = Stage::complete(&Options { relays: 2, ..nearby() }, context)?;
    stage.topology.direct_paths.block()?;
    for _ in 0..ROUNDS {
        let probe = stage.probe(1_000)?;
        probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        stage.client().wait_for_path("relayed", LIMIT)?;
        let steady = Instant::now();
        std::thread::sleep(SETTLE);
        let index = stage.relay_in_use()?;
        let relay = stage.relays.remove(index);
        away(relay)?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        // The relay may have been in use by the gateway alone, and be missed a little later.
        std::thread::sleep(SETTLE);
        let missing = probe.lost_after(steady, GRACE);
        let report = probe.stop(GRACE);
        context.record_time("outage_ms", report.longest_gap, Target::Percentile(95, 1_000.0));
        context.record("lost", missing as f64, "datagrams", lost);
        let again = stage.start_relay(index)?;
        stage.relays.insert(index, again);
    }
    stage.close()
}

/// What our relay does with a load that is numbered, and with strangers.
pub(super) fn load(context: &mut Context) -> Result<()> {
    let look = relay::look(&context.programs, context.log_dir())?;
    for (name, arrivals) in &look.loads {
        // A datagram that comes changed, or to somebody else, has already failed this.
        let share = arrivals.loss * 100.0;
        context.record(&format!("{name}: lost"), share, "%", Target::AtMost(1.0));
        context.record(
            &format!("{name}: twice"),
            arrivals.duplicates as f64,
            "datagrams",
            Target::AtMost(0.0),
        );
        context.record(
            &format!("{name}: reordered"),
            arrivals.reordered as f64,
            "datagrams",
            Target::AtMost(0.0),
        );
        context.record(&format!("{name}: one way, p50"), arrivals.one_way_us.p50, "us", Target::Shown);
    }
    for (question, factor) in look.amplification.iter().filter(|(_, factor)| *factor > 0.0) {
        context.record(&format!("amplification, {question}"), *factor, "B/B", Target::AtMost(3.0));
    }
    context.record("memory of 50,000 strangers", look.growth / 1024.0, "KiB", Target::AtMost(1024.0));
    Ok(())
}
