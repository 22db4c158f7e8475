//! `cargo xtask package`: what users install. A deb and an rpm for each of client, gateway, relay and portal, an
//! archive with everything, a bill of materials, checksums.
//!
//! Each package is one directory tree, staged once; Debian's own tools make packages of it. Deliberately absent:
//! signatures, which need a key that a build machine must not have.

mod bill;
mod contents;
mod deb;
pub(crate) mod lifecycle;
mod rpm;
mod scripts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::contents::PACKAGES;
use crate::workspace::Workspace;
use crate::{PackageArguments, Verdict, packages};

pub(crate) fn run(arguments: &PackageArguments) -> Result<Verdict> {
    if !packages::ensure_for_package()? {
        return Ok(Verdict::Impossible);
    }
    let workspace = Workspace::read()?;
    workspace.build_programs(&arguments.profile)?;
    let output = match &arguments.out {
        Some(directory) => directory.clone(),
        None => workspace.target_directory.join("packages"),
    };
    let version = workspace.version()?;
    let builder = Builder {
        workspace: &workspace,
        profile: &arguments.profile,
        output: &output,
        version: &version,
        effort: Effort::Most,
    };
    builder.make_all()?;
    Ok(Verdict::Good)
}

/// What every step needs to know.
struct Builder<'a> {
    workspace: &'a Workspace,
    profile: &'a str,
    output: &'a Path,
    version: &'a str,
    effort: Effort,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// As well as possible, for what is shipped.
    Most,
    /// As fast as possible, for what is thrown away.
    Least,
}

impl Builder<'_> {
    fn make_all(&self) -> Result<()> {
        let stage = self.output.join("stage");
        let mut made = self.stage_and_pack(&stage)?;
        made.push(self.archive(&stage)?);
        fs::remove_dir_all(&stage)?;
        let bill = self.output.join(format!("adit-{}.cdx.json", self.version));
        fs::write(&bill, bill::of(self.workspace, self.version)?)?;
        made.push(bill);
        made.push(self.checksums(&made)?);
        for path in &made {
            println!("{:>9} KiB  {}", fs::metadata(path)?.len() / 1024, path.display());
        }
        Ok(())
    }

    /// Only what package managers install.
    fn make_installable(&self) -> Result<()> {
        let stage = self.output.join("stage");
        self.stage_and_pack(&stage)?;
        Ok(fs::remove_dir_all(&stage)?)
    }

    /// Makes the packages; their trees stay in `stage`.
    fn stage_and_pack(&self, stage: &Path) -> Result<Vec<PathBuf>> {
        empty(self.output)?;
        let mut made = Vec::new();
        for contents in &PACKAGES {
            let root = stage.join(contents.name);
            contents.stage(&root, &self.workspace.workspace_root, &self.workspace.binaries(self.profile))?;
            made.push(deb::make(contents, &root, self)?);
            made.push(rpm::make(contents, &root, self)?);
        }
        Ok(made)
    }

    /// One archive for systems without packages: programs, units, manual pages and completions of all four.
    fn archive(&self, stage: &Path) -> Result<PathBuf> {
        let name = format!("adit-{}-{}-linux", self.version, std::env::consts::ARCH);
        let path = self.output.join(format!("{name}.tar.gz"));
        let all = stage.join(&name);
        for contents in &PACKAGES {
            execute(Command::new("cp").arg("-a").arg(stage.join(contents.name)).arg(&all))?;
        }
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-czf"]).arg(&path);
        execute(tar.arg("-C").arg(stage).arg(&name))?;
        Ok(path)
    }

    fn checksums(&self, made: &[PathBuf]) -> Result<PathBuf> {
        let names = made.iter().filter_map(|path| path.file_name());
        let output = Command::new("sha256sum").args(names).current_dir(self.output).output()?;
        if !output.status.success() {
            bail!("sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let path = self.output.join("SHA256SUMS");
        fs::write(&path, output.stdout)?;
        Ok(path)
    }
}

/// Makes the directory, without what an earlier run left in it.
fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn execute(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} ended with {}: {}", command.get_program(), output.status, said.trim());
    }
    Ok(())
}
