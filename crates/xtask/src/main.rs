//! Developer commands: `cargo xtask demo · test · lab · bench · sim · fuzz · lint · package · package-test · size · packages`.
//!
//! Exit status: 0 when everything asked for is in order, 1 when something failed, 2 when it could not be tried
//! (wrong usage, missing packages, missing rights).

mod bench;
mod coverage;
mod demo;
mod fuzz;
mod lab;
mod lint;
mod package;
mod packages;
mod sim;
mod size;
mod tally;
mod test;
mod unpacked;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Developer commands of Adit.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole system at work, step by step, in network namespaces. Needs root.
    Demo(DemoArguments),
    /// Run everything that can be tested on this machine.
    Test(TestArguments),
    /// Run scenarios with real kernels and real programs. Needs root.
    Lab(LabArguments),
    /// Measure our tunnel against others over the same wire, or profile it (both need root); measure the pure code.
    Bench(BenchArguments),
    /// Search for orders of events that strand somebody, in a simulated world.
    Sim(SimArguments),
    /// Feed parsers and machines with whatever a fuzzer thinks of. Needs a nightly compiler and cargo-fuzz.
    Fuzz(FuzzArguments),
    /// Check format, clippy, layer rules, sizes, dependencies and licences.
    Lint(LintArguments),
    /// Make what users install: deb, rpm, an archive, a bill of materials, checksums.
    Package(PackageArguments),
    /// Install, start, upgrade, crash, remove and purge the packages, on a machine that is thrown away. Needs root.
    PackageTest(PackageTestArguments),
    /// Print the size of each release binary.
    Size(SizeArguments),
    /// List the Debian packages that these commands need, or install them.
    Packages(PackagesArguments),
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Write the steps and their times to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the system running at the end until Ctrl-C, and say how to use it.
    #[arg(long)]
    keep: bool,
    /// Keep all logs in this directory.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TestArguments {
    /// Leave out the scenarios.
    #[arg(long)]
    no_lab: bool,
}

#[derive(Debug, Args)]
struct LabArguments {
    /// Scenarios to run; all of them when none is named.
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Run each scenario this many times.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    runs: u32,
    /// Write each figure as a JSON line to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only list the scenarios.
    #[arg(long)]
    list: bool,
    /// Directory for logs; those of runs that pass are removed.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Build profile of the programs.
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

#[derive(Debug, Default, Args)]
struct BenchArguments {
    /// Groups to run; `--list` names them.
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Measure everything this many times.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    rounds: u32,
    /// Length of one throughput measurement, and of a profile.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60), value_name = "S")]
    seconds: u32,
    /// How long many devices stay connected to a portal.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "S")]
    stay: u32,
    /// Run these cases alone.
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    cases: Vec<String>,
    /// Measure against these peers alone.
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    peers: Vec<String>,
    /// Write each verdict as a JSON line to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only list groups, cases and peers.
    #[arg(long)]
    list: bool,
    /// Keep the logs of all programs in this directory.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Directory for profiles.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Let `pure` write down what it counts, as what later runs are held against.
    #[arg(long)]
    update_baseline: bool,
    /// Build profile of the programs.
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

#[derive(Debug, Args)]
struct SimArguments {
    /// Worlds to run, each from a seed of its own.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Stop after this many minutes at the latest.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Run this seed alone, and show what happens.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Also print how much of the protocol crates the worlds went through.
    #[arg(long)]
    coverage: bool,
}

#[derive(Debug, Args)]
struct LintArguments {
    /// Leave out clippy, which has to build.
    #[arg(long)]
    fast: bool,
}

#[derive(Debug, Args)]
struct FuzzArguments {
    /// The targets; all if none is named.
    targets: Vec<String>,
    /// Time for each of them.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Only list the targets.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct SizeArguments {
    /// Write the sizes to this file as JSON lines.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PackageArguments {
    /// Directory for what is made; emptied first [default: `packages` in the target directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build profile of the programs.
    #[arg(long, default_value = "release", value_name = "PROFILE")]
    profile: String,
}

#[derive(Debug, Args)]
struct PackageTestArguments {
    /// Build profile of the programs.
    #[arg(long, default_value = "lab", value_name = "PROFILE")]
    profile: String,
}

#[derive(Debug, Args)]
struct PackagesArguments {
    /// Install those that are missing; needs root.
    #[arg(long)]
    install: bool,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Failed,
    /// Not tried, for a reason that was printed.
    Impossible,
}

impl Verdict {
    const fn from_ok(ok: bool) -> Self {
        if ok { Self::Good } else { Self::Failed }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::Failed => Self::FAILURE,
            Verdict::Impossible => Self::from(2),
        }
    }
}

fn main() -> ExitCode {
    if let Some(compiler) = coverage::compiler_to_wrap() {
        return coverage::compile(compiler);
    }
    match run(Arguments::parse().command) {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Verdict::Failed.into()
        }
    }
}

fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::PackageTest(arguments) => package::lifecycle::run(&arguments),
        Command::Size(arguments) => size::run(&arguments),
        Command::Packages(arguments) => packages::run(&arguments),
    }
}
