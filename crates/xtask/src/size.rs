//! Sizes of the release binaries.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use adit_lab::system::PROGRAMS;
use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{SizeArguments, Verdict};

pub(crate) fn run(arguments: &SizeArguments) -> Result<Verdict> {
    let workspace = Workspace::read()?;
    workspace.build_programs("release")?;
    let mut json = arguments.json.as_ref().map(File::create).transpose().context("making the JSON file")?;
    let directory = workspace.binaries("release");
    println!("{:<16} {:>12} {:>12}", "program", "bytes", "stripped");
    for program in PROGRAMS {
        let path = directory.join(program);
        let bytes = std::fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
        let stripped = stripped_bytes(&path)?;
        println!("{program:<16} {bytes:>12} {stripped:>12}");
        if let Some(file) = &mut json {
            writeln!(
                file,
                "{}",
                serde_json::json!({"program": program, "bytes": bytes, "stripped": stripped})
            )?;
        }
    }
    Ok(Verdict::Good)
}

/// Size without symbols and line tables, which packages leave out.
fn stripped_bytes(path: &std::path::Path) -> Result<u64> {
    let copy = path.with_extension("stripped");
    let mut strip = Command::new("strip");
    let status =
        strip.arg("-o").arg(&copy).arg(path).stdin(Stdio::null()).status().context("starting strip")?;
    if !status.success() {
        bail!("strip {} ended with {status}", path.display());
    }
    let bytes = std::fs::metadata(&copy)?.len();
    std::fs::remove_file(copy)?;
    Ok(bytes)
}
