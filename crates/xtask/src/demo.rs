//! `cargo xtask demo`: builds what ships and shows it at work.

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{DemoArguments, Verdict, lab};

pub(crate) fn run(arguments: &DemoArguments) -> Result<Verdict> {
    if !lab::is_possible()? {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    workspace.build_programs("release")?;
    let _ = arguments;
    Ok(Verdict::Good)
}
