//! The relay that carries the stream goes away while there is another one; the connection stays.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{GRACE, LIMIT, behind_a_firewall, closed_at_client, flowing, require};
use crate::scenario::{Context, Target};
use crate::scenarios::nearby;
use crate::system::Relay;
use crate::topology::Options;

/// Times that the relay in use goes away in one world.
const ROUNDS: usize = 2;

/// Traffic before and after the event; also the time in which the client uses a relay that has come back.
const SETTLE: Duration = Duration::from_secs(3);

/// A relay that is about to leave says so, and the client has a stream to another before it is gone.
pub(in crate::scenarios) fn drain(context: &mut Context) -> Result<()> {
    measure(context, |relay| relay.stop().map(drop), Target::AtMost(300.0), Target::AtMost(20.0))
}

pub(in crate::scenarios) fn kill(context: &mut Context) -> Result<()> {
    context.expectations.announce("adit-portal", "relay");
    measure(context, Relay::crash, Target::AtMost(2_500.0), Target::Shown)
}

fn measure(context: &mut Context, away: fn(Relay) -> Result<()>, outage: Target, lost: Target) -> Result<()> {
    let mut stage = behind_a_firewall(&Options { relays: 2, ..nearby() }, context)?;
    flowing(&stage, 100)?.stop(Duration::ZERO);
    let before = closed_at_client(&stage)?;
    for _ in 0..ROUNDS {
        let probe = flowing(&stage, 1_000)?;
        require(&stage, "tls")?;
        let steady = Instant::now();
        std::thread::sleep(SETTLE);
        let index = stage.relay_in_use()?;
        let relay = stage.relays.remove(index);
        away(relay)?;
        probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
        std::thread::sleep(SETTLE);
        let missing = probe.lost_after(steady, GRACE);
        context.record_time("outage_ms", probe.stop(GRACE).longest_gap, outage);
        context.record("lost", missing as f64, "datagrams", lost);
        require(&stage, "tls")?;
        ensure!(closed_at_client(&stage)? == before, "the connection did not survive");
        let again = stage.start_relay(index)?;
        stage.relays.insert(index, again);
    }
    stage.close()
}
