//! `cargo xtask bench crypto`: how fast this machine could be if there were nothing but ciphers.
//!
//! The libraries for Rust have no AVX-512 code for ChaCha20-Poly1305. Intel's library for C has, so a small program in
//! C, built when it is needed, says what such code would bring.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::figure::{Figure, Samples};
use super::report::Report;
use super::speed::{self, output};
use crate::workspace::Workspace;
use crate::{BenchArguments, Verdict, packages};

/// Source of the program in C, from the workspace's root.
const SOURCE: &str = "crates/dataplane/examples/speed/ipsec-mb.c";

/// How samples name the libraries.
const OURS: &str = "aws-lc-rs";
const OTHER: &str = "ring";
const AVX512: &str = "ipsec-mb";
const AVX512_JOBS: &str = "ipsec-mb-jobs";

pub(super) fn run(arguments: &BenchArguments, workspace: &Workspace, report: &mut Report) -> Result<Verdict> {
    let program = speed::build(arguments, workspace)?;
    let with_avx512 = build_avx512(workspace)?;
    let mut samples = Samples::default();
    println!("measuring `crypto`, {} rounds", arguments.rounds);
    for round in 1..=arguments.rounds {
        samples.add(&output(Command::new(&program).args(["crypto", "1"]))?, Some(round))?;
        if let Some(program) = &with_avx512 {
            samples.add(&output(&mut Command::new(program))?, Some(round))?;
        }
    }
    let figures = figures(with_avx512.is_some());
    let lines: Vec<_> = figures.iter().map(|figure| figure.judge("crypto", &samples)).collect();
    report.add(&lines)
}

/// The program in C; `None`, with the reason printed, where it cannot be built or run.
fn build_avx512(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if !is_capable() {
        println!("MISSING: this processor has no AVX-512 with IFMA");
        return Ok(None);
    }
    if !packages::ensure_for_avx512()? {
        println!("MISSING: the figures for AVX-512, for want of these packages");
        return Ok(None);
    }
    let program = workspace.target_directory.join("ipsec-mb");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-Wall", "-o"])
        .arg(&program)
        .arg(workspace.workspace_root.join(SOURCE))
        .arg("-lIPSec_MB");
    output(&mut gcc)?;
    Ok(Some(program))
}

/// Whether the processor can run what is to be measured.
#[cfg(target_arch = "x86_64")]
fn is_capable() -> bool {
    is_x86_feature_detected!("avx512ifma")
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_capable() -> bool {
    false
}

fn figures(with_avx512: bool) -> Vec<Figure> {
    let mut figures = Vec::new();
    for cipher in ["chacha20_poly1305", "aes_256_gcm"] {
        for work in ["seal_1420", "open_1420", "seal_64", "open_64"] {
            for (suffix, unit) in [("ns", "ns"), ("gbit_s", "Gbit/s")] {
                let name = format!("{cipher}_{work}_{suffix}");
                figures.push(Figure::new(name, unit).of(OURS).against(OTHER));
            }
        }
    }
    figures.push(Figure::new("x25519_keypair_and_dh_us", "us").of(OURS).against(OTHER));
    if with_avx512 {
        figures.extend(figures_of_avx512());
    }
    figures
}

/// Against what we ship.
fn figures_of_avx512() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (prefix, whose, works) in [
        ("crypto_avx512", AVX512, &["seal_1420", "open_1420", "seal_64", "open_64"][..]),
        ("crypto_avx512_jobs", AVX512_JOBS, &["seal_1420", "seal_64"]),
    ] {
        for work in works {
            let sample = format!("chacha20_poly1305_{work}_ns");
            figures
                .push(Figure::new(format!("{prefix}_{work}_ns"), "ns").from(sample).of(whose).against(OURS));
        }
    }
    figures
}
