//! A device: the daemon, and its command line as a user would call it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Portal, Programs, READY_LIMIT, STOP_LIMIT, StateDir, health};
use crate::process::{Finished, Process, Spawn};
use crate::topology::Edge;
use crate::world::Host;

/// Longest time a command of `adit` may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(45);

/// Pause between two looks at the client's status.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What `adit status --json` says, as far as the lab looks at it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Status {
    /// `online`, `signed_out`, and so on.
    pub state: String,
    /// Why it is in this state, where there is more to say: `expired_token`, and so on.
    pub reason: Option<String>,
    /// Connections to gateways.
    pub connections: Vec<Connection>,
}

/// A connection to a gateway.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Connection {
    /// The gateway's name.
    pub name: String,
    /// `direct` or `relayed`; absent while no path is known.
    pub path: Option<String>,
    /// Where packets are sent.
    pub remote: Option<String>,
    /// What carries them to the relay, if there is one: `udp`, `tcp`, `tls`.
    pub relay_transport: Option<String>,
}

/// A device with a running daemon.
#[derive(Debug)]
pub struct Client {
    host: Host,
    program: PathBuf,
    socket: PathBuf,
    health: SocketAddr,
    spawn: Spawn,
    process: Process,
    ready_after: Duration,
}

impl Client {
    /// Starts the daemon and waits until it answers; nobody is signed in yet.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub fn start(edge: &Edge, portal: &Portal, programs: &Programs, state: &StateDir) -> Result<Self> {
        Self::start_on(&edge.host, portal, programs, state)
    }

    /// As [`Client::start`] on any machine that can reach the portal.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub fn start_on(host: &Host, portal: &Portal, programs: &Programs, state: &StateDir) -> Result<Self> {
        Self::launch(host, None, portal, programs, state)
    }

    /// Starts a second daemon beside this client's, for a profile of its own.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub fn start_beside(
        &self,
        profile: &str,
        portal: &Portal,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        Self::launch(&self.host, Some(profile), portal, programs, state)
    }

    fn launch(
        host: &Host,
        profile: Option<&str>,
        portal: &Portal,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        let host = host.clone();
        let state_dir = state.of(host.name())?;
        let socket = state_dir.join(format!("{}.sock", profile.unwrap_or("aditd")));
        let mut health = health();
        if profile.is_some() {
            health.set_port(health.port() + 1);
        }
        let spawn = Spawn::new("aditd", programs.path("aditd"))
            .args(profile.map(|name| ["--profile", name]).into_iter().flatten())
            .args(["--portal", &portal.peer_url(), "--ca"])
            .arg(portal.ca_file())
            .arg("--state-dir")
            .arg(&state_dir)
            .arg("--socket")
            .arg(&socket)
            // Never by the bus of the machine outside, whose resolver is none of our business.
            .args(["--dns-control", "resolv-conf", "--name", host.name()])
            .args(["--health", &health.to_string(), "--log-dir"])
            .arg(host.log_dir()?)
            .args(programs.packet_path_arguments());
        let mut process = host.spawn(&spawn)?;
        let ready_after = process.wait_healthy(health, "/healthz", READY_LIMIT)?;
        Ok(Self { host, program: programs.path("adit"), socket, health, spawn, process, ready_after })
    }

    /// Time from the daemon's start until it answered.
    pub const fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The daemon.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// The machine it runs on.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The socket of its daemon.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `adit` with the socket of this client's daemon, for a person to type.
    pub fn command_line(&self) -> String {
        format!("{} --socket {}", self.program.display(), self.socket.display())
    }

    /// Signs in with a token and waits until resources can be reached; returns the time that took.
    ///
    /// # Errors
    /// When `adit up` fails.
    pub fn sign_in(&self, token: &str, state: &StateDir) -> Result<Duration> {
        let file = state.write_secret(&format!("{}.token", self.host.name()), token)?;
        let file = file.to_string_lossy().into_owned();
        Ok(self.adit(&["up", "--token-file", &file, "--wait"])?.took)
    }

    /// Runs `adit` with these arguments and requires status 0.
    ///
    /// # Errors
    /// When it fails; its message is passed on.
    pub fn adit(&self, arguments: &[&str]) -> Result<Finished> {
        let finished = self.try_adit(arguments)?;
        if !finished.success() {
            bail!("adit {} ended with {}: {}", arguments.join(" "), finished.status, finished.complaint());
        }
        Ok(finished)
    }

    /// Runs `adit` with these arguments, whatever its status.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub fn try_adit(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.host.command(&self.program);
        command.arg("--socket").arg(&self.socket).args(arguments);
        crate::process::finish(command, COMMAND_LIMIT)
    }

    fn adit_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let finished = self.adit(arguments)?;
        serde_json::from_str(&finished.stdout)
            .with_context(|| format!("adit {} printed {}", arguments.join(" "), finished.stdout))
    }

    /// What the client is doing.
    ///
    /// # Errors
    /// When `adit status` fails.
    pub fn status(&self) -> Result<Status> {
        self.adit_json(&["status", "--json"])
    }

    /// Waits until the status is as wanted; returns it and the time that took.
    ///
    /// # Errors
    /// When that does not happen within `limit`; the last status is in the message.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<(Status, Duration)> {
        let begin = Instant::now();
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok((status, begin.elapsed()));
            }
            if begin.elapsed() > limit {
                bail!("{}: waited {limit:?} in vain for {what}: {status:?}", self.host.name());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until every connection, and at least one, takes this kind of path.
    ///
    /// # Errors
    /// When that does not happen within `limit`.
    pub fn wait_for_path(&self, kind: &str, limit: Duration) -> Result<(Status, Duration)> {
        self.wait_for(&format!("a {kind} path"), limit, |status| {
            !status.connections.is_empty()
                && status.connections.iter().all(|one| one.path.as_deref() == Some(kind))
        })
    }

    /// Waits until no connection is left.
    ///
    /// # Errors
    /// When that does not happen within `limit`.
    pub fn wait_for_no_connection(&self, limit: Duration) -> Result<Duration> {
        Ok(self.wait_for("no connection", limit, |status| status.connections.is_empty())?.1)
    }

    /// Ends the daemon without any chance to say goodbye.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP_LIMIT).map(drop)
    }

    /// Starts the daemon again after a crash, still signed in, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = self.host.spawn(&self.spawn)?;
        self.ready_after = self.process.wait_healthy(self.health, "/healthz", READY_LIMIT)?;
        Ok(())
    }

    /// Stops the daemon with SIGTERM and requires exit status 0.
    ///
    /// # Errors
    /// When it does not stop in order.
    pub fn stop(mut self) -> Result<Duration> {
        self.process.stop(STOP_LIMIT)
    }
}
