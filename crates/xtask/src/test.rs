//! `cargo xtask test`: everything that needs no special hardware, and one count at the end.
//!
//! Two profiles are built and no more: `dev` for unit and integration tests, `lab` for the programs that the
//! scenarios run (as `release`, but without link-time optimization, which would double the build for figures
//! that only `demo`, `lab` and `bench` are about).

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_lab::scenario::Plan;
use adit_lab::scenarios;
use adit_lab::system::{EXAMPLES, Programs};
use adit_lab::world;
use anyhow::Result;

use crate::tally::{self, Tally};
use crate::workspace::{self, Workspace};
use crate::{TestArguments, Verdict, lab, lint, packages};

/// Profile of the programs under test.
const PROGRAM_PROFILE: &str = "lab";

/// The package of the simulated world.
const SIMULATION: &str = "adit-sim";

pub(crate) fn run(arguments: &TestArguments) -> Result<Verdict> {
    if !packages::ensure()? {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    let mut phases = Phases::default();
    phases.run("lint (without clippy)", || lint::checks(&workspace, true));
    phases.run("unit and integration tests", || tally::run(unit_tests(&workspace)));
    phases.run("simulation", || tally::run(simulation(&workspace)));
    phases.run("documentation tests", || {
        tally::run(workspace.cargo_command(&["test", "--workspace", "--locked", "--doc"]))
    });
    if arguments.no_lab {
        println!("\nscenarios: left out as asked");
    } else if world::is_permitted() {
        phases.run("scenarios", || scenarios(&workspace));
    } else {
        println!("\nscenarios: skipped, since network namespaces need root");
    }
    Ok(phases.close())
}

/// `cargo nextest` runs the tests of all crates side by side; `cargo test` is the fallback.
fn unit_tests(workspace: &Workspace) -> Command {
    let mut probe = workspace.cargo_command(&["nextest", "--version"]);
    let has_nextest =
        probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if has_nextest {
        let quiet = ["--no-fail-fast", "--status-level", "fail", "--final-status-level", "fail"];
        let mut command =
            workspace.cargo_command(&["nextest", "run", "--workspace", "--exclude", SIMULATION, "--locked"]);
        command.args(quiet).args(workspace::xdp());
        command
    } else {
        let mut command = workspace.cargo_command(&[
            "test",
            "--workspace",
            "--exclude",
            SIMULATION,
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
        command.args(workspace::xdp());
        command
    }
}

/// Virtual hours need optimized code: the profile of the programs, whose dependencies are built anyway.
fn simulation(workspace: &Workspace) -> Command {
    let arguments = ["test", "--locked", "--profile", PROGRAM_PROFILE, "--package", SIMULATION, "--tests"];
    workspace.cargo_command(&arguments)
}

fn scenarios(workspace: &Workspace) -> Result<Tally> {
    workspace.build_lab_programs(PROGRAM_PROFILE)?;
    workspace.build_examples(PROGRAM_PROFILE, &EXAMPLES)?;
    let plan = Plan {
        programs: Programs::new(workspace.binaries(PROGRAM_PROFILE)),
        runs: 1,
        log_dir: lab::default_log_dir(),
        json: None,
    };
    lab::run_plan(scenarios::ALL, &plan)
}

/// Phases in order, with their counts and times.
#[derive(Default)]
struct Phases {
    done: Vec<(&'static str, Duration, Tally)>,
}

impl Phases {
    /// Runs one phase; one that cannot run counts as a failure and does not stop the next.
    fn run(&mut self, name: &'static str, phase: impl FnOnce() -> Result<Tally>) {
        println!("\n== {name}");
        let begin = Instant::now();
        let tally = phase().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Tally::one(false)
        });
        self.done.push((name, begin.elapsed(), tally));
    }

    /// Prints the phases and, as the last line, the sum.
    fn close(self) -> Verdict {
        println!();
        let mut sum = Tally::default();
        for (name, took, tally) in self.done {
            println!("{name:<30} {:>6} s   {tally}", took.as_secs());
            sum.add(tally);
        }
        println!("{sum}");
        Verdict::from_ok(sum.failed == 0)
    }
}
