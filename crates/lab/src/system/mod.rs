//! The programs under test, put into a world: where they are found and how they are started there.

mod client;
mod gateway;
mod portal;
mod relay;
mod state;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use client::{Client, Connection, Status};
pub use gateway::Gateway;
pub use portal::Portal;
pub use relay::{Alone, Relay};
pub use state::StateDir;

/// Longest wait for a program to become ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Longest wait for a program to stop when asked.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Port of every program's health endpoint, on the loopback of its own host.
const HEALTH_PORT: u16 = 9_090;

/// Names of all programs, as they are built.
pub const PROGRAMS: [&str; 5] = ["adit-portal", "adit-relay", "adit-gateway", "aditd", "adit"];

/// Peers and instruments that are built with the programs and not shipped: package and name of each example.
pub const EXAMPLES: [(&str, &str); 5] = [
    ("adit-engine", "wireguard-peer"),
    ("adit-relay", "turn-client"),
    ("adit-lab", "turn-errors"),
    ("adit-lab", "turn-load"),
    ("adit-lab", "turn-watch"),
];

/// Directory in which the programs were built.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
    /// Offloads that clients and gateways do without, as their switch takes them.
    without_offload: Option<&'static str>,
    /// Threads of clients and gateways, if not as many as they choose.
    workers: Option<&'static str>,
    /// Where relays listen besides UDP, as their switches take it.
    relay_listeners: &'static [&'static str],
    /// Further arguments of relays that have a portal.
    of_relays: &'static [&'static str],
}

impl Programs {
    /// Programs in `directory`, usually a profile's directory in Cargo's target directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            without_offload: None,
            workers: None,
            of_relays: &[],
            relay_listeners: &["--tls-port", "443", "--tcp-port", "3478"],
        }
    }

    /// The same programs, whose clients and gateways do without these offloads.
    #[must_use]
    pub fn without_offload(&self, kinds: &'static str) -> Self {
        Self { without_offload: Some(kinds), ..self.clone() }
    }

    /// The same programs, whose relays get these arguments as well, if they have a portal.
    #[must_use]
    pub fn with_relay_arguments(&self, arguments: &'static [&'static str]) -> Self {
        Self { of_relays: arguments, ..self.clone() }
    }

    /// Further arguments of a relay.
    const fn relay_arguments(&self) -> &'static [&'static str] {
        self.of_relays
    }

    /// The same programs, whose clients and gateways have so many workers.
    #[must_use]
    pub fn with_workers(&self, count: &'static str) -> Self {
        Self { workers: Some(count), ..self.clone() }
    }

    /// The same programs, whose relays listen there besides UDP.
    #[must_use]
    pub fn with_relay_listeners(&self, listeners: &'static [&'static str]) -> Self {
        Self { relay_listeners: listeners, ..self.clone() }
    }

    /// The switches for a client or gateway.
    fn packet_path_arguments(&self) -> Vec<&'static str> {
        let offload = self.without_offload.map(|kinds| ["--without-offload", kinds]);
        let workers = self.workers.map(|count| ["--workers", count]);
        offload.into_iter().chain(workers).flatten().collect()
    }

    /// Path of one program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// Path of one of the [`EXAMPLES`].
    pub fn example(&self, name: &str) -> PathBuf {
        self.directory.join("examples").join(name)
    }

    /// Directory they are in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fails unless every program is there.
    ///
    /// # Errors
    /// Names those that are missing.
    pub fn require(&self) -> Result<()> {
        let missing: Vec<&str> =
            PROGRAMS.into_iter().filter(|program| !self.path(program).is_file()).collect();
        if !missing.is_empty() {
            bail!("not built: {} (looked in {})", missing.join(", "), self.directory.display());
        }
        Ok(())
    }
}

/// Where a program serves `/healthz`, `/readyz` and `/metrics`.
pub(crate) fn health() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), HEALTH_PORT)
}

/// A text field of a JSON object.
pub(crate) fn text(value: &Value, key: &str) -> Result<String> {
    let found = value.get(key).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no text `{key}` in {value}"))
}
