//! Keys made by WireGuard's own tools, in files of this run.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;
use crate::system::StateDir;

/// Longest wait for a tool that only computes.
const LIMIT: Duration = Duration::from_secs(10);

/// A key pair: the file of the private half, and the public half as text.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    pub(super) private: PathBuf,
    pub(super) public: String,
}

impl KeyPair {
    pub(super) fn generate(state: &StateDir, name: &str) -> Result<Self> {
        let private = wg("genkey", "")?;
        let public = wg("pubkey", &private)?;
        Ok(Self { private: state.write_secret(&format!("{name}.key"), &private)?, public })
    }
}

/// The file of a new preshared key.
pub(super) fn preshared_key(state: &StateDir, name: &str) -> Result<PathBuf> {
    state.write_secret(&format!("{name}.psk"), &wg("genpsk", "")?)
}

fn wg(verb: &str, input: &str) -> Result<String> {
    let mut command = Command::new("wg");
    command.arg(verb).stdin(Stdio::piped());
    let finished = process::finish_with_input(command, input.as_bytes(), LIMIT)?;
    if !finished.success() {
        bail!("wg {verb}: {}", finished.complaint());
    }
    Ok(finished.stdout.trim().to_owned())
}
