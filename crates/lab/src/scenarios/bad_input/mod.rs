//! What strangers, mistakes and broken machines send: everything is refused or counted, and the system works on.
//!
//! A machine on the internet that belongs to nobody, the [`Stranger`], attacks every port that it can reach; the
//! routers in front of client and gateway attack what only they can reach. Meanwhile a probe counts what users
//! would lose, and [`vitals`] tells who restarted or grew.

mod corpus;
mod daemon_socket;
mod datagrams;
mod portal;
mod replay;
mod slow;
mod starts;
mod stranger;
mod tokens;
mod vitals;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::replay::Recording;
use self::slow::Visitors;
use self::stranger::Stranger;
use self::vitals::Vitals;
use super::nearby;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(20);

/// Share of the probe's datagrams that may be lost under all of this.
const MOST_LOST: f64 = 5.0;

pub(super) fn run(context: &mut Context) -> Result<()> {
    announce(context);
    let mut stage = Stage::complete(&nearby(), context)?;
    let stranger = Stranger::join(&mut stage)?;
    let recording = Recording::start(&stage)?;
    let probe = stage.probe(50)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    stage.client().wait_for_path("direct", LIMIT)?;
    stage.open_page(&stage.page_by_name())?;

    let vitals = Vitals::take(&stage)?;
    let visitors = Visitors::arrive(&stage, &stranger)?;
    let wire = recording.stop()?;
    let phases: [(&str, Phase); 6] = [
        ("garbage datagrams", datagrams::send),
        ("portal", portal::abuse),
        ("health endpoints", portal::abuse_health),
        ("daemon socket", daemon_socket::abuse),
        ("tokens", tokens::present),
        ("failing starts", starts::fail),
    ];
    replay::send(&stage, &stranger, &wire, context).context("replayed datagrams")?;
    for (name, phase) in phases {
        let begin = Instant::now();
        phase(&stage, &stranger, context).context(name)?;
        context.record_time(&format!("{name}: all"), begin.elapsed(), Target::Shown);
        stage.open_page(&stage.page_by_address()).with_context(|| format!("after {name}"))?;
    }
    visitors.require_dismissed(context)?;

    stage.open_page(&stage.page_by_name())?;
    stage.client().wait_for_path("direct", LIMIT)?;
    let report = probe.stop(Duration::from_millis(500));
    context.record("probe: lost", report.loss() * 100.0, "%", Target::AtMost(MOST_LOST));
    context.record_time("probe: longest gap", report.longest_gap, Target::Shown);
    // Replayed data would be delivered twice, on one side or the other.
    ensure!(report.duplicates == 0, "{} replies came twice", report.duplicates);
    let delivered = stage.echo.received();
    ensure!(delivered <= report.sent as u64, "{delivered} delivered of {} sent", report.sent);
    vitals.compare(&stage, context)?;
    drop(stranger);
    stage.close()?;
    require_no_panic(context.log_dir())
}

/// One kind of abuse.
type Phase = fn(&Stage, &Stranger, &mut Context) -> Result<()>;

/// Runs every case and fails with the complaints of all that went wrong.
fn all(cases: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let complaints: Vec<String> =
        cases.into_iter().filter_map(|case| Some(format!("\n    {:#}", case.err()?))).collect();
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{} cases:{}", complaints.len(), complaints.concat())
}

/// Errors of programs that are made to fail, and of sessions whose token is taken away.
fn announce(context: &mut Context) {
    let announced = [
        ("adit-portal", "portal cannot run"),
        ("adit-gateway", "the gateway failed"),
        ("adit-relay", "the relay failed"),
        ("aditd", "the daemon failed"),
        ("aditd", "refused the token"),
    ];
    for (program, text) in announced {
        context.expectations.announce(program, text);
    }
}

/// Looks through everything that any program wrote.
fn require_no_panic(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            require_no_panic(&path)?;
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).to_ascii_lowercase();
        let line = text.lines().find(|line| line.contains("panic"));
        ensure!(line.is_none(), "{}: {}", path.display(), line.unwrap_or_default());
    }
    Ok(())
}
