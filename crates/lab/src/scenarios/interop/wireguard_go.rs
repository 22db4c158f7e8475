//! The other side: `wireguard-go`, configured with `wg`.
//!
//! It listens for `wg` on a socket in `/run/wireguard`, which all namespaces share. Here it gets a file system of its
//! own there, so that runs side by side do not meet and nothing is left behind.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{Process, Spawn};
use crate::world::Host;

const INTERFACE: &str = "wg0";

const START: &str = "mkdir -p /run/wireguard && mount -t tmpfs -o mode=0700 wireguard /run/wireguard \
     && exec wireguard-go --foreground wg0";

const READY_LIMIT: Duration = Duration::from_secs(10);

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What it is told of us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    pub(super) public_key: &'a str,
    pub(super) preshared_key: Option<&'a Path>,
    /// Inner addresses that are ours, as `wg` takes them.
    pub(super) allowed: &'a str,
    /// Where we are; without it, we must come first.
    pub(super) endpoint: Option<SocketAddr>,
}

/// A running `wireguard-go` with one peer.
#[derive(Debug)]
pub(super) struct WireguardGo {
    process: Process,
}

impl WireguardGo {
    /// Starts it and gives it its key, its peer and its addresses with their prefix lengths.
    pub(super) fn start(
        host: &Host,
        private_key: &Path,
        port: u16,
        addresses: &[String],
        peer: &Peer<'_>,
    ) -> Result<Self> {
        let spawn = Spawn::new("wireguard-go", "unshare")
            .args(["--mount", "sh", "-c", START])
            .env("LOG_LEVEL", "verbose");
        let mut process = host.spawn(&spawn)?;
        process.wait_for_output("UAPI listener started", READY_LIMIT)?;
        let started = Self { process };
        started.configure(private_key, port, peer)?;
        for address in addresses {
            host.ip(&format!("address add {address} dev {INTERFACE}"))?;
        }
        host.ip(&format!("link set {INTERFACE} up"))?;
        Ok(started)
    }

    fn configure(&self, private_key: &Path, port: u16, peer: &Peer<'_>) -> Result<()> {
        let (port, private_key) = (port.to_string(), private_key.to_string_lossy());
        let preshared_key = peer.preshared_key.map(Path::to_string_lossy);
        let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
        let mut words = vec!["listen-port", &port, "private-key", &private_key, "peer", peer.public_key];
        words.extend(["allowed-ips", peer.allowed]);
        words.extend(preshared_key.iter().flat_map(|file| ["preshared-key", file]));
        words.extend(endpoint.iter().flat_map(|endpoint| ["endpoint", endpoint]));
        self.set(&words)
    }

    /// `wg set` with these words.
    pub(super) fn set(&self, words: &[&str]) -> Result<()> {
        self.wg(&[&["set", INTERFACE], words].concat()).map(drop)
    }

    /// Where it sends to us; `None` while it does not know.
    pub(super) fn endpoint(&self) -> Result<Option<SocketAddr>> {
        let text = self.about_us("endpoints")?;
        if text == "(none)" {
            return Ok(None);
        }
        text.parse().map(Some).with_context(|| format!("endpoint {text}"))
    }

    /// Whether a handshake with us was ever completed.
    pub(super) fn had_handshake(&self) -> Result<bool> {
        Ok(self.about_us("latest-handshakes")? != "0")
    }

    /// Whether a cookie reply has come.
    pub(super) fn got_cookie(&self) -> bool {
        self.process.output().contains("Receiving cookie response")
    }

    pub(super) fn stop(mut self) -> Result<Duration> {
        self.process.stop(STOP_LIMIT)
    }

    /// What `wg show` says of its only peer.
    fn about_us(&self, what: &str) -> Result<String> {
        let shown = self.wg(&["show", INTERFACE, what])?;
        let value = shown.lines().next().and_then(|line| line.split_whitespace().nth(1));
        value.map(str::to_owned).with_context(|| format!("wg show {what}: {shown}"))
    }

    /// `wg` with this process's view of `/run/wireguard`.
    fn wg(&self, words: &[&str]) -> Result<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.process.pid());
        self.process.host().run(&[&["nsenter", &namespace, "wg"], words].concat())
    }
}
