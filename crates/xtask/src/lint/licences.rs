//! Licences, sources and duplicates of all dependencies, against `deny.toml`.
//!
//! The file is cargo-deny's, and cargo-deny itself is run as well where it is installed; this check needs neither
//! it nor the network, so it runs everywhere. Advisories are cargo-deny's alone.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Findings, spdx};
use crate::workspace::Workspace;

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// Licences allowed for one crate alone.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    registries: Vec<String>,
}

pub(super) fn check(workspace: &Workspace) -> Result<Findings> {
    let path = workspace.workspace_root.join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let deny: Deny = toml::from_str(&text).context("reading deny.toml")?;
    let mut findings = Findings::default();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &workspace.packages {
        let Some(source) = &package.source else {
            continue;
        };
        versions.entry(&package.name).or_default().push(&package.version);
        let of = format!("{} {}", package.name, package.version);
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !deny.sources.registries.iter().any(|allowed| allowed == registry) {
            findings.fail(format!("{of} comes from {source}"));
        }
        let licence = package.license.as_deref().unwrap_or_default();
        if !spdx::is_met(licence, &deny.licenses.allowed_for(&package.name)) {
            findings.fail(format!("{of} has the licence `{licence}`, which deny.toml does not allow"));
        }
    }
    let twice = versions.values().filter(|versions| versions.len() > 1).count();
    findings.note(format!("{} dependencies, {twice} of them in more than one version", versions.len()));
    with_cargo_deny(workspace, &mut findings)?;
    Ok(findings)
}

impl Licenses {
    fn allowed_for(&self, name: &str) -> Vec<String> {
        let exceptions = self.exceptions.iter().filter(|exception| exception.name == name);
        self.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow)).cloned().collect()
    }
}

/// Runs cargo-deny where it is installed; without advisories, whose database needs the network.
fn with_cargo_deny(workspace: &Workspace, findings: &mut Findings) -> Result<()> {
    let mut probe = workspace.cargo_command(&["deny", "--version"]);
    let installed =
        probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !installed {
        findings.note("cargo-deny is not installed: advisories were not looked up");
        return Ok(());
    }
    if !workspace.cargo(&["deny", "--locked", "check", "licenses", "bans", "sources"])? {
        findings.fail("cargo deny check failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_for_one_crate() {
        let text = "[licenses]\nallow = [\"MIT\"]\nexceptions = [{ crate = \"a\", allow = [\"MPL-2.0\"] }]\n\
            [sources]\nallow-registry = []\n";
        let deny: Deny = toml::from_str(text).unwrap();
        assert_eq!(deny.licenses.allowed_for("a"), ["MIT", "MPL-2.0"]);
        assert_eq!(deny.licenses.allowed_for("b"), ["MIT"]);
    }
}
