//! `cargo xtask sim`: the simulated world, built for speed or for counting what it went through.

use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{SimArguments, Verdict, coverage};

/// Package and binary of the simulated world.
const PACKAGE: &str = "adit-sim";

/// Profile of a plain run: optimized, without the long link.
const PROFILE: &str = "lab";

/// The crates whose coverage is of interest.
const CRATES: [&str; 5] = ["peering", "tunnel", "wireguard", "turn", "dataplane"];

pub(crate) fn run(arguments: &SimArguments) -> Result<Verdict> {
    let workspace = Workspace::read()?;
    if arguments.coverage {
        let passed = coverage::run(&workspace, PACKAGE, &plan(arguments), &CRATES)?;
        return Ok(Verdict::from_ok(passed));
    }
    let build = ["build", "--locked", "--profile", PROFILE, "--package", PACKAGE];
    anyhow::ensure!(workspace.cargo(&build)?, "the simulation does not build");
    let mut command = Command::new(workspace.binaries(PROFILE).join(PACKAGE));
    let status = command.args(plan(arguments)).status().context("starting the simulation")?;
    Ok(Verdict::from_ok(status.success()))
}

/// The arguments as the simulation takes them.
fn plan(arguments: &SimArguments) -> Vec<String> {
    let pairs = [("--seeds", arguments.seeds), ("--minutes", arguments.minutes), ("--seed", arguments.seed)];
    let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
}
