//! coturn's client `turnutils_uclient`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::world::Host;

/// It waits whole seconds between its steps.
const LIMIT: Duration = Duration::from_secs(60);

/// A visit of `turnutils_uclient`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) server: SocketAddr,
    pub(crate) secret: &'a str,
    /// Name within the credentials; quotas count per name.
    pub(crate) user: &'a str,
    /// Echo server; without one its sessions talk to each other through the relay.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) sessions: u32,
    pub(crate) messages: u32,
    /// Further arguments.
    pub(crate) flags: &'a [&'a str],
}

/// What it counted, all sessions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Runs the client to its end.
///
/// Always with `-c`: without, it reserves a second port for RTCP, which our relay does not lend.
pub(crate) fn visit(host: &Host, visit: &Visit<'_>) -> Result<Counts> {
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
    let finished = host.finish(&command, LIMIT)?;
    let output = format!("{}{}", finished.stdout, finished.stderr);
    if !finished.success() {
        bail!("`{}` ended with {}: {}", command.join(" "), finished.status, tail(&output));
    }
    counts(&output).with_context(|| format!("`{}`: {}", command.join(" "), tail(&output)))
}

/// Runs `turnutils_natdiscovery`: the addresses that it says the server saw.
///
/// A server with one address says no more (RFC 5780, section 3.2 asks for two); the tool then stops in good order.
pub(crate) fn discover(host: &Host, server: SocketAddr) -> Result<Vec<SocketAddr>> {
    let (port, address) = (server.port().to_string(), server.ip().to_string());
    let command = ["turnutils_natdiscovery", "-m", "-f", "-p", &port, &address];
    let finished = host.finish(&command, LIMIT)?;
    if !finished.success() {
        bail!("`{}` ended with {}: {}", command.join(" "), finished.status, finished.complaint());
    }
    Ok(reflexive(&finished.stdout))
}

fn reflexive(output: &str) -> Vec<SocketAddr> {
    let addresses = output.lines().filter_map(|line| line.split("UDP reflexive addr: ").nth(1));
    addresses.filter_map(|address| address.trim().parse().ok()).collect()
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

    #[test]
    fn reflexive_addresses_are_read() {
        let output = "-= Mapping Behavior Discovery =-\n0: : IPv4. UDP reflexive addr: 203.0.113.1:59532\n\
            0: : IPv4. Local addr: : 0.0.0.0:59532\n";
        assert_eq!(reflexive(output), ["203.0.113.1:59532".parse().unwrap()]);
    }
}
