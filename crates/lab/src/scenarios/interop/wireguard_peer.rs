//! Our side: the example `wireguard-peer`, and what it says.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::process::{Process, Signal, Spawn};
use crate::system::Programs;
use crate::world::Host;

const READY_LIMIT: Duration = Duration::from_secs(10);

const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How we are set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    pub(super) private_key: &'a Path,
    pub(super) peer: &'a str,
    pub(super) preshared_key: Option<&'a Path>,
    pub(super) listen: SocketAddr,
    pub(super) endpoint: Option<SocketAddr>,
    /// Inner addresses with their prefix lengths.
    pub(super) addresses: &'a [String],
}

/// A line of its standard output.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Fact {
    Ready {},
    Session { initiator: bool, handshake_ms: Option<f64> },
    Roamed { endpoint: SocketAddr },
    Expired { reason: String },
    Stopped(Totals),
}

/// What it counted.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Totals {
    pub(super) received: u64,
    pub(super) malformed: u64,
    pub(super) handshakes: u64,
    pub(super) cookie_replies_sent: u64,
    pub(super) cookies_received: u64,
    /// Datagrams that were not taken, by reason.
    pub(super) drops: serde_json::Map<String, serde_json::Value>,
}

/// The running peer.
#[derive(Debug)]
pub(super) struct WireguardPeer {
    process: Process,
}

impl WireguardPeer {
    pub(super) fn start(host: &Host, programs: &Programs, setup: &Setup<'_>) -> Result<Self> {
        let mut spawn = Spawn::new("wireguard-peer", programs.example("wireguard-peer"))
            .args(["--interface", "adit0", "--listen", &setup.listen.to_string(), "--peer", setup.peer])
            .arg("--private-key")
            .arg(setup.private_key);
        for address in setup.addresses {
            spawn = spawn.args(["--address", address]);
        }
        if let Some(preshared_key) = setup.preshared_key {
            spawn = spawn.arg("--preshared-key").arg(preshared_key);
        }
        if let Some(endpoint) = setup.endpoint {
            spawn = spawn.args(["--endpoint", &endpoint.to_string()]);
        }
        let mut process = host.spawn(&spawn)?;
        process.wait_for_output("\"ready\"", READY_LIMIT)?;
        Ok(Self { process })
    }

    /// Begins a new handshake.
    pub(super) fn rekey(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGUSR1)
    }

    /// Everything it said so far.
    pub(super) fn facts(&self) -> Result<Vec<Fact>> {
        let output = self.process.output();
        let whole = output.rfind('\n').map_or("", |end| &output[..end]);
        let lines = whole.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The sessions so far: whether we began, and how long the handshake took then.
    pub(super) fn sessions(&self) -> Result<Vec<(bool, Option<Duration>)>> {
        let session = |fact: Fact| match fact {
            Fact::Session { initiator, handshake_ms } => {
                Some((initiator, handshake_ms.map(|ms| Duration::from_secs_f64(ms / 1e3))))
            }
            Fact::Ready {} | Fact::Roamed { .. } | Fact::Expired { .. } | Fact::Stopped(_) => None,
        };
        Ok(self.facts()?.into_iter().filter_map(session).collect())
    }

    /// Waits until it has had `count` sessions, and returns the last of them.
    pub(super) fn wait_for_session(&self, count: usize, limit: Duration) -> Result<(bool, Option<Duration>)> {
        let begin = Instant::now();
        loop {
            let sessions = self.sessions()?;
            if let Some(session) = sessions.get(count - 1) {
                return Ok(*session);
            }
            ensure!(
                begin.elapsed() < limit,
                "no session number {count} within {limit:?}: {:?}",
                self.facts()?
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it; what it counted.
    pub(super) fn stop(mut self) -> Result<Totals> {
        self.process.stop(STOP_LIMIT)?;
        let stopped = self.facts()?.into_iter().find_map(|fact| match fact {
            Fact::Stopped(totals) => Some(totals),
            Fact::Ready {} | Fact::Session { .. } | Fact::Roamed { .. } | Fact::Expired { .. } => None,
        });
        stopped.context("wireguard-peer ended without its totals")
    }
}
