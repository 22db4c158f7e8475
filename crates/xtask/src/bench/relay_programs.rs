//! Figures of the relay that need no world: programs beside its code measure them, and print a name and a value a line.

use std::path::PathBuf;
use std::process::Command;

use adit_lab::bench::Bound::AtMost;
use anyhow::{Context as _, Result};

use super::figure::{Figure, Samples};
use super::speed::output;
use crate::BenchArguments;
use crate::workspace::Workspace;

/// Allocations that the pure machine is measured with.
const ALLOCATIONS: [&str; 3] = ["10", "1000", "60000"];

/// A case of `relay` that a program measures.
#[derive(Debug)]
pub(super) struct Measured {
    /// Name on the command line.
    pub(super) case: &'static str,
    /// What it measures, in a few words.
    pub(super) description: &'static str,
    package: &'static str,
    example: &'static str,
    features: &'static [&'static str],
}

/// All of them.
pub(super) const ALL: [Measured; 2] = [
    Measured {
        case: "machine",
        description: "time of a packet in the pure machine, by allocations",
        package: "adit-turn",
        example: "machine-speed",
        features: &[],
    },
    Measured {
        case: "xdp_prog",
        description: "time of a packet in the XDP program",
        package: "adit-relay-xdp",
        example: "prog-run",
        features: &["program"],
    },
];

/// Measures the chosen cases, each so many times.
///
/// # Errors
/// When a program does not build or fails.
pub(super) fn measure(
    chosen: &[&Measured],
    arguments: &BenchArguments,
    workspace: &Workspace,
    samples: &mut Samples,
) -> Result<()> {
    for measured in chosen {
        let program = build(measured, arguments, workspace)?;
        println!("measuring `{}`, {} rounds", measured.case, arguments.rounds);
        for round in 1..=arguments.rounds {
            let printed = output(&mut Command::new(&program))?;
            for line in printed.lines() {
                let (figure, value) = parse(line).with_context(|| format!("`{line}` is no figure"))?;
                samples.push(figure, "adit", round, value);
            }
        }
    }
    Ok(())
}

fn build(measured: &Measured, arguments: &BenchArguments, workspace: &Workspace) -> Result<PathBuf> {
    let Measured { package, example, features, .. } = measured;
    workspace.build_example_with(&arguments.profile, package, example, features)
}

fn parse(line: &str) -> Option<(&str, f64)> {
    let (figure, value) = line.split_once(' ')?;
    Some((figure, value.trim().parse().ok()?))
}

/// What is judged of a case.
pub(super) fn figures(case: &str) -> Vec<Figure> {
    match case {
        "machine" => {
            let of =
                |allocations| Figure::new(format!("machine_ns_{allocations}"), "ns").bound(AtMost(150.0));
            // All flows in turn wait for memory the more, the more there are; that allocations which only exist
            // cost nothing is what the machine itself can promise.
            let cold = Figure::new("machine_spread", "ratio");
            let active = Figure::new("machine_active_spread", "ratio").bound(AtMost(1.2));
            ALLOCATIONS.into_iter().map(of).chain([cold, active]).collect()
        }
        "xdp_prog" => vec![Figure::new("xdp_prog_ns", "ns").bound(AtMost(60.0))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        assert_eq!(parse("machine_ns_10 80.5"), Some(("machine_ns_10", 80.5)));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn every_case_is_judged() {
        assert!(ALL.iter().all(|measured| !figures(measured.case).is_empty()));
    }
}
