//! TURN: coturn's client against our relay and, as a control, against coturn itself; our client against coturn.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::ground::{Ground, Machine};
use super::side_by_side;
use super::turn_client::{self, Report};
use super::turn_servers::{Options, SECRET, Server, Servers, Transport};
use crate::coturn::client as coturn;
use crate::probe::udp::EchoServer;
use crate::scenario::{Context, Target};

pub(super) const ECHO_PORT: u16 = 3480;

/// Concurrent sessions and messages of each of coturn's visits.
pub(super) const SESSIONS: u32 = 4;
pub(super) const MESSAGES: u32 = 50;

/// Datagrams of each of our visits.
const DATAGRAMS: u32 = 400;

/// How coturn's client visits a server.
struct Theirs {
    name: &'static str,
    server_is_v4: bool,
    /// Family of the echo server; without one, sessions talk to each other (`-y`).
    peer_is_v4: Option<bool>,
    transport: Transport,
    flags: &'static [&'static str],
}

const fn theirs(name: &'static str, peer_is_v4: Option<bool>, flags: &'static [&'static str]) -> Theirs {
    Theirs { name, server_is_v4: true, peer_is_v4, transport: Transport::Udp, flags }
}

const fn stream(transport: Transport, theirs: Theirs) -> Theirs {
    Theirs { transport, ..theirs }
}

const V4: Option<bool> = Some(true);
const V6: Option<bool> = Some(false);
const EACH_OTHER: Option<bool> = None;

const THEIRS: [Theirs; 14] = [
    theirs("channels", V4, &["-l", "171"]),
    theirs("channels, padded", V4, &["-D", "-l", "171"]),
    theirs("channels, unfragmented", V4, &["-g", "-l", "1200"]),
    theirs("indications", V4, &["-s"]),
    theirs("mistakes between indications", V4, &["-N", "-s"]),
    theirs("client to client", EACH_OTHER, &[]),
    theirs("client to client, indications", EACH_OTHER, &["-s"]),
    theirs("IPv4 to IPv6", V6, &["-x"]),
    Theirs { server_is_v4: false, ..theirs("IPv6 to IPv4", V4, &["-X", "-s"]) },
    Theirs { server_is_v4: false, ..theirs("IPv6", V6, &["-x", "-G", "-l", "1200"]) },
    stream(Transport::Tcp, theirs("TCP", V4, &["-t"])),
    stream(Transport::Tcp, theirs("TCP, indications", V4, &["-t", "-s"])),
    stream(Transport::Tls, theirs("TLS", V4, &["-t", "-S"])),
    stream(Transport::Tls, theirs("TLS, client to client", EACH_OTHER, &["-t", "-S"])),
];

/// How our client visits coturn's server: name, whether over IPv4, framing, and what carries it.
const OURS: [(&str, bool, &str, Transport); 8] = [
    ("channel", true, "channel", Transport::Udp),
    ("indications", true, "indication", Transport::Udp),
    ("IPv6, channel", false, "channel", Transport::Udp),
    ("IPv6, indications", false, "indication", Transport::Udp),
    ("TCP, channel", true, "channel", Transport::Tcp),
    ("TCP, indications", true, "indication", Transport::Tcp),
    ("TLS, channel", true, "channel", Transport::Tls),
    ("TLS, IPv6, indications", false, "indication", Transport::Tls),
];

pub(crate) fn turn(context: &mut Context) -> Result<()> {
    let ground = Ground::raise(["adit", "coturn", "client", "peer"], context.log_dir())?;
    let [adit, coturn, ..] = &ground.machines;
    let _echo = EchoServer::start(&ground.machines[3].host, ECHO_PORT)?;
    let servers = Servers::start([adit, coturn], &context.programs, Options::default())?;
    for server in Server::BOTH {
        their_client(&ground, server, "", context)?;
        discovery(&ground, server, context)?;
    }
    our_client(&ground, &servers, context)?;
    let stopped = servers.adit.stop()?;
    context.record_time("adit-relay, SIGTERM to exit", stopped, Target::AtMost(5_000.0));
    Ok(())
}

/// coturn's client visits one of the servers in all ways at once; `under` says under which circumstances.
pub(super) fn their_client(
    ground: &Ground<4>,
    server: Server,
    under: &str,
    context: &mut Context,
) -> Result<()> {
    let [adit, coturn, client, peer] = &ground.machines;
    let machine = if server == Server::Adit { adit } else { coturn };
    let results = side_by_side(&THEIRS, |theirs| {
        let visit = coturn::Visit {
            server: of_family(machine, theirs.server_is_v4, theirs.transport.port()),
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
        let name = format!("turnutils_uclient at {}{under}, {}", server.name(), theirs.name);
        // The control is there to be looked at: its failures are not ours.
        let is_control = server == Server::Coturn;
        let counts = match counts {
            Err(error) if is_control => {
                println!("  NOTE: {name}: {error:#}");
                continue;
            }
            counts => counts?,
        };
        let target = |target| if is_control { Target::Shown } else { target };
        let expected = f64::from(SESSIONS * MESSAGES);
        context.record(
            &format!("{name}: sent"),
            counts.sent as f64,
            "messages",
            target(Target::AtLeast(expected)),
        );
        let lost = counts.sent.saturating_sub(counts.received);
        // It sends by the clock and stops listening by it: on a busy machine its sessions with each other and over TLS
        // end before their last messages have come.
        let may_be_late = theirs.transport == Transport::Tls || theirs.peer_is_v4.is_none();
        let none_lost = if may_be_late { Target::Shown } else { Target::AtMost(0.0) };
        context.record(&format!("{name}: lost"), lost as f64, "messages", target(none_lost));
    }
    Ok(())
}

/// Neither server has a second address, so both say how they see the client and nothing of how its NAT behaves.
fn discovery(ground: &Ground<4>, server: Server, context: &mut Context) -> Result<()> {
    let [adit, coturn, client, _] = &ground.machines;
    let machine = if server == Server::Adit { adit } else { coturn };
    let seen = coturn::discover(&client.host, machine.v4(Transport::Udp.port()))?;
    let own = client.address.v4;
    let right = seen.iter().filter(|address| address.ip() == own).count();
    let name = format!("turnutils_natdiscovery at {}", server.name());
    // Two for the mapping, one for the filtering.
    context.record(&format!("{name}: right addresses"), right as f64, "answers", Target::AtLeast(3.0));
    let wrong = seen.len() - right;
    context.record(&format!("{name}: wrong addresses"), wrong as f64, "answers", Target::AtMost(0.0));
    Ok(())
}

fn our_client(ground: &Ground<4>, servers: &Servers, context: &mut Context) -> Result<()> {
    let [_, coturn, client, peer] = &ground.machines;
    let visit = |is_v4, framing, transport: Transport| turn_client::Visit {
        server: of_family(coturn, is_v4, transport.port()),
        transport,
        ca: &servers.certificate,
        secret: SECRET,
        peer: of_family(peer, is_v4, ECHO_PORT),
        framing,
        datagrams: DATAGRAMS,
    };
    let programs = context.programs.clone();
    let results = side_by_side(&OURS, |(_, is_v4, framing, transport)| {
        let visit = visit(*is_v4, framing, *transport);
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
        &format!("our client at coturn, {name}: sent"),
        report.sent as f64,
        "datagrams",
        Target::AtLeast(f64::from(DATAGRAMS)),
    );
    let what = format!("our client at coturn, {name}");
    context.record(&format!("{what}: lost"), lost as f64, "datagrams", Target::AtMost(0.0));
    for (step, time) in [
        ("allocation", report.allocate_ms),
        ("way to the peer", report.open_ms),
        ("round trip", report.round_trip_ms),
    ] {
        context.record_time(&format!("{what}: {step}"), milliseconds(time), Target::Shown);
    }
}

fn of_family(machine: &Machine, is_v4: bool, port: u16) -> SocketAddr {
    if is_v4 { machine.v4(port) } else { machine.v6(port) }
}
