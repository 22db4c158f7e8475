//! The programs under test, put into a world: where they are found and how they are started there.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Names of all programs, as they are built.
pub const PROGRAMS: [&str; 5] = ["adit-portal", "adit-relay", "adit-gateway", "aditd", "adit"];

/// Directory in which the programs were built.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Programs in `directory`, usually a profile's directory in Cargo's target directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Path of one program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// Directory they are in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fails unless every program is there.
    ///
    /// # Errors
    /// Names those that are missing.
    pub fn require(&self) -> Result<()> {
        let missing: Vec<&str> =
            PROGRAMS.into_iter().filter(|program| !self.path(program).is_file()).collect();
        if !missing.is_empty() {
            bail!("not built: {} (looked in {})", missing.join(", "), self.directory.display());
        }
        Ok(())
    }
}
