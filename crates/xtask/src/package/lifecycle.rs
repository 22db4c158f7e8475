//! `cargo xtask package-test`: the packages on a machine, from installation to purge.
//!
//! The story itself is `packaging/test/lifecycle.sh`, in the commands that an administrator uses. Here it is given its
//! packages, two versions of them, and namespaces of its own.

use std::path::Path;
use std::process::Command;

use adit_lab::world;
use anyhow::{Context, Result};

use super::{Builder, Effort};
use crate::workspace::Workspace;
use crate::{PackageTestArguments, Verdict, packages};

/// Newer than any version that there will be.
const NEWER: &str = "9999.0.0";

pub(crate) fn run(arguments: &PackageTestArguments) -> Result<Verdict> {
    if !world::is_permitted() {
        eprintln!("installing packages needs root");
        return Ok(Verdict::Impossible);
    }
    if !(packages::ensure()? && packages::ensure_for_package()?) {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    workspace.build_programs(&arguments.profile)?;
    let place = workspace.target_directory.join("package-test");
    let (ours, newer) = (place.join("ours"), place.join("newer"));
    for (version, output) in [(workspace.version()?.as_str(), &ours), (NEWER, &newer)] {
        let profile = &arguments.profile;
        let builder = Builder { workspace: &workspace, profile, output, version, effort: Effort::Least };
        builder.make_installable()?;
    }
    let verdict = tell(&workspace.workspace_root.join("packaging/test/lifecycle.sh"), &ours, &newer)?;
    if verdict == Verdict::Good {
        std::fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    Ok(verdict)
}

fn tell(script: &Path, ours: &Path, newer: &Path) -> Result<Verdict> {
    let mut command = Command::new("unshare");
    // Whatever the story starts ends with it, and mounts, interfaces and processes are its own.
    command.args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "bash"]);
    let status = command.arg(script).arg(ours).arg(newer).status().context("starting unshare")?;
    Ok(Verdict::from_ok(status.success()))
}
