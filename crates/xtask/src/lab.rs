//! `cargo xtask lab`: scenarios by name, their figures, and how often each passed.

use std::path::PathBuf;

use adit_lab::scenario::{self, Outcome, Plan, Scenario};
use adit_lab::scenarios;
use adit_lab::summary;
use adit_lab::system::{EXAMPLES, Programs};
use adit_lab::world;
use anyhow::Result;

use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{LabArguments, Verdict, packages};

pub(crate) fn run(arguments: &LabArguments) -> Result<Verdict> {
    if arguments.list {
        for scenario in scenarios::ALL {
            println!("{:<22} {}", scenario.name, scenario.description);
        }
        return Ok(Verdict::Good);
    }
    let chosen = match choose(&arguments.scenarios) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("no such scenario: {unknown}; `cargo xtask lab --list` names them");
            return Ok(Verdict::Impossible);
        }
    };
    if !is_possible()? {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    workspace.build_lab_programs(&arguments.profile)?;
    workspace.build_examples(&arguments.profile, &EXAMPLES)?;
    let plan = Plan {
        programs: Programs::new(workspace.binaries(&arguments.profile)),
        runs: arguments.runs,
        log_dir: arguments.log_dir.clone().unwrap_or_else(default_log_dir),
        json: arguments.json.clone(),
    };
    let tally = run_plan(&chosen, &plan)?;
    println!("{tally}");
    Ok(Verdict::from_ok(tally.failed == 0))
}

/// Runs the scenarios, says how often each passed, and counts runs.
pub(crate) fn run_plan(chosen: &[Scenario], plan: &Plan) -> Result<Tally> {
    plan.programs.require()?;
    let outcomes = scenario::run_all(chosen, plan)?;
    // Gone when every run passed; else it holds the logs of those that did not.
    let _ = std::fs::remove_dir(&plan.log_dir);
    println!();
    let mut tally = Tally::default();
    for scenario in chosen {
        let of_this = outcomes.iter().filter(|outcome| outcome.scenario == scenario.name);
        let (passed, failed): (Vec<&Outcome>, Vec<&Outcome>) = of_this.partition(|outcome| outcome.passed());
        println!("{:<22} {} of {} passed", scenario.name, passed.len(), passed.len() + failed.len());
        tally.add(Tally { passed: passed.len() as u64, failed: failed.len() as u64 });
    }
    for figure in summary::of(&outcomes) {
        println!("{figure}");
        if let Some(met) = figure.verdict() {
            tally.add(Tally::one(met));
        }
    }
    Ok(tally)
}

/// Whether namespaces and all packages are there; if not, the reason was printed.
pub(crate) fn is_possible() -> Result<bool> {
    if !world::is_permitted() {
        eprintln!("This needs root, since it makes network namespaces.");
        packages::ensure()?;
        return Ok(false);
    }
    packages::ensure()
}

/// A directory of this run's own.
pub(crate) fn default_log_dir() -> PathBuf {
    std::env::temp_dir().join(format!("adit-lab-logs-{}", std::process::id()))
}

/// The named scenarios, or all; the first unknown name is the error.
fn choose(names: &[String]) -> Result<Vec<Scenario>, String> {
    if names.is_empty() {
        return Ok(scenarios::ALL.to_vec());
    }
    let find = |name: &String| {
        scenarios::ALL.iter().find(|scenario| scenario.name == name).copied().ok_or(name.clone())
    };
    names.iter().map(find).collect()
}
