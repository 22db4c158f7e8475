//! Which crate may depend on which.
//!
//! The table names direct dependencies; whoever may depend on a crate may also name what that crate may depend
//! on. So the shells between a program and the pure crates need not be repeated, while `client-gui`, which sees
//! `client-ipc` alone, stays behind its border.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::workspace::{Package, Workspace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Pure,
    Shell,
    Program,
    Development,
}

/// Crate (without `adit-`), layer, and what it may depend on.
const TABLE: &[(&str, Layer, &[&str])] = &[
    ("packet", Layer::Pure, &[]),
    ("policy", Layer::Pure, &[]),
    ("protocol", Layer::Pure, &["policy"]),
    ("turn", Layer::Pure, &[]),
    ("wireguard", Layer::Pure, &[]),
    ("dns", Layer::Pure, &["packet"]),
    ("dataplane", Layer::Pure, &["packet", "wireguard"]),
    ("peering", Layer::Pure, &["turn", "wireguard", "protocol"]),
    (
        "tunnel",
        Layer::Pure,
        &["packet", "policy", "protocol", "turn", "wireguard", "dns", "dataplane", "peering"],
    ),
    ("platform", Layer::Shell, &["packet"]),
    ("control-client", Layer::Shell, &["protocol"]),
    ("telemetry", Layer::Shell, &[]),
    ("relay-xdp", Layer::Shell, &[]),
    ("engine", Layer::Shell, &["tunnel", "dataplane", "platform", "control-client"]),
    ("client-ipc", Layer::Program, &[]),
    ("client", Layer::Program, &["engine", "client-ipc", "telemetry"]),
    ("client-gui", Layer::Program, &["client-ipc"]),
    ("gateway", Layer::Program, &["engine", "telemetry"]),
    ("relay", Layer::Program, &["turn", "platform", "control-client", "telemetry", "relay-xdp"]),
    ("portal", Layer::Program, &["protocol", "policy", "telemetry"]),
    ("sim", Layer::Development, &["tunnel", "telemetry"]),
    ("lab", Layer::Development, &[]),
    ("xtask", Layer::Development, &["lab"]),
];

/// Dependencies that bring IO, clocks or ambient randomness and so have no place in a pure crate.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "nix",
    "libc",
    "rustix",
    "quinn-udp",
    "rtnetlink",
    "reqwest",
    "axum",
    "sqlx",
    "getrandom",
    "fastrand",
    "tempfile",
    "crossbeam-channel",
    "jiff",
    "chrono",
    "time",
];

/// Who may use one of these all the same: `policy` needs a calendar with time zones, which it takes from the database that
/// is built in and asks about moments that it is told.
const EXCEPTIONS: &[(&str, &str)] = &[("policy", "jiff")];

/// Crates of the pure layer, without `adit-`.
pub(super) fn pure() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, layer, _)| *layer == Layer::Pure).map(|(name, ..)| *name)
}

pub(super) fn check(workspace: &Workspace) -> Findings {
    let mut findings = Findings::default();
    for package in workspace.own() {
        check_package(package, &mut findings);
    }
    findings
}

fn check_package(package: &Package, findings: &mut Findings) {
    let name = short(&package.name);
    let Some((_, layer, _)) = TABLE.iter().find(|(known, ..)| *known == name) else {
        return findings.fail(format!("{name}: not in the layer table; say in which layer it belongs"));
    };
    let allowed = reachable(name);
    for dependency in &package.dependencies {
        let is_dev = dependency.kind.as_deref() == Some("dev");
        let on = short(&dependency.name);
        if dependency.name.starts_with("adit-") {
            let fine = if is_dev { may_test_with(name, on) } else { allowed.contains(on) };
            if !fine {
                findings.fail(format!("{name} may not depend on {on}"));
            }
        } else if *layer == Layer::Pure
            && !is_dev
            && IMPURE.contains(&on)
            && !EXCEPTIONS.contains(&(name, on))
        {
            findings.fail(format!("{name} is pure and may not depend on {on}"));
        }
    }
}

/// Tests may use any crate but programs and development crates, which would turn the arrows around.
fn may_test_with(name: &str, on: &str) -> bool {
    let layer = |name: &str| TABLE.iter().find(|(known, ..)| *known == name).map(|(_, layer, _)| *layer);
    match layer(on) {
        Some(Layer::Pure | Layer::Shell) => true,
        Some(Layer::Program) => layer(name) == Some(Layer::Program) && reachable(name).contains(on),
        Some(Layer::Development) | None => false,
    }
}

fn reachable(name: &str) -> BTreeSet<&'static str> {
    let table: BTreeMap<_, _> = TABLE.iter().map(|(name, _, on)| (*name, *on)).collect();
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = table.get(name).copied().unwrap_or_default().to_vec();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(table.get(next).copied().unwrap_or_default());
        }
    }
    found
}

fn short(name: &str) -> &str {
    name.strip_prefix("adit-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn findings(name: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        let package = Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            manifest_path: "/nowhere/Cargo.toml".into(),
            dependencies: dependencies.iter().map(dependency).collect(),
        };
        let mut findings = Findings::default();
        check_package(&package, &mut findings);
        findings.failures
    }

    #[test]
    fn arrows_upward_are_fine() {
        assert!(
            findings("adit-client", &[("adit-engine", None), ("adit-policy", None), ("tokio", None)])
                .is_empty()
        );
        assert!(
            findings("adit-tunnel", &[("adit-packet", None), ("rand", None), ("tokio", Some("dev"))])
                .is_empty()
        );
    }

    #[test]
    fn borders_hold() {
        for (name, on) in [
            ("adit-portal", "adit-tunnel"),
            ("adit-portal", "adit-platform"),
            ("adit-gateway", "adit-portal"),
            ("adit-client-gui", "adit-engine"),
            ("adit-relay", "adit-gateway"),
            ("adit-platform", "adit-engine"),
            ("adit-turn", "tokio"),
            ("adit-packet", "adit-platform"),
            ("adit-client", "adit-lab"),
            ("adit-novelty", "anyhow"),
        ] {
            assert_eq!(findings(name, &[(on, None)]).len(), 1, "{name} on {on}");
        }
        assert_eq!(findings("adit-tunnel", &[("adit-lab", Some("dev"))]).len(), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        for (name, ..) in TABLE {
            assert!(!reachable(name).contains(name), "{name}");
        }
    }
}
