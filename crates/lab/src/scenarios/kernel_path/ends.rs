//! When forwarding in the kernel ends: with the allocation, with the credentials, with the relay, and before it begins
//! for whoever has no permission.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::cable;
use super::counters::Counters;
use crate::process::{Process, Signal, Spawn};
use crate::scenario::{Context, Target};
use crate::scenarios::interop::ground::{Ground, Machine};
use crate::system::{Alone, Programs, Relay};
use crate::topology::Families;
use crate::world::End;

const SECRET: &str = "a secret of this scenario";

/// The relay's arguments, and whether the kernel forwards; the last is the control.
const WAYS: [(&str, &[&str], bool); 3] = [
    ("driver", &["--xdp", "driver"], true),
    ("generic", &["--xdp", "generic"], true),
    ("sockets", &["--xdp", "off"], false),
];

/// Longest wait for the first datagram, and for a watch that should have ended.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
const END_LIMIT: Duration = Duration::from_secs(60);

/// Traffic before something happens.
const BEFORE: Duration = Duration::from_secs(2);

/// Seconds for which a program forwards without its relay, and how much older than a second its permission may be.
const LEASE: f64 = 10.0;
const SLACK: f64 = 2.0;

/// Longer than the lease.
const FROZEN: Duration = Duration::from_secs(14);

/// What the example `turn-watch` saw; times are seconds since 1970.
#[derive(Clone, Debug, Deserialize)]
struct Watched {
    expires: f64,
    deleted: Option<f64>,
    sent: u64,
    from_stranger: u64,
    to_peer: Trace,
    to_client: Trace,
}

/// Arrivals in one direction.
#[derive(Clone, Debug, Deserialize)]
struct Trace {
    received: u64,
    last: Option<f64>,
    /// Times without arrivals, except the last.
    silences: Vec<(f64, f64)>,
}

impl Watched {
    /// How long after a moment the last datagram came, in either direction.
    fn last_after(&self, moment: f64) -> f64 {
        let last = [&self.to_peer, &self.to_client].map(|trace| trace.last.unwrap_or(moment) - moment);
        last.into_iter().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Fewest that came in one direction, for one that was sent.
    fn share(&self) -> f64 {
        self.to_peer.received.min(self.to_client.received) as f64 / self.sent.max(1) as f64
    }
}

/// The relay's machine and the one of everybody else.
struct Place {
    ground: Ground<2>,
    programs: Programs,
    arguments: &'static [&'static str],
}

pub(in crate::scenarios) fn ends(context: &mut Context) -> Result<()> {
    for (way, arguments, by_kernel) in WAYS {
        let ground = Ground::raise(["adit", "client"], context.log_dir())?;
        End::new(&ground.router, "adit").face_program()?;
        let place = Place { ground, programs: context.programs.clone(), arguments };
        place.give_stranger_an_address()?;
        let relay = place.start_relay()?;
        allocations(way, &place, by_kernel, context)?;
        let relay = frozen(way, &place, relay, by_kernel, context)?;
        killed(way, &place, relay, by_kernel, context)?;
    }
    Ok(())
}

/// Nothing flows after an allocation was deleted, after credentials have expired, or for whom nobody gave a permission.
fn allocations(way: &str, place: &Place, by_kernel: bool, context: &mut Context) -> Result<()> {
    let before = place.counters()?;
    let mut deleted = place.watch("deleted", &["--seconds", "5", "--delete-after", "2.5"])?;
    let mut expired = place.watch("expired", &["--seconds", "8", "--credentials-for", "5"])?;
    let (deleted, expired) = (finish(&mut deleted)?, finish(&mut expired)?);
    let after = place.counters()?;
    let at = deleted.deleted.context("the relay did not confirm the deletion")?;
    record_seconds(
        way,
        "after a deletion was confirmed",
        deleted.last_after(at),
        Target::AtMost(0.05),
        context,
    );
    let late = expired.last_after(expired.expires);
    record_seconds(way, "after credentials expired", late, Target::AtMost(1.5), context);
    let both = [&deleted, &expired];
    for (watched, until) in both.into_iter().zip([at, expired.expires]) {
        ensure!(watched.last_after(until) > -1.5, "{way}: it stopped too early: {watched:?}");
    }
    let strangers: u64 = both.iter().map(|watched| watched.from_stranger).sum();
    let name = format!("{way}: without permission");
    context.record(&name, strangers as f64, "datagrams", Target::AtMost(0.0));
    let received: u64 =
        both.iter().map(|watched| watched.to_peer.received + watched.to_client.received).sum();
    judge_share(way, "until then", after.forwarded() - before.forwarded(), received, by_kernel, context);
    if by_kernel {
        let refused = after.passed("no_route") - before.passed("no_route");
        let name = format!("{way}: left to the relay without a route");
        let sent: u64 = both.iter().map(|watched| watched.sent).sum();
        context.record(&name, refused as f64, "packets", Target::AtLeast(sent as f64 * 0.9));
    }
    Ok(())
}

/// A relay that stands still lets the kernel go on for the lease, and no longer; then it takes up where it was.
fn frozen(
    way: &str,
    place: &Place,
    mut relay: Relay,
    by_kernel: bool,
    context: &mut Context,
) -> Result<Relay> {
    let mut watch = place.watch("frozen", &["--seconds", "22"])?;
    std::thread::sleep(BEFORE);
    let stopped = unix_now()?;
    relay.signal(Signal::SIGSTOP)?;
    std::thread::sleep(FROZEN);
    // Before it is: data may flow again before the call returns.
    let woken = unix_now()?;
    relay.signal(Signal::SIGCONT)?;
    let watched = finish(&mut watch)?;
    for (direction, trace) in [("to peers", &watched.to_peer), ("to clients", &watched.to_client)] {
        let silence = trace.silences.iter().find(|(from, until)| *until > woken && *from > stopped - 1.0);
        let (from, until) = *silence.with_context(|| format!("{way}: no silence {direction}: {trace:?}"))?;
        let (least, most) = if by_kernel { (LEASE - SLACK, LEASE + 0.5) } else { (-1.0, 0.5) };
        let what = format!("while the relay stood still, {direction}");
        record_seconds(way, &what, from - stopped, Target::AtMost(most), context);
        ensure!(from - stopped >= least, "{way}: {direction} until {:.1} s after the stop", from - stopped);
        let what = format!("until data flowed again, {direction}");
        record_seconds(way, &what, until - woken, Target::AtMost(3.0), context);
    }
    Ok(relay)
}

/// A relay that is killed leaves nothing behind, and its successor begins anew.
fn killed(way: &str, place: &Place, relay: Relay, by_kernel: bool, context: &mut Context) -> Result<()> {
    let mut watch = place.watch("killed", &["--seconds", "5"])?;
    std::thread::sleep(BEFORE);
    let at = unix_now()?;
    relay.crash()?;
    let host = &place.relay().host;
    ensure!(!cable::has_program(host, "eth0")?, "{way}: the program is still attached");
    let watched = finish(&mut watch)?;
    ensure!(watched.last_after(at) > -1.0, "{way}: nothing flowed before the relay was killed: {watched:?}");
    record_seconds(way, "after the relay was killed", watched.last_after(at), Target::AtMost(0.2), context);
    let again = place.start_relay()?;
    let before = place.counters()?;
    let watched = finish(&mut place.watch("again", &["--seconds", "4"])?)?;
    let after = place.counters()?;
    let name = format!("{way}: arrived through its successor");
    context.record(&name, watched.share(), "share", Target::AtLeast(0.99));
    let received = watched.to_peer.received + watched.to_client.received;
    judge_share(
        way,
        "through its successor",
        after.forwarded() - before.forwarded(),
        received,
        by_kernel,
        context,
    );
    again.stop().map(drop)
}

impl Place {
    fn relay(&self) -> &Machine {
        &self.ground.machines[0]
    }

    fn start_relay(&self) -> Result<Relay> {
        let (families, secret, arguments) = (Families::Both, SECRET, self.arguments);
        let alone = Alone { address: self.relay().address, families, secret, arguments };
        Relay::start_alone(&self.relay().host, &alone, &self.programs)
    }

    /// Permissions are for addresses: whoever has none must have another one than the peer.
    fn give_stranger_an_address(&self) -> Result<()> {
        let client = &self.ground.machines[1];
        client.host.ip(&format!("address add {}/32 dev eth0", client.spare.v4))
    }

    /// Starts the example `turn-watch`, and waits until its channel is open.
    fn watch(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let client = &self.ground.machines[1];
        let relay = self.relay().v4(Relay::PORT).to_string();
        let spawn = Spawn::new(&format!("turn-watch-{name}"), self.programs.example("turn-watch"))
            .args(["--relay", &relay, "--secret", SECRET, "--user", name])
            .args(["--address", &client.address.v4.to_string()])
            .args(["--stranger", &client.spare.v4.to_string()])
            .args(arguments);
        let mut watch = client.host.spawn(&spawn)?;
        watch.wait_for_output("open", OPEN_LIMIT)?;
        Ok(watch)
    }

    fn counters(&self) -> Result<Counters> {
        Counters::settled(&self.relay().host)
    }
}

fn finish(watch: &mut Process) -> Result<Watched> {
    let status = watch.wait(END_LIMIT)?;
    let output = watch.output();
    ensure!(status.success(), "turn-watch: {output}");
    let report = output.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(report.context("no report")?).with_context(|| format!("turn-watch: {output}"))
}

fn record_seconds(way: &str, what: &str, seconds: f64, target: Target, context: &mut Context) {
    context.record(&format!("{way}: {what}"), seconds, "s", target);
}

/// Holds the kernel's part of what arrived against what it should be.
fn judge_share(way: &str, what: &str, forwarded: u64, received: u64, by_kernel: bool, context: &mut Context) {
    let target = if by_kernel { Target::AtLeast(0.95) } else { Target::AtMost(0.0) };
    let share = forwarded as f64 / received.max(1) as f64;
    context.record(&format!("{way}: share of the kernel {what}"), share, "", target);
}

fn unix_now() -> Result<f64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs_f64())
}
