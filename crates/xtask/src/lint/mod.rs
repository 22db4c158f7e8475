//! `cargo xtask lint`: what the architecture promises, checked.

mod layers;
mod licences;
mod machine_paths;
mod names;
mod purity;
mod sizes;
mod source;
mod spdx;

use anyhow::Result;

use crate::tally::Tally;
use crate::workspace::{self, Workspace};
use crate::{LintArguments, Verdict};

/// What a check found.
#[derive(Debug, Default)]
struct Findings {
    /// Each of these fails the check.
    failures: Vec<String>,
    /// Printed, and nothing more.
    notes: Vec<String>,
}

impl Findings {
    fn fail(&mut self, text: impl Into<String>) {
        self.failures.push(text.into());
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

pub(crate) fn run(arguments: &LintArguments) -> Result<Verdict> {
    let tally = checks(&Workspace::read()?, arguments.fast)?;
    println!("{tally}");
    Ok(Verdict::from_ok(tally.failed == 0))
}

/// Runs every check, printing what it found; `fast` leaves out clippy.
pub(crate) fn checks(workspace: &Workspace, fast: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut report = |name: &str, findings: Findings| {
        let ok = findings.failures.is_empty();
        println!("{:<4} {name}", if ok { "ok" } else { "FAIL" });
        for line in findings.failures.iter().chain(&findings.notes) {
            println!("       {line}");
        }
        tally.add(Tally::one(ok));
    };
    report("layers", layers::check(workspace));
    report("purity", purity::check(workspace)?);
    report("names", names::check(workspace)?);
    report("sizes", sizes::check(workspace)?);
    report("dependencies and licences", licences::check(workspace)?);
    report("machine paths", machine_paths::check(workspace)?);
    report("format", by_cargo(workspace, &["fmt", "--all", "--", "--check"])?);
    if !fast {
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked"];
        let strict = ["--", "-D", "warnings"];
        report("clippy", by_cargo(workspace, &[&clippy[..], &strict].concat())?);
        if !workspace::xdp().is_empty() {
            // The rest was checked; only the relay differs.
            let relay = [
                "clippy",
                "--all-targets",
                "--locked",
                "--package",
                "adit-relay",
                "--package",
                "adit-relay-xdp",
            ];
            report(
                "clippy with XDP",
                by_cargo(workspace, &[&relay[..], workspace::xdp(), &strict].concat())?,
            );
        }
    }
    Ok(tally)
}

/// A check that cargo makes, with its own output above ours.
fn by_cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Findings> {
    let mut findings = Findings::default();
    if !workspace.cargo(arguments)? {
        findings.fail(format!("cargo {} failed", arguments.join(" ")));
    }
    Ok(findings)
}
