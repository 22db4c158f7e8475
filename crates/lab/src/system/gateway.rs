//! A gateway beside its site's resources.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Portal, Programs, READY_LIMIT, STOP_LIMIT, StateDir, health};
use crate::process::{Process, Signal, Spawn};
use crate::topology::Edge;
use crate::world::Host;

/// A gateway that can be stopped and started again with the same identity.
#[derive(Debug)]
pub struct Gateway {
    host: Host,
    spawn: Spawn,
    process: Option<Process>,
}

impl Gateway {
    /// Prepares it; nothing runs yet.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn new(
        edge: &Edge,
        token: &str,
        portal: &Portal,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        Self::on(&edge.host, token, portal, programs, state)
    }

    /// As [`Gateway::new`] on any machine that can reach the portal.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn on(
        host: &Host,
        token: &str,
        portal: &Portal,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        let host = host.clone();
        let spawn = Spawn::new("adit-gateway", programs.path("adit-gateway"))
            .args(["--portal", &portal.peer_url(), "--name", host.name(), "--ca"])
            .arg(portal.ca_file())
            .args(["--health", &health().to_string(), "--state-dir"])
            .arg(state.of(host.name())?)
            .arg("--log-dir")
            .arg(host.log_dir()?)
            .args(programs.packet_path_arguments())
            .env("ADIT_TOKEN", token);
        Ok(Self { host, spawn, process: None })
    }

    /// Starts it and waits until it is ready; returns the time that took.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start(&mut self) -> Result<Duration> {
        let mut process = self.host.spawn(&self.spawn)?;
        let took = process.wait_healthy(health(), "/readyz", READY_LIMIT)?;
        self.process = Some(process);
        Ok(took)
    }

    /// Stops it with SIGTERM and requires exit status 0; returns the time that took.
    ///
    /// # Errors
    /// When it does not run, or does not stop in order.
    pub fn stop(&mut self) -> Result<Duration> {
        self.process.take().context("the gateway does not run")?.stop(STOP_LIMIT)
    }

    /// Restarts it in the way that keeps its clients' connections; returns the time until it was ready again.
    ///
    /// # Errors
    /// When it does not run, does not stop in order, or does not become ready.
    pub fn restart(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        let mut process = self.process.take().context("the gateway does not run")?;
        process.signal(Signal::SIGUSR1)?;
        let status = process.wait(STOP_LIMIT)?;
        ensure!(status.success(), "the gateway ended with {status}");
        self.start()?;
        Ok(begin.elapsed())
    }

    /// Runs another file from the next start on.
    pub fn set_program(&mut self, program: &Path) {
        self.spawn.set_program(program);
    }

    /// Ends it without any chance to say goodbye.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the gateway does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(STOP_LIMIT).map(drop)
    }

    /// Waits until a gateway that runs is ready again.
    ///
    /// # Errors
    /// When it does not run or does not become ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the gateway does not run")?;
        process.wait_healthy(health(), "/readyz", READY_LIMIT).map(drop)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().context("the gateway does not run")?.signal(signal)
    }

    /// The machine it runs on.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The running program.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }
}
