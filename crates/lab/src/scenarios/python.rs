//! Programs from PyPI, each set of packages in an environment of its own, installed once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Longest time to fetch and install packages.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// Debian's own, whatever else is installed: its package `python3-venv` is what we make sure of.
const PYTHON: &str = "/usr/bin/python3";

/// Installs packages, each as `name==version`; the directory that holds their programs.
pub(super) fn install(packages: &[&str]) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let directory = Path::new(&home).join(".cache/adit-lab").join(packages.join("-").replace("==", "-"));
    let (programs, is_complete) = (directory.join("bin"), directory.join("complete"));
    if is_complete.is_file() {
        return Ok(programs);
    }
    println!("  installing {}, once", packages.join(" and "));
    let mut make = Command::new(PYTHON);
    make.args(["-m", "venv", "--clear"]).arg(&directory);
    run(make, "python3 -m venv (Debian package python3-venv)")?;
    let mut install = Command::new(programs.join("python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    run(install, "pip install")?;
    // Last, since it says that all is there.
    std::fs::write(&is_complete, "")?;
    Ok(programs)
}

fn run(command: Command, what: &str) -> Result<()> {
    let finished = process::finish(command, INSTALL_LIMIT).with_context(|| what.to_owned())?;
    if !finished.success() {
        bail!("{what}: {}", finished.complaint());
    }
    Ok(())
}
