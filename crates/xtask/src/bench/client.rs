//! The group `client`: what a user waits for, and what a device pays.

use std::process::Command;

use adit_lab::bench::Bound::AtMost;
use adit_lab::bench::client;
use adit_lab::system::Programs;
use anyhow::Result;

use super::figure::{Figure, Samples};
use super::report::Report;
use super::speed;
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict};

const OURS: &str = "adit";

pub(super) fn run(arguments: &BenchArguments, workspace: &Workspace, report: &mut Report) -> Result<Verdict> {
    let stub = workspace.build_example_alone(&arguments.profile, "adit-dns", "stub-speed")?;
    let programs = Programs::new(workspace.binaries(&arguments.profile));
    programs.require()?;
    let logs = arguments.log_dir.clone().unwrap_or_else(super::default_log_dir);
    let mut samples = Samples::default();
    for round in 0..arguments.rounds {
        for (figure, value) in client::measure(&programs, &logs)? {
            println!("{:>4}  {figure:<20} {value:.3}", round + 1);
            samples.push(figure, OURS, round, value);
        }
    }
    if arguments.log_dir.is_none() {
        // Logs are for whoever asks for them, and for a run that failed.
        let _ = std::fs::remove_dir_all(&logs);
    }
    samples.add(&speed::output(Command::new(stub).arg(arguments.rounds.to_string()))?, None)?;
    let lines: Vec<_> = figures().iter().map(|figure| figure.judge("client", &samples)).collect();
    report.add(&lines)
}

fn figures() -> [Figure; 8] {
    let figure = |name, unit, most| Figure::new(name, unit).bound(AtMost(most));
    [
        figure("idle_cpu_percent", "%", 0.1),
        figure("idle_rss_mib", "MiB", 15.0),
        figure("status_ms", "ms", 20.0),
        figure("up_to_online_ms", "ms", 1_000.0),
        figure("dns_stub_p99_us", "us", 1_000.0),
        figure("dns_10000_extra_ns", "ns", 2_000.0),
        Figure::new("dns_10_ns", "ns"),
        Figure::new("dns_10000_ns", "ns"),
    ]
}
