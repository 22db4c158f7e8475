//! Which code a program went through: LLVM's source-based coverage, counted per crate.
//!
//! The workspace's own crates are compiled with counters (`-C instrument-coverage`), their dependencies are
//! not: cargo calls this very program as the compiler's wrapper, and it adds the flag. The profile that the
//! program leaves behind is read here, so that no LLVM tools need to be installed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use llvm_profparser::{CoverageMapping, CoverageReport, merge_profiles};

use crate::workspace::Workspace;

/// Set where cargo calls us as the compiler's wrapper.
const WRAPPING: &str = "ADIT_XTASK_INSTRUMENT";

/// Instrumented builds go here, below the target directory, so that they do not disturb others.
const DIRECTORY: &str = "coverage";

/// Regions of code, and how many of them were entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Regions {
    entered: usize,
    all: usize,
}

/// The compiler's command line, when cargo calls us as its wrapper.
pub(crate) fn compiler_to_wrap() -> Option<Vec<OsString>> {
    std::env::var_os(WRAPPING)?;
    Some(std::env::args_os().skip(1).collect())
}

/// Runs the compiler with counters switched on.
pub(crate) fn compile(command_line: Vec<OsString>) -> ExitCode {
    let mut words = command_line.into_iter();
    let Some(compiler) = words.next() else { return ExitCode::FAILURE };
    let status = Command::new(compiler).args(words).args(["-C", "instrument-coverage"]).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start the compiler: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds `package` with counters, runs its program, and prints what it went through in `crates`.
pub(crate) fn run(
    workspace: &Workspace,
    package: &str,
    arguments: &[String],
    crates: &[&str],
) -> Result<bool> {
    let target = workspace.target_directory.join(DIRECTORY);
    let program = build(workspace, package, &target)?;
    let profile = target.join(format!("{package}.profraw"));
    let status = Command::new(&program)
        .args(arguments)
        .env("LLVM_PROFILE_FILE", &profile)
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    let profiles = merge_profiles(&[&profile]).context("reading the profile")?;
    let programs = [program];
    let mapping = CoverageMapping::new(&programs, &profiles, true).context("reading the coverage map")?;
    let report = mapping.generate_report().context("matching profile and map")?;
    for (name, regions) in by_crate(&report, &workspace.workspace_root, crates) {
        let share = 100.0 * regions.entered as f64 / regions.all.max(1) as f64;
        println!("coverage of {name:<12} {share:>5.1} %  ({} of {} regions)", regions.entered, regions.all);
    }
    Ok(status.success())
}

fn build(workspace: &Workspace, package: &str, target: &Path) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut command =
        workspace.cargo_command(&["build", "--locked", "--profile", "lab", "--package", package]);
    command.env("RUSTC_WORKSPACE_WRAPPER", own).env(WRAPPING, "1").env("CARGO_TARGET_DIR", target);
    ensure!(command.status().context("starting cargo")?.success(), "{package} does not build");
    let program = target.join("lab").join(package);
    if !program.exists() {
        bail!("{} was not built", program.display());
    }
    Ok(program)
}

/// Sums the regions below `crates/<name>/src`; a crate that is not in the report counts as zero.
fn by_crate(report: &CoverageReport, root: &Path, crates: &[&str]) -> BTreeMap<String, Regions> {
    let mut sums: BTreeMap<String, Regions> =
        crates.iter().map(|name| ((*name).to_owned(), Regions::default())).collect();
    for (path, file) in &report.files {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let mut parts = relative.iter().filter_map(|part| part.to_str());
        let (Some("crates"), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if let Some(sum) = sums.get_mut(name) {
            sum.all += file.hits.len();
            sum.entered += file.hits.values().filter(|count| **count > 0).count();
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use llvm_profparser::coverage::SourceLocation;
    use llvm_profparser::coverage::reporting::CoverageResult;

    use super::*;

    fn file(counts: &[usize]) -> CoverageResult {
        let mut file = CoverageResult::default();
        for (line, count) in counts.iter().enumerate() {
            let location =
                SourceLocation { line_start: line, line_end: line, column_start: 1, column_end: 2 };
            file.insert("f", location, *count);
        }
        file
    }

    #[test]
    fn regions_are_summed_per_crate_and_tests_do_not_count() {
        let mut report = CoverageReport::default();
        for (path, counts) in [
            ("/w/crates/turn/src/lib.rs", &[0, 3, 1][..]),
            ("/w/crates/turn/src/client/a.rs", &[0]),
            ("/w/crates/turn/tests/a.rs", &[9, 9]),
            ("/elsewhere/crates/turn/src/lib.rs", &[1]),
        ] {
            report.files.insert(path.into(), file(counts));
        }
        let sums = by_crate(&report, Path::new("/w"), &["turn", "tunnel"]);
        assert_eq!(sums["turn"], Regions { entered: 2, all: 4 });
        assert_eq!(sums["tunnel"], Regions::default());
    }
}
