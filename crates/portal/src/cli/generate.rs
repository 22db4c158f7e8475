//! What is made from the definition of the command line: completions and manual pages.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap_complete::Shell;

/// Writes the manual pages of the program and its commands.
pub(super) fn manual(directory: &Path, command: clap::Command) -> ExitCode {
    ended(write_manual(directory, command))
}

fn write_manual(directory: &Path, command: clap::Command) -> Result<()> {
    let failed = || format!("cannot write to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(command, directory).with_context(failed)
}

/// Writes a completion script to standard output.
pub(super) fn completion(shell: Shell, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "adit-portal", &mut script);
    ended(std::io::stdout().write_all(&script).context("cannot print the script"))
}

fn ended(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::run::failed(&error),
    }
}
