//! Groups that an example program of `adit-dataplane` measures, in one process and without a world.

use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::bench::Bound::{AtLeast, AtMost};
use anyhow::{Context as _, Result, bail};

use super::figure::{Figure, Samples};
use super::report::Report;
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict};

/// Package and name of the program.
const PROGRAM: (&str, &str) = ("adit-dataplane", "speed");

/// What the program calls a worker with one peer and one flow.
const ONE_PEER: &str = "1-peer";

/// Builds the program.
///
/// # Errors
/// When it does not build.
pub(super) fn build(arguments: &BenchArguments, workspace: &Workspace) -> Result<PathBuf> {
    workspace.build_example_alone(&arguments.profile, PROGRAM.0, PROGRAM.1)
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// When it fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn handshake(
    arguments: &BenchArguments,
    workspace: &Workspace,
    report: &mut Report,
) -> Result<Verdict> {
    let program = build(arguments, workspace)?;
    let samples = measure(&program, "handshake", arguments.rounds)?;
    let figure = Figure::new("handshakes_per_s", "1/s").against("boringtun").bound(AtLeast(2.0));
    report.add(&[figure.judge("handshake", &samples)])
}

pub(super) fn scale(
    arguments: &BenchArguments,
    workspace: &Workspace,
    report: &mut Report,
) -> Result<Verdict> {
    let program = build(arguments, workspace)?;
    let samples = measure(&program, "scale", arguments.rounds)?;
    let lines: Vec<_> = figures_of_scale().iter().map(|figure| figure.judge("scale", &samples)).collect();
    report.add(&lines)
}

fn figures_of_scale() -> Vec<Figure> {
    let compared = |name: &str, unit| Figure::new(name, unit).against(ONE_PEER);
    vec![
        compared("busy_peer_share", "packets/s").from("busy_peer_packets_per_s").bound(AtLeast(0.95)),
        compared("busy_peer_inbound_ns", "ns"),
        compared("busy_peer_outbound_ns", "ns"),
        compared("all_peers_outbound_ns", "ns"),
        compared("worker_tick_ns", "ns"),
        compared("device_tick_ns", "ns"),
        Figure::new("longest_tick_us", "us"),
        Figure::new("expiry_ns_per_flow", "ns"),
        Figure::new("revoke_us", "us"),
        Figure::new("new_flows_per_s", "1/s"),
        Figure::new("flow_bytes", "B").bound(AtMost(256.0)),
        Figure::new("gateway_rss_mib", "MiB").bound(AtMost(400.0)),
    ]
}

fn measure(program: &Path, group: &str, rounds: u32) -> Result<Samples> {
    println!("measuring `{group}`, {rounds} rounds");
    let mut samples = Samples::default();
    samples.add(&output(Command::new(program).args([group, &rounds.to_string()]))?, None)?;
    Ok(samples)
}
