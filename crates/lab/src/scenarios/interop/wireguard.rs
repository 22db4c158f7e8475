//! WireGuard: our device against `wireguard-go`, with either side beginning.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::flood::{Flood, Recorder};
use super::side_by_side;
use super::wireguard_bench::{
    Acquaintance, Bench, OUR_PORT, OUR_V4, OUR_V6, Pair, THEIR_PORT, THEIR_V4, THEIR_V6,
};
use super::wireguard_keys;
use super::wireguard_peer::Fact;
use crate::probe::http;
use crate::probe::ping::{ping, ping_with};
use crate::probe::udp::{EchoServer, Probe};
use crate::probe::web::WebServer;
use crate::scenario::{Context, Target};
use crate::world::Host;

const LIMIT: Duration = Duration::from_secs(10);

/// The port to which they move.
const THEIR_OTHER_PORT: u16 = 51_999;

const ECHO_PORT: u16 = 7;
const WEB_PORT: u16 = 80;

/// Bytes of each download.
const DOWNLOAD: u64 = 16 << 20;

/// The usual MTU of WireGuard interfaces, and what of it is IPv4 or IPv6 header and ICMP header.
const MTU: usize = 1420;
const ICMPV4: usize = 28;
const ICMPV6: usize = 48;

/// Where initiations are recorded, to make load of them.
const RECORDER_PORT: u16 = 40_000;

/// Initiations of a burst: enough for our threshold in a second, and for the queue that is theirs.
const OUR_BURST: u64 = 60;
const THEIR_BURST: u64 = 400;

/// Longest wait for a handshake under load; their retries come every 5 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for the last reply to be late and still counted, also when all processors are busy.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How late an echo may be.
const GRACE: Duration = Duration::from_secs(1);

/// How long a handshake with the wrong preshared key is given to succeed.
const FUTILE: Duration = Duration::from_secs(2);

pub(crate) fn wireguard(context: &mut Context) -> Result<()> {
    let bench = Bench::raise(context)?;
    we_begin(&bench, context)?;
    they_begin(&bench, context)?;
    without_preshared_key(&bench, context)?;
    with_different_preshared_keys(&bench, context)?;
    while_we_are_under_load(&bench, context)?;
    while_they_are_under_load(&bench, context)
}

/// We know where they are, over IPv4; then everything that can happen to a session.
fn we_begin(bench: &Bench, context: &mut Context) -> Result<()> {
    let acquaintance = Acquaintance {
        our_endpoint: None,
        their_endpoint: Some(bench.theirs().v4(THEIR_PORT)),
        our_preshared_key: Some(&bench.preshared_key),
        their_preshared_key: Some(&bench.preshared_key),
    };
    let mut pair = bench.start(&acquaintance, context)?;
    let first = ping(&bench.ours().host, THEIR_V4, 1, Duration::ZERO)?;
    context.record("first ping answered, we begin", first.received.into(), "count", Target::AtLeast(1.0));
    let (initiator, handshake) = pair.ours.wait_for_session(1, LIMIT)?;
    ensure!(initiator, "they began");
    context.record_time("handshake, we begin", handshake.context("no time")?, Target::AtMost(1_000.0));
    pings(bench, context)?;
    downloads(bench, context)?;
    new_handshake(bench, &mut pair, context)?;
    they_roam(bench, &pair, context)?;
    we_roam(bench, &pair, context)?;
    pair.stop(2)
}

/// Both ways, both families inside, empty and as large as fits.
fn pings(bench: &Bench, context: &mut Context) -> Result<()> {
    let (ours, theirs) = (&bench.ours().host, &bench.theirs().host);
    let pings = [
        (ours, THEIR_V4, ICMPV4),
        (ours, THEIR_V6, ICMPV6),
        (theirs, OUR_V4, ICMPV4),
        (theirs, OUR_V6, ICMPV6),
    ];
    let pings =
        pings.map(|(host, target, header)| [(host, target, 0), (host, target, MTU - header)]).concat();
    let reports =
        side_by_side(&pings, |(host, target, size)| ping_with(host, target, 3, PING_INTERVAL, *size));
    let mut lost = 0;
    for report in reports {
        let report = report?;
        lost += report.sent - report.received;
    }
    context.record("pings lost", lost.into(), "count", Target::AtMost(0.0));
    let report = ping(&bench.ours().host, THEIR_V4, 50, Duration::from_millis(10))?;
    context.record_time("round trip", report.average.unwrap_or_default(), Target::Shown);
    Ok(())
}

/// A TCP download each way.
fn downloads(bench: &Bench, context: &mut Context) -> Result<()> {
    for (server, client, address, name) in [
        (bench.theirs(), bench.ours(), THEIR_V4, "download, they seal"),
        (bench.ours(), bench.theirs(), OUR_V4, "download, we seal"),
    ] {
        let _web = WebServer::start(&server.host, WEB_PORT, "")?;
        let url = format!("http://{address}/bytes/{DOWNLOAD}");
        let download = http::download(&client.host, &url, Duration::from_secs(60))?;
        ensure!(download.bytes == DOWNLOAD, "{name}: {download:?}");
        context.record(name, download.megabits_per_second(), "Mbit/s", Target::Shown);
    }
    Ok(())
}

/// A second handshake while traffic flows both ways loses nothing.
fn new_handshake(bench: &Bench, pair: &mut Pair, context: &mut Context) -> Result<()> {
    let _echo = EchoServer::start(&bench.theirs().host, ECHO_PORT)?;
    let probe = Probe::start(&bench.ours().host, target(THEIR_V4)?, 200, 200)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    pair.ours.rekey()?;
    let (initiator, handshake) = pair.ours.wait_for_session(2, LIMIT)?;
    ensure!(initiator, "they began the second handshake");
    context.record_time("handshake under traffic", handshake.context("no time")?, Target::AtMost(1_000.0));
    probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    let report = probe.stop(GRACE);
    let lost = report.sent - report.received;
    context.record("datagrams lost over the new handshake", lost as f64, "count", Target::AtMost(0.0));
    Ok(())
}

/// Their port changes; their next datagram tells us.
fn they_roam(bench: &Bench, pair: &Pair, context: &mut Context) -> Result<()> {
    let _echo = EchoServer::start(&bench.ours().host, ECHO_PORT)?;
    let probe = Probe::start(&bench.theirs().host, target(OUR_V4)?, 200, 200)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    let asked = Instant::now();
    pair.theirs.set(&["listen-port", &THEIR_OTHER_PORT.to_string()])?;
    let back = probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    context.record_time("their port changed to next reply", back, Target::AtMost(2_000.0));
    let report = probe.stop(GRACE);
    let lost = report.sent - report.received;
    context.record("datagrams lost while they move", lost as f64, "count", Target::AtMost(50.0));
    context.record_time("moving, `wg set` included", asked.elapsed(), Target::Shown);
    let endpoint = bench.theirs().v4(THEIR_OTHER_PORT);
    ensure!(pair.ours.facts()?.contains(&Fact::Roamed { endpoint }), "{:?}", pair.ours.facts()?);
    Ok(())
}

/// Our address changes; they follow, and nothing is lost.
fn we_roam(bench: &Bench, pair: &Pair, context: &mut Context) -> Result<()> {
    let _echo = EchoServer::start(&bench.theirs().host, ECHO_PORT)?;
    let probe = Probe::start(&bench.ours().host, target(THEIR_V4)?, 200, 200)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    let (host, new) = (&bench.ours().host, bench.ours().spare.v4);
    host.ip(&format!("address add {new}/29 dev eth0"))?;
    let route = host.run(&["ip", "route", "show", "default"])?;
    host.ip(&format!("route replace {} src {new}", route.trim()))?;
    probe.wait_for_round_trip_after(Instant::now(), LIMIT)?;
    let report = probe.stop(GRACE);
    let lost = report.sent - report.received;
    context.record("datagrams lost while we move", lost as f64, "count", Target::AtMost(0.0));
    let endpoint = pair.theirs.endpoint()?;
    ensure!(endpoint == Some((new, OUR_PORT).into()), "they send to {endpoint:?}");
    host.ip(&format!("route replace {}", route.trim()))?;
    host.ip(&format!("address delete {new}/29 dev eth0"))
}

/// They know where we are, over IPv6; then they forget everything and begin again.
fn they_begin(bench: &Bench, context: &mut Context) -> Result<()> {
    let acquaintance = Acquaintance {
        our_endpoint: Some(bench.ours().v6(OUR_PORT)),
        their_endpoint: None,
        our_preshared_key: Some(&bench.preshared_key),
        their_preshared_key: Some(&bench.preshared_key),
    };
    let mut pair = bench.start(&acquaintance, context)?;
    let unheard = ping(&bench.ours().host, THEIR_V4, 1, Duration::ZERO)?;
    ensure!(unheard.received == 0, "we reached them without knowing where they are");
    let begin = Instant::now();
    let first = ping(&bench.theirs().host, OUR_V4, 1, Duration::ZERO)?;
    context.record("first ping answered, they begin", first.received.into(), "count", Target::AtLeast(1.0));
    let (initiator, _) = pair.ours.wait_for_session(1, LIMIT)?;
    ensure!(!initiator, "we began");
    context.record_time("first ping, they begin", begin.elapsed(), Target::Shown);
    pings(bench, context)?;
    pair.theirs.stop()?;
    pair.theirs = bench.start_theirs(&acquaintance)?;
    let begin = Instant::now();
    let again = ping(&bench.theirs().host, OUR_V4, 1, Duration::ZERO)?;
    ensure!(again.received == 1, "{again:?}");
    context.record_time("first ping after their restart", begin.elapsed(), Target::AtMost(2_000.0));
    let (initiator, _) = pair.ours.wait_for_session(2, LIMIT)?;
    ensure!(!initiator, "we began after their restart");
    pings(bench, context)?;
    pair.stop(2)
}

fn without_preshared_key(bench: &Bench, context: &mut Context) -> Result<()> {
    let acquaintance = Acquaintance {
        our_endpoint: None,
        their_endpoint: Some(bench.theirs().v6(THEIR_PORT)),
        our_preshared_key: None,
        their_preshared_key: None,
    };
    let pair = bench.start(&acquaintance, context)?;
    let report = ping(&bench.ours().host, THEIR_V6, 3, PING_INTERVAL)?;
    let lost = report.sent - report.received;
    context.record("pings lost without preshared key", lost.into(), "count", Target::AtMost(0.0));
    pair.stop(1)
}

/// The preshared key is not for show: with different ones there is no session.
fn with_different_preshared_keys(bench: &Bench, context: &mut Context) -> Result<()> {
    let other = wireguard_keys::preshared_key(&bench.state, "other")?;
    let acquaintance = Acquaintance {
        our_endpoint: None,
        their_endpoint: Some(bench.theirs().v4(THEIR_PORT)),
        our_preshared_key: Some(&bench.preshared_key),
        their_preshared_key: Some(&other),
    };
    let pair = bench.start(&acquaintance, context)?;
    let interval = Duration::from_millis(100);
    let pings = (FUTILE.as_millis() / interval.as_millis()) as u32;
    let report = ping(&bench.ours().host, THEIR_V4, pings, interval)?;
    context.record(
        "pings answered across different preshared keys",
        report.received.into(),
        "count",
        Target::AtMost(0.0),
    );
    ensure!(pair.ours.sessions()?.is_empty(), "a session: {:?}", pair.ours.facts()?);
    ensure!(!pair.theirs.had_handshake()?, "they think there was a handshake");
    let totals = pair.ours.stop()?;
    ensure!(totals.drops.contains_key("handshake_decryption"), "nothing was refused: {totals:?}");
    pair.theirs.stop().map(drop)
}

/// Under load we ask for a cookie before any key agreement; they come back with it.
fn while_we_are_under_load(bench: &Bench, context: &mut Context) -> Result<()> {
    let recorder = Recorder::open(&bench.ours().host, bench.ours().v4(RECORDER_PORT))?;
    let acquaintance = Acquaintance {
        our_endpoint: Some(bench.ours().v4(RECORDER_PORT)),
        their_endpoint: None,
        our_preshared_key: Some(&bench.preshared_key),
        their_preshared_key: Some(&bench.preshared_key),
    };
    let pair = bench.start(&acquaintance, context)?;
    ping(&bench.theirs().host, OUR_V4, 1, Duration::ZERO)?;
    let initiation = recorder.initiation(LIMIT)?;
    let flood = Flood::start(&bench.theirs().host, bench.ours().v4(OUR_PORT), initiation, OUR_BURST)?;
    flood.wait_for_load(LIMIT)?;
    let begin = Instant::now();
    let endpoint = bench.ours().v4(OUR_PORT).to_string();
    pair.theirs.set(&["peer", &bench.our_keys.public, "endpoint", &endpoint])?;
    pair.ours.wait_for_session(1, PATIENCE)?;
    let (sent, cookies) = (flood.sent(), flood.cookies());
    ensure!(pair.theirs.got_cookie(), "they got no cookie, the flood {cookies} for {sent} initiations");
    // Their next initiation, the one with the cookie, waits for their timer of 5 s.
    context.record_time("session under our load, they begin", begin.elapsed(), Target::AtMost(20_000.0));
    drop(flood);
    wait_for_ping(&bench.theirs().host, OUR_V4, PATIENCE)?;
    let totals = pair.ours.stop()?;
    ensure!(totals.cookie_replies_sent > 0, "{totals:?}");
    pair.theirs.stop().map(drop)
}

/// Under load they ask for a cookie; we come back with it at once.
fn while_they_are_under_load(bench: &Bench, context: &mut Context) -> Result<()> {
    let mut acquaintance = Acquaintance {
        our_endpoint: None,
        their_endpoint: Some(bench.theirs().v4(RECORDER_PORT)),
        our_preshared_key: Some(&bench.preshared_key),
        their_preshared_key: Some(&bench.preshared_key),
    };
    let recorder = Recorder::open(&bench.theirs().host, bench.theirs().v4(RECORDER_PORT))?;
    let mut pair = bench.start(&acquaintance, context)?;
    ping(&bench.ours().host, THEIR_V4, 1, Duration::ZERO)?;
    let initiation = recorder.initiation(LIMIT)?;
    pair.ours.stop()?;
    let flood = Flood::start(&bench.ours().host, bench.theirs().v4(THEIR_PORT), initiation, THEIR_BURST)?;
    flood.wait_for_load(LIMIT)?;
    acquaintance.their_endpoint = Some(bench.theirs().v4(THEIR_PORT));
    pair.ours = bench.start_ours(&acquaintance, context)?;
    ping(&bench.ours().host, THEIR_V4, 1, Duration::ZERO)?;
    let (_, handshake) = pair.ours.wait_for_session(1, PATIENCE)?;
    context.record_time(
        "handshake under their load, we begin",
        handshake.context("no time")?,
        Target::AtMost(10_000.0),
    );
    drop(flood);
    wait_for_ping(&bench.ours().host, THEIR_V4, PATIENCE)?;
    let totals = pair.ours.stop()?;
    ensure!(totals.cookies_received > 0, "no cookie was needed: {totals:?}");
    pair.theirs.stop().map(drop)
}

/// Pings until there is an answer.
fn wait_for_ping(host: &Host, target: &str, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if ping(host, target, 1, Duration::ZERO)?.received > 0 {
            return Ok(());
        }
    }
    bail!("{target} did not answer within {limit:?}")
}

fn target(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, ECHO_PORT))
}
