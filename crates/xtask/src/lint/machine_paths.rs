//! No tracked file names a path of the machine it was written on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Findings;
use crate::workspace::Workspace;

/// Files larger than this are not text that somebody wrote.
const LARGEST: usize = 4 << 20;

pub(super) fn check(workspace: &Workspace) -> Result<Findings> {
    let mut findings = Findings::default();
    let paths = telltale_paths(workspace);
    for file in tracked_files(&workspace.workspace_root)? {
        let Ok(bytes) = std::fs::read(workspace.workspace_root.join(&file)) else {
            // Deleted in the working tree and not yet in the index.
            continue;
        };
        if bytes.len() > LARGEST {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        for path in paths.iter().filter(|path| text.contains(path.as_str())) {
            findings.fail(format!("{file} names {path}"));
        }
    }
    Ok(findings)
}

/// This checkout, its target directory and this user's Cargo directory; short ones say nothing.
fn telltale_paths(workspace: &Workspace) -> Vec<String> {
    let cargo_home = std::env::var("CARGO_HOME").ok();
    let home = std::env::var("HOME").ok().map(|home| format!("{home}/.cargo"));
    let own = [&workspace.workspace_root, &workspace.target_directory].map(|path| path.display().to_string());
    let deep_enough = |path: &String| Path::new(path).components().count() > 2;
    own.into_iter().chain(cargo_home).chain(home).filter(deep_enough).collect()
}

fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output =
        Command::new("git").current_dir(root).args(["ls-files", "-z"]).output().context("starting git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
