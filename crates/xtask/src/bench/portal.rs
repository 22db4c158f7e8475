//! The group `portal`: what a portal carries, how fast it decides, and what one node's death costs.

use std::path::Path;
use std::process::Command;

use adit_lab::bench::Bound::{AtLeast, AtMost};
use anyhow::Result;

use super::figure::{Figure, Samples};
use super::report::Report;
use super::speed;
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict};

/// Something to measure in a portal of its own.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// The case of the load generator.
    load: &'static str,
    devices: u32,
    on_postgres: bool,
    /// As long as `--stay` says, and once.
    is_long: bool,
}

/// All of them.
pub(super) const ALL: [Case; 7] = [
    Case {
        name: "portal_idle",
        description: "memory of a portal with 100 devices",
        load: "idle",
        devices: 100,
        on_postgres: false,
        is_long: false,
    },
    Case {
        name: "portal_connected",
        description: "20,000 devices that stay (as long as --stay says)",
        load: "connected",
        devices: 20_000,
        on_postgres: false,
        is_long: true,
    },
    Case {
        name: "portal_sqlite",
        description: "durable authorizations a second, both ends told",
        load: "authorizations",
        devices: 200,
        on_postgres: false,
        is_long: false,
    },
    Case {
        name: "portal_postgres",
        description: "the same on PostgreSQL",
        load: "authorizations",
        devices: 200,
        on_postgres: true,
        is_long: false,
    },
    Case {
        name: "portal_revocation",
        description: "a policy that 1,000 devices rest on is deleted",
        load: "revocation",
        devices: 1_000,
        on_postgres: false,
        is_long: false,
    },
    Case {
        name: "portal_page",
        description: "500 of 10,000 actors, tokens, entries of the audit log",
        load: "page",
        devices: 0,
        on_postgres: false,
        is_long: false,
    },
    Case {
        name: "portal_nodes",
        description: "one of two nodes is killed under load",
        load: "nodes",
        devices: 50,
        on_postgres: true,
        is_long: false,
    },
];

/// Whether there is a case of this name.
pub(super) fn is_case(name: &str) -> bool {
    ALL.iter().any(|case| case.name == name)
}

pub(super) fn run(
    arguments: &BenchArguments,
    workspace: &Workspace,
    cases: &[&'static Case],
    report: &mut Report,
) -> Result<Verdict> {
    workspace.build_portal(&arguments.profile)?;
    let load = workspace.build_example_alone(&arguments.profile, "adit-lab", "portal-load")?;
    let portal = workspace.binaries(&arguments.profile).join("adit-portal");
    let mut samples = Samples::default();
    for case in cases {
        // One long stay is enough; everything else is repeated.
        let rounds = if case.is_long { 1 } else { arguments.rounds };
        for round in 1..=rounds {
            let printed = speed::output(&mut case.command(&load, &portal, arguments, round))?;
            print!("{printed}");
            samples.add(&printed, None)?;
        }
    }
    let figures = cases.iter().flat_map(|case| case.figures());
    let lines: Vec<_> = figures.map(|figure| figure.judge("portal", &samples)).collect();
    report.add(&lines)
}

impl Case {
    fn command(&self, load: &Path, portal: &Path, arguments: &BenchArguments, round: u32) -> Command {
        let seconds = if self.is_long { arguments.stay } else { arguments.seconds };
        let mut command = Command::new(load);
        command.arg(self.load).arg("--portal").arg(portal);
        command.args(["--devices", &self.devices.to_string(), "--seconds", &seconds.to_string()]);
        command.args(["--round", &round.to_string()]);
        command.args(self.on_postgres.then_some("--postgres"));
        command
    }

    fn figures(&self) -> Vec<Figure> {
        let most = |name, unit, most| Figure::new(name, unit).bound(AtMost(most));
        let least = |name, unit, least| Figure::new(name, unit).bound(AtLeast(least));
        match self.name {
            "portal_idle" => vec![most("idle_rss_mib", "MiB", 60.0)],
            "portal_connected" => vec![
                least("connected_devices", "", 20_000.0),
                most("dropped", "", 0.0),
                most("kib_per_device", "KiB", 20.0),
                Figure::new("connected_rss_mib", "MiB"),
                Figure::new("joins_per_s", "1/s"),
            ],
            "portal_sqlite" => vec![
                least("authorizations_per_s_sqlite", "1/s", 1_000.0),
                Figure::new("authorization_p50_ms_sqlite", "ms"),
                Figure::new("authorization_p99_ms_sqlite", "ms"),
            ],
            "portal_postgres" => vec![
                least("authorizations_per_s_postgres", "1/s", 2_000.0),
                Figure::new("authorization_p50_ms_postgres", "ms"),
                Figure::new("authorization_p99_ms_postgres", "ms"),
            ],
            "portal_revocation" => {
                vec![most("revoke_1000_ms", "ms", 1_000.0), Figure::new("revoke_1000_answered_ms", "ms")]
            }
            "portal_page" => vec![most("page_10000_ms", "ms", 200.0)],
            "portal_nodes" => {
                vec![most("lost_authorizations", "", 0.0), most("peers_back_ms", "ms", 5_000.0)]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_judged() {
        for case in &ALL {
            assert!(!case.figures().is_empty(), "{}", case.name);
        }
    }
}
