//! `cargo xtask bench profile`: where our programs spend their time under TCP load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::bench::load;
use adit_lab::system::Programs;
use anyhow::{Context as _, Result, bail, ensure};
use inferno::collapse::Collapse as _;
use inferno::collapse::perf::Folder;
use inferno::flamegraph;

use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict};

/// Samples a second: not a round number, so that it does not beat with anything periodic.
const FREQUENCY: &str = "999";

/// What is profiled, and the names of the files.
const PROGRAMS: [&str; 2] = ["client", "gateway"];

/// Symbols in the summary.
const HOTTEST: usize = 40;

pub(super) fn run(arguments: &BenchArguments, workspace: &Workspace) -> Result<Verdict> {
    let Some(out) = &arguments.out else {
        eprintln!("`profile` needs a directory for what it writes: --out DIR");
        return Ok(Verdict::Impossible);
    };
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let out = out.canonicalize()?;
    let programs = Programs::new(workspace.binaries(&arguments.profile));
    programs.require()?;
    let event = event()?;
    let log_dir = arguments.log_dir.clone().unwrap_or_else(super::default_log_dir);
    let record = |pids: load::Pids| record(&pids, arguments.seconds, event, &out);
    let gigabits = load::under_load(&programs, &log_dir, arguments.seconds + 2, record)
        .with_context(|| format!("logs in {}", log_dir.display()))?;
    if arguments.log_dir.is_none() {
        let _ = fs::remove_dir_all(&log_dir);
    }
    let mut summary = format!("{gigabits:.2} Gbit/s while being profiled with `{event}`\n");
    for program in PROGRAMS {
        summary.push_str(&digest(program, &out)?);
    }
    fs::write(out.join("summary.txt"), &summary)?;
    print!("{summary}");
    println!("\nwritten to {}: summary.txt; .perf and .svg of client and gateway", out.display());
    Ok(Verdict::Good)
}

/// What to sample: processor cycles where there is a counter for them, else time.
fn event() -> Result<&'static str> {
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "cycles", "true"]);
    let output = command.output().context("starting perf (Debian package linux-perf)")?;
    let counted =
        output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("<not supported>");
    Ok(if counted { "cycles" } else { "cpu-clock" })
}

/// Records both programs side by side.
fn record(pids: &load::Pids, seconds: u32, event: &str, out: &Path) -> Result<()> {
    let mut running = Vec::new();
    for (program, pid) in PROGRAMS.into_iter().zip([pids.client, pids.gateway]) {
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "-F", FREQUENCY, "-e", event, "--call-graph", "dwarf,8192"]);
        command.arg("-o").arg(data_file(program, out)).args(["-p", &pid.to_string()]);
        command.args(["--", "sleep", &seconds.to_string()]);
        running.push(command.spawn().context("starting perf record")?);
    }
    for mut perf in running {
        let status = perf.wait()?;
        ensure!(status.success(), "perf record ended with {status}");
    }
    Ok(())
}

/// Writes what a profile viewer reads, and returns the hottest symbols as text.
fn digest(program: &str, out: &Path) -> Result<String> {
    let data = data_file(program, out);
    let script = perf(&["script", "--no-inline", "-F", "+pid"], &data)?;
    let graph = flame_graph(program, &script)?;
    fs::write(out.join(format!("{program}.svg")), graph)?;
    fs::write(out.join(format!("{program}.perf")), script)?;
    let report = perf(&["report", "--stdio", "--no-children", "-g", "none", "--sort", "symbol"], &data)?;
    fs::remove_file(&data)?;
    Ok(format!("\n{program}:\n{}", hottest(&report)))
}

/// A picture of the stacks: each box as wide as the time spent in it and above it.
fn flame_graph(program: &str, script: &str) -> Result<Vec<u8>> {
    let mut folded = Vec::new();
    Folder::default().collapse(script.as_bytes(), &mut folded).context("folding stacks")?;
    let mut options = flamegraph::Options::default();
    options.title = format!("{program} under TCP load");
    // What is narrower cannot be seen.
    options.min_width = 0.2;
    let mut graph = Vec::new();
    flamegraph::from_reader(&mut options, folded.as_slice(), &mut graph).context("drawing a flame graph")?;
    Ok(graph)
}

fn data_file(program: &str, out: &Path) -> PathBuf {
    out.join(format!("{program}.data"))
}

fn perf(arguments: &[&str], data: &Path) -> Result<String> {
    let mut command = Command::new("perf");
    command.args(arguments).arg("-i").arg(data);
    let output = command.output().context("starting perf")?;
    if !output.status.success() {
        bail!("perf {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines of a report that hold figures, most first.
fn hottest(report: &str) -> String {
    let lines = report.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    // Columns of events that have no figures are dashes.
    lines.take(HOTTEST).map(|line| format!("  {}\n", line.trim_end_matches(['-', ' ']))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_figures_are_kept() {
        let report = "# To display\n#\n\n    31.20%  [.] chacha20_poly1305_seal  -   -\n     9.10%  [k] copy_user\n\n#\n";
        assert_eq!(hottest(report), "  31.20%  [.] chacha20_poly1305_seal\n  9.10%  [k] copy_user\n");
    }
}
