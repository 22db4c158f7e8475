//! `cargo xtask bench relay`: our relay against coturn and against the bare way through a relay.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use adit_lab::bench::Bound::{AtLeast, AtMost};
use adit_lab::bench::relay::{self, Case, Contestant, Coturns, GENERATOR, Plan, ROD, Sample};
use adit_lab::bench::{Line, median};
use adit_lab::coturn::Build;
use adit_lab::system::Programs;
use anyhow::{Context as _, Result};

use super::figure::{Figure, Samples};
use super::relay_programs::{self, Measured};
use super::report::Report;
use super::{debian, default_log_dir, peers};
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict};

/// The package of the relay that everybody knows.
const COTURN: &str = "coturn";

/// A mebibyte.
const MIB: f64 = 1_048_576.0;

/// What shall be measured, and among whom.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) cases: Vec<Case>,
    pub(super) programs: Vec<&'static Measured>,
    pub(super) peers: Vec<Contestant>,
}

/// Whether there is a case of this name.
pub(super) fn is_case(name: &str) -> bool {
    relay::ALL.iter().any(|case| case.name == name)
        || relay_programs::ALL.iter().any(|measured| measured.case == name)
}

pub(super) fn run(
    arguments: &BenchArguments,
    workspace: &Workspace,
    chosen: &Chosen,
    report: &mut Report,
) -> Result<Verdict> {
    let mut samples = Samples::default();
    relay_programs::measure(&chosen.programs, arguments, workspace, &mut samples)?;
    if !chosen.cases.is_empty() {
        race(arguments, workspace, chosen, &mut samples)?;
    }
    report.add(&judge(&samples, chosen))
}

/// Everything that needs a world.
fn race(
    arguments: &BenchArguments,
    workspace: &Workspace,
    chosen: &Chosen,
    samples: &mut Samples,
) -> Result<()> {
    workspace.build_relay(&arguments.profile, &[ROD, GENERATOR])?;
    let plan = Plan {
        programs: Programs::new(workspace.binaries(&arguments.profile)),
        coturns: find_coturns(&chosen.peers),
        peers: chosen.peers.clone(),
        cases: chosen.cases.clone(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        log_dir: arguments.log_dir.clone().unwrap_or_else(default_log_dir),
    };
    let measured = relay::run(&plan).with_context(|| format!("logs in {}", plan.log_dir.display()))?;
    if arguments.log_dir.is_none() {
        // Logs are for whoever asks for them, and for a run that failed.
        let _ = std::fs::remove_dir_all(&plan.log_dir);
    }
    println!("\n{}", medians(&measured));
    println!("{} rounds, loads of {} s, half of each each way", plan.rounds, plan.seconds);
    for build in [&plan.coturns.installed, &plan.coturns.newest].into_iter().flatten() {
        println!("coturn         {}", build.version);
    }
    for Sample { figure, whose, round, value } in &measured {
        samples.push(figure, whose.name(), *round, *value);
    }
    Ok(())
}

/// This machine's coturn, and the newest, fetched on first use. What cannot be had is named and left out.
fn find_coturns(peers: &[Contestant]) -> Coturns {
    let found = |name: &str, build: Result<Build>| match build {
        Ok(build) => Some(build),
        Err(error) => {
            println!("MISSING: {name} cannot be had: {error:#}");
            None
        }
    };
    let wanted = |contestant: Contestant| peers.contains(&contestant);
    Coturns {
        installed: wanted(Contestant::Coturn).then(installed).and_then(|build| found("coturn", build)),
        newest: wanted(Contestant::CoturnGso)
            .then(newest)
            .and_then(|build| found("the newest coturn", build)),
    }
}

fn installed() -> Result<Build> {
    let version = debian::installed_version(COTURN)?;
    Ok(Build::installed(format!("{version} (installed)")))
}

fn newest() -> Result<Build> {
    let cache = peers::cache_directory()?;
    let package = debian::unpack_with_libraries(COTURN, Path::new(&cache))?;
    let launcher = package.launcher("usr/bin/turnserver")?;
    let version = format!("{}, --multiplex-peer --udp-gso", package.version);
    Ok(Build { launcher, is_recent: true, version })
}

/// Holds what was measured against the targets.
fn judge(samples: &Samples, chosen: &Chosen) -> Vec<Line> {
    let takes_part = |name: &str| chosen.peers.iter().any(|peer| peer.name() == name);
    let of_programs = chosen.programs.iter().flat_map(|measured| relay_programs::figures(measured.case));
    let of_cases = chosen.cases.iter().flat_map(|case| figures(case.name));
    let figures = of_programs.chain(of_cases).filter(|figure| figure.rivals().all(takes_part));
    figures.map(|figure| figure.judge("relay", samples)).collect()
}

/// What is judged of a case.
fn figures(case: &str) -> Vec<Figure> {
    let coturn = Contestant::Coturn.name();
    let gso = Contestant::CoturnGso.name();
    let against = |name: &str, unit, peer| Figure::new(name, unit).against(peer);
    match case {
        "bursts_1" | "bursts_10" | "bursts_1000" => bursts(case),
        "bursts_pps" => vec![
            against(case, "1/s", coturn).bound(AtLeast(3.0)),
            against(case, "1/s", gso).bound(AtLeast(1.5)),
        ],
        "single" => vec![against("single_us_per_dgram", "us", coturn).bound(AtMost(0.9))],
        "xdp" => vec![
            against("xdp_dgrams_per_cpu_s_160", "1/s", coturn)
                .of(Contestant::AditXdp.name())
                .bound(AtLeast(5.0)),
        ],
        "latency" => ["added_latency_p50", "added_latency_p99"]
            .map(|name| against(name, "us", coturn).bound(AtMost(0.5)))
            .to_vec(),
        "allocations" => vec![
            against("allocations_per_s", "1/s", coturn).bound(AtLeast(3.0)),
            // The rate is also the generator's, which shares the machine; this is the relay's alone.
            against("allocation_cpu_us", "us", coturn),
        ],
        "memory" => vec![Figure::new("bytes_per_allocation", "B").bound(AtMost(1024.0))],
        "flood" => vec![
            Figure::new("flood_rss_growth_bytes", "B").bound(AtMost(MIB)),
            Figure::new("flood_us_per_request", "us"),
        ],
        "amplification" => vec![
            Figure::new("reply_amplification", "B/B").bound(AtMost(3.0)),
            Figure::new("reply_amplification_on_the_wire", "B/B"),
        ],
        _ => Vec::new(),
    }
}

fn bursts(case: &str) -> Vec<Figure> {
    let flows = case.trim_start_matches("bursts_");
    let name = format!("bursts_dgrams_per_cpu_s_{flows}");
    let figure = || Figure::new(name.clone(), "1/s");
    let mut figures = vec![
        figure().against(Contestant::Coturn.name()).bound(AtLeast(3.5)),
        figure().against(Contestant::CoturnGso.name()).bound(AtLeast(1.6)),
    ];
    if flows == "10" {
        let share = Figure::new("share_of_rod", "1/s").from(name);
        figures.push(share.against(Contestant::Rod.name()).bound(AtLeast(0.7)));
    }
    figures
}

/// Medians of everything by everybody: a row for each figure, a column for each contestant.
fn medians(measured: &[Sample]) -> String {
    let mut values: BTreeMap<(&str, Contestant), Vec<f64>> = BTreeMap::new();
    let mut rows: Vec<&str> = Vec::new();
    for Sample { figure, whose, value, .. } in measured {
        values.entry((figure, *whose)).or_default().push(*value);
        if !rows.contains(&figure.as_str()) {
            rows.push(figure);
        }
    }
    let has_column = |whose: &Contestant| measured.iter().any(|sample| sample.whose == *whose);
    let columns: Vec<Contestant> = Contestant::ALL.into_iter().filter(has_column).collect();
    let mut table = format!("{:<34}", "figure");
    // Writing to a string does not fail.
    for column in &columns {
        let _ = write!(table, " {:>12}", column.name());
    }
    for row in rows {
        let _ = write!(table, "\n{row:<34}");
        for column in &columns {
            let cell = values.get(&(row, *column)).and_then(|values| median(values));
            let cell = cell.map_or_else(|| "-".to_owned(), adit_lab::bench::short);
            let _ = write!(table, " {cell:>12}");
        }
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_judged() {
        for case in relay::ALL {
            assert!(!figures(case.name).is_empty(), "{}", case.name);
        }
    }

    #[test]
    fn ratios_are_to_each_peer_that_takes_part() {
        let name = "bursts_dgrams_per_cpu_s_10";
        let mut samples = Samples::default();
        for round in 1..=3 {
            for (whose, value) in [("adit", 800.0), ("coturn", 200.0), ("rod", 1_000.0)] {
                samples.push(name, whose, round, value);
            }
        }
        let mut chosen = Chosen {
            cases: relay::ALL.iter().filter(|case| case.name == "bursts_10").copied().collect(),
            programs: Vec::new(),
            peers: vec![Contestant::Coturn, Contestant::Rod],
        };
        let lines = judge(&samples, &chosen);
        let shown: Vec<_> =
            lines.iter().map(|line| (line.metric.as_str(), line.peer, line.ratio, line.ok)).collect();
        let expected =
            [(name, Some("coturn"), Some(4.0), true), ("share_of_rod", Some("rod"), Some(0.8), true)];
        assert_eq!(shown, expected);
        // A peer that should have been there and was not is not good enough.
        chosen.peers.push(Contestant::CoturnGso);
        assert!(judge(&samples, &chosen).iter().any(|line| line.peer == Some("coturn-gso") && !line.ok));
    }

    #[test]
    fn medians_have_a_column_for_each_contestant() {
        let sample = |whose, round, value| Sample { figure: "single".to_owned(), whose, round, value };
        let measured = [
            sample(Contestant::Adit, 1, 3.0),
            sample(Contestant::Adit, 2, 5.0),
            sample(Contestant::Rod, 1, 1.0),
        ];
        let table = medians(&measured);
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows, [["figure", "adit", "rod"], ["single", "4.00", "1.00"]]);
    }
}
