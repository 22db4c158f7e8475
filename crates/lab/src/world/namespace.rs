//! Named network namespaces: their names, their removal, and the sweep of those that a killed run left behind.
//!
//! A name carries its owner: `adit-<pid>-<start time of that pid>-<world>-<host>`. No state file is needed to
//! tell a live run from a dead one, two runs can go side by side, and a reused pid is not mistaken for the
//! owner because its start time differs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Namespaces made by this process and not yet removed, for the Ctrl-C handler and the teardown.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "adit-";

/// Prefix that marks everything made by this process.
pub(crate) fn own_prefix() -> Result<String> {
    let pid = std::process::id();
    let start = start_time(pid).context("reading the start time of this process")?;
    Ok(format!("{PREFIX}{pid}-{start}-"))
}

/// Creates a namespace with its loopback up and IPv6 duplicate address detection off.
pub(crate) fn create(name: &str) -> Result<()> {
    ip(&["netns", "add", name])?;
    live().insert(name.to_owned());
    ip(&["-n", name, "link", "set", "lo", "up"])
}

/// Removes a namespace, everything that runs in it, and its files; a missing one is fine.
pub(crate) fn remove(name: &str) {
    end_processes(name);
    // The name may already be gone; there is nobody to tell during teardown.
    let _ = ip(&["netns", "delete", name]);
    let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
    live().remove(name);
}

/// Removes every namespace this process still owns, and its state directories.
pub(crate) fn remove_all_own() {
    let names: Vec<String> = live().iter().cloned().collect();
    for name in names {
        remove(&name);
    }
    if let Ok(prefix) = own_prefix() {
        remove_state(|name| name.starts_with(&prefix));
    }
}

/// Removes state directories, which hold secrets of programs under test.
fn remove_state(chosen: impl Fn(&str) -> bool) {
    let directory = std::env::temp_dir();
    for name in entries(&directory).filter(|name| chosen(name)) {
        // What cannot be removed is not ours, or is being removed by its owner.
        let _ = std::fs::remove_dir_all(directory.join(name));
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).ok().into_iter().flatten();
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// Names of the namespaces this process still owns.
pub fn owned() -> Vec<String> {
    live().iter().cloned().collect()
}

/// Removes what runs whose process is gone left behind, and returns the names removed.
pub fn sweep_stale() -> Vec<String> {
    let mut removed = Vec::new();
    for directory in [DIRECTORY, "/etc/netns"] {
        for name in entries(Path::new(directory)).filter(|name| is_stale(name)) {
            remove(&name);
            removed.push(name);
        }
    }
    remove_state(is_stale);
    removed
}

/// A name of ours whose owner no longer lives; foreign and unreadable names are left alone.
fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let mut parts = rest.splitn(3, '-');
    let owner = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    let start = parts.next().and_then(|start| start.parse::<u64>().ok());
    match (owner, start, parts.next()) {
        (Some(pid), Some(start), Some(_)) => start_time(pid) != Some(start),
        _ => false,
    }
}

/// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to the start of the process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may hold spaces; fields are counted after the last one.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Kills what runs inside, by pid; twice, since a dying process may just have started another.
fn end_processes(name: &str) {
    for _ in 0..2 {
        let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else {
            return;
        };
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        let own = Pid::this();
        let pids: Vec<Pid> = listing
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
            .filter(|pid| *pid != own)
            .collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // It may have ended by itself in the meantime.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Runs `ip` with these arguments in the namespace of this process.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("starting `ip` (Debian package iproute2)")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), error.trim());
    }
    Ok(())
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_live_owner_is_not_stale() {
        let own = own_prefix().unwrap();
        assert!(!is_stale(&format!("{own}0-client")));
    }

    #[test]
    fn a_reused_pid_does_not_protect_a_stale_name() {
        let pid = std::process::id();
        let start = start_time(pid).unwrap();
        assert!(is_stale(&format!("adit-{pid}-{}-0-client", start + 1)));
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in ["blue", "adit-", "adit-x-1-0-a", "adit-1", "adit-4194304-7"] {
            assert!(!is_stale(name), "{name}");
        }
    }
}
