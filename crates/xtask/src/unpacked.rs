//! Debian packages whose programs tests run, and which must not be installed for that: they would take over the
//! resolver of this machine. They are fetched with whatever they depend on and unpacked into a cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The packages, and what they are for.
pub(crate) const UNPACKED: [(&str, &str); 3] = [
    ("systemd-resolved", "tests of the client's DNS control"),
    ("network-manager", "tests of the client's DNS control"),
    ("openresolv", "tests of the client's DNS control"),
];

/// Where a package is, or would be.
pub(crate) fn place(package: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".cache/adit-lab/unpacked").join(package))
}

/// Unpacks what is not there yet.
pub(crate) fn ensure() -> Result<()> {
    let mut is_fresh = false;
    for (package, _) in UNPACKED {
        let place = place(package)?;
        if place.is_dir() {
            continue;
        }
        if !is_fresh {
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            is_fresh = true;
        }
        println!("unpacking {package} into {}", place.display());
        unpack(package, &place)?;
    }
    Ok(())
}

/// Everything in a directory beside it first, so that an unpacking that was cut off is begun anew.
fn unpack(package: &str, place: &Path) -> Result<()> {
    let partial = place.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let archives = partial.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let root = partial.join("root");
    fs::create_dir_all(&root)?;
    let mut fetch = Command::new("apt-get");
    fetch.args(["install", "-y", "-qq", "--no-install-recommends", "--reinstall", "--download-only", "-o"]);
    fetch.arg(format!("Dir::Cache::archives={}", archives.display())).arg(package);
    run(fetch.env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut found = false;
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
            found = true;
        }
    }
    if !found {
        bail!("apt-get fetched nothing for {package}");
    }
    fs::rename(&root, place)?;
    fs::remove_dir_all(&partial)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}
