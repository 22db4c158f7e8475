//! TURN: coturn's client against our relay, our client machine against coturn's server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::coturn::{self, TurnServer};
use super::ground::{Ground, Machine};
use super::side_by_side;
use super::turn_client::{self, Report};
use crate::probe::udp::EchoServer;
use crate::scenario::{Context, Target};
use crate::system::{Relay, StateDir};

const SECRET: &str = "a secret of this scenario";

const ECHO_PORT: u16 = 3480;

/// Concurrent sessions and messages of each of coturn's visits.
const SESSIONS: u32 = 4;
const MESSAGES: u32 = 50;

/// Datagrams of each of our visits.
const DATAGRAMS: u32 = 400;

/// How coturn's client visits our relay.
struct Theirs {
    name: &'static str,
    server_is_v4: bool,
    /// Family of the echo server; without one, sessions talk to each other.
    peer_is_v4: Option<bool>,
    flags: &'static [&'static str],
}

const THEIRS: [Theirs; 9] = [
    Theirs { name: "channels", server_is_v4: true, peer_is_v4: Some(true), flags: &["-l", "171"] },
    Theirs {
        name: "channels, padded",
        server_is_v4: true,
        peer_is_v4: Some(true),
        flags: &["-D", "-l", "171"],
    },
    Theirs { name: "indications", server_is_v4: true, peer_is_v4: Some(true), flags: &["-s"] },
    Theirs {
        name: "mistakes between indications",
        server_is_v4: true,
        peer_is_v4: Some(true),
        flags: &["-N", "-s"],
    },
    Theirs { name: "client to client", server_is_v4: true, peer_is_v4: None, flags: &[] },
    Theirs { name: "client to client, indications", server_is_v4: true, peer_is_v4: None, flags: &["-s"] },
    Theirs { name: "IPv4 to IPv6", server_is_v4: true, peer_is_v4: Some(false), flags: &["-x"] },
    Theirs { name: "IPv6 to IPv4", server_is_v4: false, peer_is_v4: Some(true), flags: &["-X", "-s"] },
    Theirs { name: "IPv6", server_is_v4: false, peer_is_v4: Some(false), flags: &["-x", "-G", "-l", "1200"] },
];

/// How our client visits coturn's server: name, whether over IPv4, and framing.
const OURS: [(&str, bool, &str); 4] = [
    ("channel", true, "channel"),
    ("indications", true, "indication"),
    ("IPv6, channel", false, "channel"),
    ("IPv6, indications", false, "indication"),
];

pub(crate) fn turn(context: &mut Context) -> Result<()> {
    let ground = Ground::raise(["server", "client", "peer"], context.log_dir())?;
    let _echo = EchoServer::start(&ground.machines[2].host, ECHO_PORT)?;
    their_client(&ground, context)?;
    our_client(&ground, context)
}

fn their_client(ground: &Ground<3>, context: &mut Context) -> Result<()> {
    let [server, client, peer] = &ground.machines;
    let relay = Relay::start_alone(&server.host, server.address, SECRET, &context.programs)?;
    let results = side_by_side(&THEIRS, |theirs| {
        let visit = coturn::Visit {
            server: of_family(server, theirs.server_is_v4, Relay::PORT),
            secret: SECRET,
            user: &theirs.name.replace([' ', ','], ""),
            peer: theirs.peer_is_v4.map(|is_v4| of_family(peer, is_v4, ECHO_PORT)),
            sessions: SESSIONS,
            messages: MESSAGES,
            flags: theirs.flags,
        };
        coturn::visit(&client.host, &visit)
    });
    for (theirs, counts) in THEIRS.iter().zip(results) {
        let (name, counts) = (theirs.name, counts?);
        let expected = f64::from(SESSIONS * MESSAGES);
        context.record(
            &format!("turnutils_uclient, {name}: sent"),
            counts.sent as f64,
            "messages",
            Target::AtLeast(expected),
        );
        let lost = counts.sent.saturating_sub(counts.received);
        context.record(
            &format!("turnutils_uclient, {name}: lost"),
            lost as f64,
            "messages",
            Target::AtMost(0.0),
        );
    }
    let stopped = relay.stop()?;
    context.record_time("adit-relay, SIGTERM to exit", stopped, Target::AtMost(5_000.0));
    Ok(())
}

fn our_client(ground: &Ground<3>, context: &mut Context) -> Result<()> {
    let [server, client, peer] = &ground.machines;
    let state = StateDir::create()?;
    let _server = TurnServer::start(&server.host, server.address, SECRET, &state.of("coturn")?)?;
    let visit = |is_v4, framing| turn_client::Visit {
        server: of_family(server, is_v4, TurnServer::PORT),
        secret: SECRET,
        peer: of_family(peer, is_v4, ECHO_PORT),
        framing,
        datagrams: DATAGRAMS,
    };
    let programs = context.programs.clone();
    let results = side_by_side(&OURS, |(_, is_v4, framing)| {
        let visit = visit(*is_v4, framing);
        let report = turn_client::visit(&client.host, &programs, &visit)?;
        report.require_sound(&visit).map(|()| report)
    });
    for ((name, ..), report) in OURS.iter().zip(results) {
        record(name, &report.map_err(|error| error.context(format!("our client, {name}")))?, context);
    }
    Ok(())
}

fn record(name: &str, report: &Report, context: &mut Context) {
    let milliseconds = |ms: Option<f64>| Duration::from_secs_f64(ms.unwrap_or_default() / 1e3);
    let lost = report.sent.saturating_sub(report.received);
    context.record(
        &format!("turnserver, {name}: sent"),
        report.sent as f64,
        "datagrams",
        Target::AtLeast(f64::from(DATAGRAMS)),
    );
    context.record(&format!("turnserver, {name}: lost"), lost as f64, "datagrams", Target::AtMost(0.0));
    for (what, time) in [
        ("allocation", report.allocate_ms),
        ("way to the peer", report.open_ms),
        ("round trip", report.round_trip_ms),
    ] {
        context.record_time(&format!("turnserver, {name}: {what}"), milliseconds(time), Target::Shown);
    }
}

fn of_family(machine: &Machine, is_v4: bool, port: u16) -> SocketAddr {
    if is_v4 { machine.v4(port) } else { machine.v6(port) }
}
