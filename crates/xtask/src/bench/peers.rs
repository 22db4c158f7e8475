//! The peers' programs: the newest that the registries have, fetched on first use into a directory of their own.
//!
//! Nothing is installed on the machine. Remove the directory to fetch newer ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::bench::{Implementation, Program};
use anyhow::{Context as _, Result, bail, ensure};

use super::debian;

/// Crates that are built from the registry: package, version, program.
const GOTATUN: (&str, &str, &str) = ("gotatun-cli", "0.10.2", "gotatun");
const BORINGTUN: (&str, &str, &str) = ("boringtun-cli", "0.7.1", "boringtun-cli");

/// Programs of those peers that have one. A peer that cannot be had is named, with the reason, and left out.
pub(super) fn find(peers: &[Implementation]) -> Result<Vec<Program>> {
    let cache = cache_directory()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let mut found = Vec::new();
    for peer in peers {
        match find_one(*peer, &cache) {
            Ok(Some((path, version))) => found.push(Program { implementation: *peer, path, version }),
            Ok(None) => {}
            Err(error) => println!("MISSING: {} cannot be had: {error:#}", peer.name()),
        }
    }
    Ok(found)
}

/// Where fetched programs are kept.
pub(super) fn cache_directory() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/adit-bench"))
}

/// Program and version; `None` for a peer that is built here or has no program.
fn find_one(peer: Implementation, cache: &Path) -> Result<Option<(PathBuf, String)>> {
    match peer {
        Implementation::WireguardGo => wireguard_go(cache).map(Some),
        Implementation::Nebula => {
            let package = debian::unpack("nebula", cache)?;
            Ok(Some((package.program("usr/bin/nebula")?, package.version)))
        }
        Implementation::Gotatun => from_crates(GOTATUN, cache).map(Some),
        Implementation::Boringtun => from_crates(BORINGTUN, cache).map(Some),
        _ => Ok(None),
    }
}

/// Debian's newest, since years lie between it and the one of a stable release.
fn wireguard_go(cache: &Path) -> Result<(PathBuf, String)> {
    let newest = debian::unpack("wireguard-go", cache)
        .and_then(|package| Ok((package.program("usr/bin/wireguard-go")?, package.version)));
    let error = match newest {
        Ok(newest) => return Ok(newest),
        Err(error) => error,
    };
    let version = debian::installed_version("wireguard-go")?;
    println!("NOTE: wireguard-go {version} of this machine is measured and not the newest: {error:#}");
    Ok((PathBuf::from("wireguard-go"), format!("{version} (installed)")))
}

fn from_crates(krate: (&str, &str, &str), cache: &Path) -> Result<(PathBuf, String)> {
    let (package, version, program) = krate;
    let root = cache.join(format!("{package}-{version}"));
    let path = root.join("bin").join(program);
    if !path.is_file() {
        println!("building {package} {version}, once");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["install", "--locked", "--root"]).arg(&root).arg(format!("{package}@{version}"));
        // Outside the workspace, whose settings are none of its business.
        command.current_dir(cache).env("CARGO_TARGET_DIR", cache.join("target"));
        let status = command.status().context("starting cargo")?;
        ensure!(status.success(), "cargo install {package} ended with {status}");
        // Only the program is wanted, and the build is large.
        let _ = std::fs::remove_dir_all(cache.join("target"));
    }
    if !path.is_file() {
        bail!("{package} brings no {program}");
    }
    Ok((path, format!("{version} (crates.io)")))
}
