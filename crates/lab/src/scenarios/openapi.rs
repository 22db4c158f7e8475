//! The portal's API held against its own description by schemathesis, which makes requests that the description allows
//! and requests that it forbids.
//!
//! One check is left out: that everything the schemas allow is accepted. A schema cannot say that a name is taken, or that
//! an address is one that Adit itself uses.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::interop::ground::Ground;
use super::python;
use crate::process;
use crate::scenario::{Context, Target};
use crate::system::{Portal, StateDir};

/// From PyPI.
const PACKAGES: [&str; 1] = ["schemathesis==4.32.5"];

/// Seconds in which it must be done.
const LIMIT: u64 = 120;

pub(super) fn run(context: &mut Context) -> Result<()> {
    let programs = python::install(&PACKAGES)?;
    let state = StateDir::create()?;
    let ground = Ground::raise(["portal"], context.log_dir())?;
    let [machine] = &ground.machines;
    let mut portal = Portal::bootstrap(&machine.host, machine.address.v4.into(), &context.programs, &state)?;
    portal.start()?;
    let mut command = machine.host.command(programs.join("schemathesis"));
    command
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", portal.admin_url()))
        .args(["--header", &format!("Authorization: Bearer {}", portal.admin_token())])
        .arg("--tls-verify")
        .arg(portal.ca_file())
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--seed", "1", "--no-color"])
        .args(["--continue-on-failure", "--exclude-checks", "positive_data_acceptance"])
        .args(["--max-time", &LIMIT.to_string()])
        // The portal closes connections that were idle for long, while values are made up for instance: no fault of it.
        .args(["--request-retries", "2"])
        .current_dir(context.log_dir());
    let finished = process::finish(command, Duration::from_secs(LIMIT + 30))?;
    let end: Vec<&str> = finished.stdout.lines().rev().take(400).collect();
    let end: String = end.into_iter().rev().flat_map(|line| [line, "\n"]).collect();
    ensure!(finished.success(), "{end}\n{}", finished.complaint());
    // Its summary has one form when all is well and another when something was found.
    let requests = [" generated", " passed"].iter().find_map(|mark| number_before(&finished.stdout, mark));
    let operations = number_before(&finished.stdout, "/").unwrap_or(0.0);
    context.record("operations", operations, "operations", Target::AtLeast(40.0));
    if let Some(requests) = requests {
        context.record("requests", requests, "requests", Target::Shown);
    }
    portal.stop()?;
    Ok(())
}

/// The number that stands before `mark` in the summary.
fn number_before(text: &str, mark: &str) -> Option<f64> {
    let summary = text.rsplit_once("= SUMMARY =")?.1;
    let before = summary.split_once(mark)?.0;
    before.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}
