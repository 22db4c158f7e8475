//! What goes on while a part of the system is away.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::nearby;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(40);

/// How long the portal is away.
const OUTAGE: Duration = Duration::from_secs(5);

pub(super) fn portal_down(context: &mut Context) -> Result<()> {
    for program in ["aditd", "adit-gateway", "adit-relay"] {
        context.expectations.announce(program, "portal");
    }
    let mut stage = Stage::complete(&nearby(), context)?;
    let probe = stage.probe(100)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    stage.client().wait_for_path("direct", LIMIT)?;

    let during = stage.probe(100)?;
    during.wait_for_reply_after(Instant::now(), LIMIT)?;
    stage.portal.stop()?;
    std::thread::sleep(OUTAGE);
    let report = during.stop(Duration::from_millis(300));
    context.record("datagrams lost in the outage", report.loss() * 100.0, "%", Target::AtMost(2.0));
    context.record_time("longest gap in the outage", report.longest_gap, Target::AtMost(1_000.0));

    stage.portal.start()?;
    let back = Instant::now();
    let online = stage.client().wait_for("online", LIMIT, |status| status.state == "online")?;
    context.record_time("portal back to client online", online.1, Target::Shown);
    // A gateway that starts now needs the portal, and its clients need both.
    stage.gateways[0].stop()?;
    stage.gateways[0].start()?;
    probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    context.record_time("portal back to traffic over a new connection", back.elapsed(), Target::Shown);
    drop(probe);
    stage.close()
}
