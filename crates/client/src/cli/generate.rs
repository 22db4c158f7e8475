//! What is made from the definition of the command line: completions and manual pages.

use std::path::Path;

use anyhow::Context as _;

use super::exit::Failure;

/// Writes the manual pages of a program and its commands.
pub(super) fn manual(directory: &Path, command: clap::Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("cannot write to {}", directory.display()))
}

/// Writes a completion script to standard output.
pub(super) fn completion(shell: clap_complete::Shell, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "adit", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
