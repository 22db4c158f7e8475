//! A relay on its public addresses.

use std::time::Duration;

use anyhow::Result;

use super::{Portal, Programs, READY_LIMIT, STOP_LIMIT, StateDir, health};
use crate::process::{Process, Signal, Spawn};
use crate::topology::{Families, Pair, Server};
use crate::world::Host;

/// Special-purpose networks that are this world's internet. Private networks stay refused.
const DOCUMENTATION: &str = "192.0.2.0/24,198.51.100.0/24,203.0.113.0/24,2001:db8::/32";

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    process: Process,
    ready_after: Duration,
}

/// How to run it without a portal.
#[derive(Clone, Copy, Debug)]
pub struct Alone<'a> {
    /// Its public addresses.
    pub address: Pair,
    /// Those of them that it serves.
    pub families: Families,
    /// What its users make credentials from.
    pub secret: &'a str,
    /// Further arguments.
    pub arguments: &'a [&'a str],
}

impl Relay {
    /// Where it serves STUN and TURN.
    pub const PORT: u16 = 3478;

    /// Starts it for a portal's users and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start(
        server: &Server,
        families: Families,
        portal: &Portal,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        let host = &server.host;
        let spawn = usual(host, server.address, families, programs)?
            .args(["--portal", &portal.peer_url(), "--token", portal.relay_token(), "--ca"])
            .arg(portal.ca_file())
            .args(["--name", host.name(), "--state-dir"])
            .arg(state.of(host.name())?)
            .args(programs.relay_listeners)
            .args(programs.relay_arguments());
        Self::launch(host, &spawn)
    }

    /// Starts it without a portal, for everybody who knows the secret, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub fn start_alone(host: &Host, alone: &Alone<'_>, programs: &Programs) -> Result<Self> {
        let spawn = usual(host, alone.address, alone.families, programs)?
            .args(["--static-secret", alone.secret, "--drain-timeout", "1"])
            .args(alone.arguments);
        Self::launch(host, &spawn)
    }

    fn launch(host: &Host, spawn: &Spawn) -> Result<Self> {
        let mut process = host.spawn(spawn)?;
        let ready_after = process.wait_healthy(health(), "/readyz", READY_LIMIT)?;
        Ok(Self { process, ready_after })
    }

    /// Time from its start until it was ready.
    pub const fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The running program.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it without any chance to tell anybody.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP_LIMIT).map(drop)
    }

    /// Stops it with SIGTERM and requires exit status 0.
    ///
    /// # Errors
    /// When it does not stop in order.
    pub fn stop(mut self) -> Result<Duration> {
        self.process.stop(STOP_LIMIT)
    }
}

/// What both ways of running it need.
fn usual(host: &Host, address: Pair, families: Families, programs: &Programs) -> Result<Spawn> {
    let mut spawn = Spawn::new("adit-relay", programs.path("adit-relay"))
        .args(["--port", &Relay::PORT.to_string(), "--health", &health().to_string()])
        .args(["--allow-peer", DOCUMENTATION, "--log-dir"])
        .arg(host.log_dir()?);
    if families.has_v4() {
        spawn = spawn.args(["--public-ipv4", &address.v4.to_string()]);
    }
    if families.has_v6() {
        spawn = spawn.args(["--public-ipv6", &address.v6.to_string()]);
    }
    Ok(spawn)
}
