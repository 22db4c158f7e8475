//! Our side: the example `turn-client`, and its report.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::turn_servers::Transport;
use crate::process;
use crate::system::Programs;
use crate::world::Host;

const LIMIT: Duration = Duration::from_secs(60);

/// One visit to a TURN server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit<'a> {
    pub(super) server: SocketAddr,
    pub(super) secret: &'a str,
    /// Echo server.
    pub(super) peer: SocketAddr,
    /// `channel` or `indication`.
    pub(super) framing: &'a str,
    pub(super) datagrams: u32,
    pub(super) transport: Transport,
    /// The certificate of whoever signed the server's.
    pub(super) ca: &'a Path,
}

/// What it counted.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Report {
    pub(super) failure: Option<String>,
    pub(super) mapped: Option<SocketAddr>,
    pub(super) relayed: Vec<SocketAddr>,
    pub(super) allocate_ms: Option<f64>,
    pub(super) open_ms: Option<f64>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) corrupt: u64,
    pub(super) round_trip_ms: Option<f64>,
    /// Codes of error responses.
    pub(super) errors: Vec<u16>,
    pub(super) refreshed: bool,
    pub(super) deleted: bool,
    /// Datagrams that came through the deleted allocation.
    pub(super) after_deletion: u64,
    pub(super) wrong_integrity: u64,
    pub(super) garbage: u64,
}

impl Report {
    /// Everything but the count of datagrams is as it must be.
    pub(super) fn require_sound(&self, visit: &Visit<'_>) -> Result<()> {
        let families = [visit.server, visit.peer].map(|address| address.is_ipv4());
        let is_of_family =
            |address: Option<&SocketAddr>, is_v4| address.is_some_and(|a| a.is_ipv4() == is_v4);
        ensure!(self.failure.is_none() && self.refreshed && self.deleted, "{self:?}");
        // An address of TCP is none that peers could reach.
        let maps = visit.transport == Transport::Udp;
        ensure!(!maps || is_of_family(self.mapped.as_ref(), families[0]), "{self:?}");
        ensure!(maps || self.mapped.is_none(), "{self:?}");
        ensure!(is_of_family(self.relayed.first(), families[1]), "{self:?}");
        // The first request carries no credentials, since the realm is not known yet.
        ensure!(self.errors == [401], "{self:?}");
        ensure!(self.sent == u64::from(visit.datagrams), "{self:?}");
        ensure!([self.duplicates, self.corrupt, self.after_deletion] == [0; 3], "{self:?}");
        ensure!([self.wrong_integrity, self.garbage] == [0; 2], "{self:?}");
        Ok(())
    }
}

/// Runs it to its end; a visit that failed has a report too.
pub(super) fn visit(host: &Host, programs: &Programs, visit: &Visit<'_>) -> Result<Report> {
    let mut command = host.command(programs.example("turn-client"));
    command
        .args(["--server", &visit.server.to_string(), "--secret", visit.secret])
        .args(["--peer", &visit.peer.to_string(), "--framing", visit.framing])
        .args(["--transport", &visit.transport.name().to_lowercase(), "--ca"])
        .arg(visit.ca)
        .args(["--count", &visit.datagrams.to_string(), "--sizes", "8,9,100,1200"]);
    let finished = process::finish(command, LIMIT)?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("turn-client: {}", finished.complaint()))
}
