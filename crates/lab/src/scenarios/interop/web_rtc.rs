//! WebRTC through relays alone: aiortc and Chromium, over UDP, TCP and TLS, with our relay and with coturn.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::ground::{Ground, Machine};
use super::turn_servers::{Options, Server, Servers, Transport, credentials};
use crate::probe::browser::Browser;
use crate::process;
use crate::scenario::{Context, Target};
use crate::scenarios::python;
use crate::world::Host;

/// Messages of a visit, each way.
const MESSAGES: u32 = 100;

/// Longest visit: the judges have limits of their own, which are shorter.
const LIMIT: Duration = Duration::from_secs(70);

/// What is installed from PyPI, once.
const PACKAGES: [&str; 2] = ["aiortc==1.16.0", "aioice==0.13.0"];

const AIORTC: &str = include_str!("judges/relay_only.py");
const CHROMIUM: &str = include_str!("judges/relay_only.js");

/// What a judge counted. Times are in milliseconds.
#[derive(Clone, Debug, Deserialize)]
struct Visit {
    /// From the beginning to the open channel.
    open: f64,
    /// From the first message to the last echo.
    exchange: f64,
    received: u32,
    /// Kinds of candidates that were used, or could have been.
    types: Vec<String>,
    /// What the browser says of the way to the relay, for each of the two.
    #[serde(default)]
    transports: Vec<String>,
}

pub(crate) fn aiortc(context: &mut Context) -> Result<()> {
    let python = python::install(&PACKAGES)?.join("python");
    judge(context, |host, servers, machine, transport| {
        let (username, password) = credentials("aiortc")?;
        let mut command = host.command(&python);
        command
            .args(["-c", AIORTC, &transport.uri(machine), &username, &password, &MESSAGES.to_string()])
            .env("SSL_CERT_FILE", &servers.certificate);
        let finished = process::finish(command, LIMIT)?;
        serde_json::from_str(&finished.stdout).with_context(|| finished.complaint().to_owned())
    })
}

pub(crate) fn chromium(context: &mut Context) -> Result<()> {
    judge(context, |host, servers, machine, transport| {
        let mut browser = Browser::start(host, &servers.state.of("browser")?)?;
        let (username, credential) = credentials("chromium")?;
        let server = serde_json::json!({
            "urls": transport.uri(machine), "username": username, "credential": credential,
        });
        let script = format!("const SERVER = {server}; const MESSAGES = {MESSAGES};\n{CHROMIUM}");
        let visit: Visit = serde_json::from_value(browser.evaluate(&script, LIMIT)?)?;
        let expected = transport.name().to_lowercase();
        ensure!(visit.transports.iter().all(|used| *used == expected), "{visit:?}");
        Ok(visit)
    })
}

/// Lets a judge visit both servers over every transport.
fn judge(
    context: &mut Context,
    visit: impl Fn(&Host, &Servers, &Machine, Transport) -> Result<Visit>,
) -> Result<()> {
    let ground = Ground::raise(["adit", "coturn", "client"], context.log_dir())?;
    let [adit, coturn, client] = &ground.machines;
    let servers = Servers::start([adit, coturn], &context.programs, Options::default())?;
    for server in Server::BOTH {
        let machine = if server == Server::Adit { adit } else { coturn };
        for transport in Transport::ALL {
            let name = format!("{}, {}", server.name(), transport.name());
            let visited = visit(&client.host, &servers, machine, transport);
            record(context, &name, &visited.with_context(|| name.clone())?)?;
        }
    }
    servers.adit.stop().map(drop)
}

fn record(context: &mut Context, name: &str, visit: &Visit) -> Result<()> {
    ensure!(!visit.types.is_empty() && visit.types.iter().all(|kind| kind == "relay"), "{name}: {visit:?}");
    let lost = f64::from(MESSAGES) - f64::from(visit.received);
    context.record(&format!("{name}: lost"), lost, "messages", Target::AtMost(0.0));
    context.record(&format!("{name}: to the open channel"), visit.open, "ms", Target::Shown);
    context.record(&format!("{name}: messages there and back"), visit.exchange, "ms", Target::Shown);
    Ok(())
}
