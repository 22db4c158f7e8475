//! `cargo xtask bench pure`: instructions of the hot paths, counted by valgrind and held against a baseline.
//!
//! A count does not depend on what else the machine does, so 3 % more of it is a change of the code, of the compiler or
//! of a library. It is not a time: valgrind shows programs a processor of its own (AVX2, no AVX-512), from whose
//! features the crypto library picks its code, and an instruction that waits for memory counts as one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::bench::{Bound, Line, rounded};
use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::report::Report;
use super::speed::{self, output};
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict, packages};

/// What was counted before, from the workspace's root.
const BASELINE: &str = "crates/dataplane/examples/speed/baseline.toml";

/// How much a count may grow.
const TOLERANCE: f64 = 1.03;

/// A case runs so many times and so many times; the difference is what these runs cost without all preparation.
const RUNS: [u32; 2] = [28, 128];

/// Counts, and what they depend on.
#[derive(Debug, Default, Deserialize, PartialEq)]
struct Counts {
    /// The compiler's version.
    compiler: String,
    /// Valgrind's version.
    valgrind: String,
    /// What libraries see of the processor.
    features: String,
    /// Instructions of one run of each case.
    instructions: BTreeMap<String, u64>,
}

pub(super) fn run(arguments: &BenchArguments, workspace: &Workspace, report: &mut Report) -> Result<Verdict> {
    if !packages::ensure_for_pure()? {
        return Ok(Verdict::Impossible);
    }
    let program = speed::build(arguments, workspace)?;
    let counts = count(&program)?;
    let path = workspace.workspace_root.join(BASELINE);
    if arguments.update_baseline {
        fs::write(&path, counts.to_toml()).with_context(|| format!("writing {}", path.display()))?;
        println!("{BASELINE} is written anew");
    }
    let baseline = Counts::read(&path)?;
    counts.explain(&baseline);
    report.add(&counts.judge(&baseline))
}

/// Counts every case that the program has.
fn count(program: &Path) -> Result<Counts> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let mut counts = Counts {
        compiler: first_line(output(Command::new("rustc").arg("--version"))?),
        valgrind: first_line(output(Command::new("valgrind").arg("--version"))?),
        features: first_line(output(Command::new("valgrind").arg("-q").arg(program).arg("features"))?),
        instructions: BTreeMap::new(),
    };
    for case in output(Command::new(program).arg("cases"))?.lines() {
        let [few, many] = RUNS.map(|runs| instructions(program, case, runs));
        let more_runs = u64::from(RUNS[1] - RUNS[0]);
        let each = (many?.saturating_sub(few?) + more_runs / 2) / more_runs;
        println!("  {case:<20} {each:>12}");
        counts.instructions.insert(case.to_owned(), each);
    }
    Ok(counts)
}

/// Instructions of the whole process.
fn instructions(program: &Path, case: &str, runs: u32) -> Result<u64> {
    let log = std::env::temp_dir().join(format!("adit-bench-{}.valgrind", std::process::id()));
    let log_file = Discarded(log);
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(format!("--log-file={}", log_file.0.display())).arg(program);
    output(command.args(["count", case, &runs.to_string()]))?;
    let printed = fs::read_to_string(&log_file.0).context("reading what valgrind printed")?;
    parse(&printed).with_context(|| format!("valgrind counted nothing:\n{printed}"))
}

/// A file that goes with its name.
struct Discarded(PathBuf);

impl Drop for Discarded {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The line with all instructions: `==12== I   refs:      1,234,567`.
fn parse(printed: &str) -> Option<u64> {
    let (_, rest) = printed.split_once("refs:")?;
    let digits: String = rest.lines().next()?.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl Counts {
    /// What is written down; nothing when there is no such file.
    fn read(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Ok(Self::default());
        }
        toml::from_str(&fs::read_to_string(path)?).with_context(|| format!("reading {}", path.display()))
    }

    fn to_toml(&self) -> String {
        let Self { compiler, valgrind, features, instructions } = self;
        let mut text = format!(
            "# Instructions of one run of each hot path; `cargo xtask bench pure --update-baseline` writes this file.\n\
             # Valgrind shows programs the features below and no others. Libraries choose their code by them: on a\n\
             # processor with more, such as AVX-512, other code of theirs may run.\n\
             compiler = \"{compiler}\"\nvalgrind = \"{valgrind}\"\nfeatures = \"{features}\"\n\n[instructions]\n"
        );
        for (case, count) in instructions {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{case} = {count}");
        }
        text
    }

    /// Prints what makes counts differ without any change of ours, and what the baseline has too much.
    fn explain(&self, baseline: &Self) {
        for (what, now, then) in [
            ("compiler", &self.compiler, &baseline.compiler),
            ("valgrind", &self.valgrind, &baseline.valgrind),
            ("features", &self.features, &baseline.features),
        ] {
            if now != then {
                println!("NOTE: {what}: `{now}` now, `{then}` in the baseline");
            }
        }
        for case in baseline.instructions.keys().filter(|case| !self.instructions.contains_key(*case)) {
            println!("NOTE: the baseline has `{case}`, which is no case any more");
        }
    }

    /// A verdict for each case; a case that the baseline lacks cannot be judged.
    fn judge(&self, baseline: &Self) -> Vec<Line> {
        let bound = Bound::AtMost(TOLERANCE);
        let judge = |(case, count): (&String, &u64)| {
            let before = baseline.instructions.get(case).map(|before| *before as f64);
            let ratio = before.map(|before| *count as f64 / before);
            Line {
                bench: "pure",
                metric: case.clone(),
                value: Some(*count as f64),
                unit: "instr.",
                peer: Some("baseline"),
                peer_value: before,
                ratio: ratio.map(rounded),
                spread: None,
                target: Some(bound.text()),
                ok: ratio.is_some_and(|ratio| bound.is_met(ratio)),
            }
        };
        self.instructions.iter().map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: &[(&str, u64)]) -> Counts {
        let instructions = instructions.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect();
        Counts { compiler: "rustc 1".to_owned(), instructions, ..Counts::default() }
    }

    #[test]
    fn three_percent_more_are_allowed_and_a_new_case_is_not_judged() {
        let now = counts(&[("a", 1_030), ("b", 1_031), ("c", 5), ("d", 1)]);
        let before = counts(&[("a", 1_000), ("b", 1_000), ("d", 2)]);
        let good: Vec<bool> = now.judge(&before).iter().map(|line| line.ok).collect();
        assert_eq!(good, [true, false, false, true]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let now = counts(&[("a", 1_030), ("b", 7)]);
        assert_eq!(toml::from_str::<Counts>(&now.to_toml()).unwrap(), now);
    }

    #[test]
    fn instructions_are_found_in_what_valgrind_prints() {
        let printed = "==9== Cachegrind, a cache and branch-prediction profiler\n==9== \n==9== I   refs:      1,234,567\n";
        assert_eq!(parse(printed), Some(1_234_567));
        assert_eq!(parse("==9== Command: speed\n"), None);
    }
}
