//! A relay on its public addresses.

use std::time::Duration;

use anyhow::Result;

use super::{Portal, Programs, READY_LIMIT, STOP_LIMIT, StateDir, health};
use crate::process::{Process, Spawn};
use crate::topology::{Families, Server};

/// Where the relay serves STUN and TURN.
const PORT: u16 = 3478;

/// Special-purpose networks that are this world's internet. Private networks stay refused.
const DOCUMENTATION: &str = "192.0.2.0/24,198.51.100.0/24,203.0.113.0/24,2001:db8::/32";

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    process: Process,
    ready_after: Duration,
}

impl Relay {
    /// Starts it and waits until it is ready.
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
        let mut spawn = Spawn::new("adit-relay", programs.path("adit-relay"))
            .args(["--portal", &portal.peer_url(), "--token", portal.relay_token(), "--ca"])
            .arg(portal.ca_file())
            .args(["--port", &PORT.to_string(), "--health", &health().to_string(), "--state-dir"])
            .arg(state.of(host.name())?)
            .args(["--name", host.name(), "--allow-peer", DOCUMENTATION])
            .arg("--log-dir")
            .arg(host.log_dir()?);
        if families.has_v4() {
            spawn = spawn.args(["--public-ipv4", &server.address.v4.to_string()]);
        }
        if families.has_v6() {
            spawn = spawn.args(["--public-ipv6", &server.address.v6.to_string()]);
        }
        let mut process = host.spawn(&spawn)?;
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

    /// Stops it with SIGTERM and requires exit status 0.
    ///
    /// # Errors
    /// When it does not stop in order.
    pub fn stop(mut self) -> Result<Duration> {
        self.process.stop(STOP_LIMIT)
    }
}
