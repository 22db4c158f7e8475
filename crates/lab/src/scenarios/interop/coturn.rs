//! coturn: its client `turnutils_uclient` and its server `turnserver`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{Process, Spawn};
use crate::topology::Pair;
use crate::world::Host;

/// Its client waits whole seconds between its steps.
const CLIENT_LIMIT: Duration = Duration::from_secs(60);

const READY_LIMIT: Duration = Duration::from_secs(15);

/// A visit of `turnutils_uclient`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit<'a> {
    pub(super) server: SocketAddr,
    pub(super) secret: &'a str,
    /// Name within the credentials; quotas count per name.
    pub(super) user: &'a str,
    /// Echo server; without one its sessions talk to each other through the relay.
    pub(super) peer: Option<SocketAddr>,
    pub(super) sessions: u32,
    pub(super) messages: u32,
    /// Further arguments.
    pub(super) flags: &'a [&'a str],
}

/// What it counted, all sessions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Runs the client to its end.
///
/// Always with `-c`: without, it reserves a second port for RTCP, which our relay does not lend.
pub(super) fn visit(host: &Host, visit: &Visit<'_>) -> Result<Counts> {
    let (port, address) = (visit.server.port().to_string(), visit.server.ip().to_string());
    let (sessions, messages) = (visit.sessions.to_string(), visit.messages.to_string());
    let peer = visit.peer.map(|peer| (peer.ip().to_string(), peer.port().to_string()));
    let mut command = vec!["turnutils_uclient", "-c", "-u", visit.user, "-W", visit.secret, "-p", &port];
    command.extend(["-m", &sessions, "-n", &messages]);
    match &peer {
        Some((address, port)) => command.extend(["-e", address, "-r", port]),
        None => command.push("-y"),
    }
    command.extend(visit.flags);
    command.push(&address);
    let finished = host.finish(&command, CLIENT_LIMIT)?;
    let output = format!("{}{}", finished.stdout, finished.stderr);
    if !finished.success() {
        bail!("`{}` ended with {}: {}", command.join(" "), finished.status, tail(&output));
    }
    counts(&output).with_context(|| format!("`{}`: {}", command.join(" "), tail(&output)))
}

/// The totals of the last line that has them; the lines before are progress.
fn counts(output: &str) -> Option<Counts> {
    let line = output.lines().rfind(|line| line.contains("tot_send_msgs="))?;
    let number = |key: &str| {
        let rest = &line[line.find(key)? + key.len()..];
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Counts { sent: number("tot_send_msgs=")?, received: number("tot_recv_msgs=")? })
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().rev().take(6).collect();
    lines.iter().rev().map(|line| format!("\n    {line}")).collect()
}

/// A running `turnserver` that shares a secret with its users; killed when dropped, for it knows no better end.
#[derive(Debug)]
pub(super) struct TurnServer {
    _process: Process,
}

impl TurnServer {
    pub(super) const PORT: u16 = 3478;

    /// Starts it with its files in `directory`. An allocation has the family of the client's address, since this
    /// server does not know the number that RFC 8656 gave to ADDITIONAL-ADDRESS-FAMILY.
    pub(super) fn start(host: &Host, address: Pair, secret: &str, directory: &Path) -> Result<Self> {
        let database = directory.join("turndb");
        make_database(host, &database)?;
        let mut spawn = Spawn::new("turnserver", "turnserver")
            .args(["-n", "--log-file=stdout", "--simple-log", "-v", "--realm=adit.test", "-A", "keep"])
            .args(["--use-auth-secret", &format!("--static-auth-secret={secret}")])
            .args(["--no-cli", "--no-tcp", "--no-tls", "--no-dtls", "--no-rfc5780", "--no-auth-pings"])
            .args(["--no-dynamic-ip-list", "--no-dynamic-realms"])
            .args(["--listening-port", &Self::PORT.to_string(), "--pidfile"])
            .arg(directory.join("turnserver.pid"))
            .arg("--userdb")
            .arg(database);
        for address in [IpAddr::V4(address.v4), IpAddr::V6(address.v6)] {
            let address = address.to_string();
            spawn = spawn.args(["--listening-ip", &address, "--relay-ip", &address]);
        }
        let mut process = host.spawn(&spawn)?;
        process.wait_for_output("(admin thread)", READY_LIMIT)?;
        Ok(Self { _process: process })
    }
}

/// Makes the tables beforehand: the server's threads would each do it on their first user, and find the database locked.
///
/// The tool logs to `/var/log` whatever it is told, so it gets one of its own.
fn make_database(host: &Host, path: &Path) -> Result<()> {
    let script = "mount -t tmpfs log /var/log && exec turnadmin --list --userdb \"$0\"";
    let path = path.to_string_lossy();
    host.run(&["unshare", "--mount", "sh", "-c", script, &path]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_totals_count() {
        let output = "2: : start_mclient: msz=2, tot_send_msgs=54, tot_recv_msgs=53, tot_send_bytes ~ 9180\n\
            3: : start_mclient: tot_send_msgs=100, tot_recv_msgs=98\n3: : Total transmit time is 3\n";
        assert_eq!(counts(output), Some(Counts { sent: 100, received: 98 }));
        assert_eq!(counts("0: : error 420 ()\n"), None);
    }
}
