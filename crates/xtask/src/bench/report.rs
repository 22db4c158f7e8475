//! Where verdicts go: the screen, and one JSON file for all groups of a run.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use adit_lab::bench::{self, Line};
use anyhow::{Context as _, Result};

use crate::Verdict;

/// Takes the verdicts of one group after the other.
#[derive(Debug)]
pub(super) struct Report {
    file: Option<File>,
}

impl Report {
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn new(json: Option<&Path>) -> Result<Self> {
        Ok(Self { file: json.map(File::create).transpose().context("making the JSON file")? })
    }

    /// Writes and prints the verdicts of a group; whether all are good.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn add(&mut self, lines: &[Line]) -> Result<Verdict> {
        for line in lines {
            let text = serde_json::to_string(line)?;
            println!("{text}");
            if let Some(file) = &mut self.file {
                writeln!(file, "{text}")?;
            }
        }
        println!("\n{}", bench::verdicts(lines));
        Ok(Verdict::from_ok(lines.iter().all(|line| line.ok)))
    }
}
