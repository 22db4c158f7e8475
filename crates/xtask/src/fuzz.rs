//! Fuzz targets: `fuzz/`, a workspace of its own because it needs a nightly compiler and cargo-fuzz.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;
use crate::{FuzzArguments, Verdict};

/// Runs the chosen targets, or all, one after the other; each ends at its first finding or when its time is over.
pub(crate) fn run(arguments: &FuzzArguments) -> Result<Verdict> {
    let workspace = Workspace::read()?;
    let directory = workspace.workspace_root.join("fuzz");
    let known = targets(&directory)?;
    if arguments.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(Verdict::Good);
    }
    if let Some(unknown) = arguments.targets.iter().find(|target| !known.contains(target)) {
        bail!("no target `{unknown}`; there are {}", known.join(", "));
    }
    let chosen = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    let mut failed = Vec::new();
    for target in chosen {
        println!("fuzzing {target}, {} s", arguments.seconds);
        if !fuzz(&directory, target, arguments.seconds)? {
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        println!("{} targets, no finding", chosen.len());
        return Ok(Verdict::Good);
    }
    println!("findings in {}: see fuzz/artifacts", failed.join(", "));
    Ok(Verdict::Failed)
}

/// The names of the targets.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let sources = directory.join("fuzz_targets");
    let entries = std::fs::read_dir(&sources).with_context(|| format!("reading {}", sources.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let names = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut names: Vec<String> =
        names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Whether a target ran its time without a finding.
fn fuzz(directory: &Path, target: &str, seconds: u32) -> Result<bool> {
    let mut command = Command::new("cargo");
    // This program was started by a cargo that has chosen a compiler; the fuzzer needs another one.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").current_dir(directory);
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir", ".", target, "--"]);
    command.arg(format!("-max_total_time={seconds}")).args(["-max_len=1500", "-print_final_stats=1"]);
    let status = command.status().context("starting cargo")?;
    // cargo without such a subcommand, and rustup without such a compiler, end with other numbers than a finding.
    ensure!(
        status.success() || directory.join("artifacts").join(target).is_dir(),
        "cargo fuzz does not run; it needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`"
    );
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_declared() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).expect("a manifest");
        let targets = targets(&directory).expect("targets");
        assert!(!targets.is_empty());
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in the manifest");
        }
    }
}
