//! `cargo xtask demo`: builds what ships and shows it at work.

use adit_lab::demo::{self, Plan};
use adit_lab::system::Programs;
use anyhow::Result;

use crate::workspace::Workspace;
use crate::{DemoArguments, Verdict, lab};

pub(crate) fn run(arguments: &DemoArguments) -> Result<Verdict> {
    if !lab::is_possible()? {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    workspace.build_programs("release")?;
    let programs = Programs::new(workspace.binaries("release"));
    programs.require()?;
    let log_dir = arguments.log_dir.clone().unwrap_or_else(lab::default_log_dir);
    let (steps, kept) = demo::run(&Plan { programs, log_dir: log_dir.clone(), keep: arguments.keep });
    if let Some(file) = &arguments.json {
        steps.write_json(file)?;
    }
    if let Some(stage) = kept {
        demo::keep(&stage);
    }
    if !steps.ok() || arguments.log_dir.is_some() {
        println!("\nLogs: {}", log_dir.display());
    } else {
        std::fs::remove_dir_all(&log_dir)?;
    }
    Ok(Verdict::from_ok(steps.ok()))
}
