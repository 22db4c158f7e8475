//! Userspace WireGuard programs that are configured with `wg`.
//!
//! They listen for `wg` on a socket in `/run/wireguard`, which all namespaces share. Here each gets a file system of
//! its own there, so that runs side by side do not meet and nothing is left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{READY_LIMIT, Side, address, sides};
use crate::bench::affinity;
use crate::bench::ground::Ground;
use crate::bench::implementation::Implementation;
use crate::process::{self, Process, Spawn};
use crate::system::StateDir;

/// The program and its arguments follow, as `$0` and so on.
const START: &str = "mkdir -p /run/wireguard && mount -t tmpfs -o mode=0700 wireguard /run/wireguard \
     && exec \"$0\" \"$@\"";

/// Longest wait for a tool that only computes.
const TOOL_LIMIT: Duration = Duration::from_secs(10);

struct Keys {
    private: PathBuf,
    public: String,
}

pub(super) fn start(
    peer: Implementation,
    ground: &Ground,
    program: &Path,
    state: &StateDir,
) -> Result<[Process; 2]> {
    let sides = sides(peer, ground);
    let client_keys = generate(state, &format!("{}-client", peer.name()))?;
    let gateway_keys = generate(state, &format!("{}-gateway", peer.name()))?;
    let [client, gateway] = &sides;
    let ends = [launch(client, peer, program)?, launch(gateway, peer, program)?];
    configure(&ends[0], client, &client_keys, &gateway_keys, "0.0.0.0/0")?;
    configure(&ends[1], gateway, &gateway_keys, &client_keys, &format!("{}/32", client.inner))?;
    address(&sides, peer)?;
    Ok(ends)
}

fn launch(side: &Side<'_>, peer: Implementation, program: &Path) -> Result<Process> {
    let spawn = Spawn::new(peer.name(), "unshare")
        .args(["--mount", "sh", "-c", START])
        .arg(program)
        .args(arguments(peer))
        .arg(&side.interface)
        .env("LOG_LEVEL", "error");
    let mut process = affinity::on(side.processor, || side.host.spawn(&spawn))?;
    let interface = side.interface.clone();
    process.wait_until("an answer to `wg show`", READY_LIMIT, |process| {
        wg(process, &["show", &interface]).is_ok()
    })?;
    Ok(process)
}

const fn arguments(peer: Implementation) -> &'static [&'static str] {
    match peer {
        Implementation::Boringtun => &["--foreground", "--disable-drop-privileges", "--threads", "2"],
        Implementation::Gotatun => &["--foreground", "--disable-drop-privileges", "--verbosity", "error"],
        _ => &["--foreground"],
    }
}

fn configure(process: &Process, side: &Side<'_>, own: &Keys, other: &Keys, allowed: &str) -> Result<()> {
    let (private, port, endpoint) =
        (own.private.to_string_lossy(), side.port.to_string(), side.other.to_string());
    let mut words = vec!["set", &side.interface, "private-key", &private, "listen-port", &port];
    words.extend(["peer", &other.public, "endpoint", &endpoint, "allowed-ips", allowed]);
    wg(process, &words).map(drop)
}

/// `wg` with the program's view of `/run/wireguard`.
fn wg(process: &Process, words: &[&str]) -> Result<String> {
    let namespace = format!("--mount=/proc/{}/ns/mnt", process.pid());
    process.host().run(&[&["nsenter", &namespace, "wg"], words].concat())
}

fn generate(state: &StateDir, name: &str) -> Result<Keys> {
    let private = tool("genkey", "")?;
    let public = tool("pubkey", &private)?;
    Ok(Keys { private: state.write_secret(&format!("{name}.key"), &private)?, public })
}

fn tool(verb: &str, input: &str) -> Result<String> {
    let mut command = Command::new("wg");
    command.arg(verb);
    let finished = process::finish_with_input(command, input.as_bytes(), TOOL_LIMIT)?;
    if !finished.success() {
        bail!("wg {verb}: {}", finished.complaint());
    }
    Ok(finished.stdout.trim().to_owned())
}
