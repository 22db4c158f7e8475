//! The workspace as Cargo sees it, and the builds made in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::packages;

/// Packages whose binaries are shipped.
const PROGRAM_PACKAGES: [&str; 4] = ["adit-portal", "adit-relay", "adit-gateway", "adit-client"];

/// What `cargo metadata` says, as far as it is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// Every package of the build, the workspace's own and all dependencies.
    pub(crate) packages: Vec<Package>,
    /// Directory of the root manifest.
    pub(crate) workspace_root: PathBuf,
    /// Where builds go.
    pub(crate) target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// SPDX expression, when the manifest has one.
    pub(crate) license: Option<String>,
    /// Registry or repository it comes from; `None` for the workspace's own.
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

impl Workspace {
    /// Reads the workspace of the current directory without touching the network or the lock file.
    pub(crate) fn read() -> Result<Self> {
        let arguments = ["metadata", "--format-version", "1", "--locked"];
        let output = Command::new(cargo()).args(arguments).output().context("starting cargo")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")
    }

    /// The workspace's own packages.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// The version of everything that is shipped.
    pub(crate) fn version(&self) -> Result<String> {
        let client = self.own().find(|package| package.name == "adit-client");
        Ok(client.context("the workspace has no client")?.version.clone())
    }

    /// Directory in which a profile's binaries are found.
    pub(crate) fn binaries(&self, profile: &str) -> PathBuf {
        let directory = if profile == "dev" { "debug" } else { profile };
        self.target_directory.join(directory)
    }

    /// Builds the shipped programs as they are shipped.
    pub(crate) fn build_programs(&self, profile: &str) -> Result<()> {
        self.build(&programs(profile, &[]), "the programs")
    }

    /// Builds the shipped programs with what the lab can try: the relay's XDP program, where there is a clang.
    pub(crate) fn build_lab_programs(&self, profile: &str) -> Result<()> {
        self.build(&programs(profile, xdp()), "the programs")
    }

    /// Builds examples, each given by package and name: peers that the lab sets against other implementations.
    ///
    /// In a build of their own, so that what only they depend on does not slip into the programs; but together with
    /// the programs' packages, so that cargo chooses the same features and dependencies are not built twice.
    pub(crate) fn build_examples(&self, profile: &str, examples: &[(&str, &str)]) -> Result<()> {
        let mut arguments = programs(profile, xdp());
        for (package, example) in examples {
            if !PROGRAM_PACKAGES.contains(package) {
                arguments.extend(["--package", package]);
            }
            arguments.extend(["--example", example]);
        }
        self.build(&arguments, "the examples")
    }

    /// Builds the relay and these examples, for a bench that needs no other program.
    pub(crate) fn build_relay(&self, profile: &str, examples: &[(&str, &str)]) -> Result<()> {
        let mut arguments = vec!["build", "--locked", "--profile", profile];
        arguments.extend(["--package", "adit-relay", "--bin", "adit-relay"]);
        for (package, example) in examples {
            arguments.extend(["--package", package, "--example", example]);
        }
        arguments.extend(xdp());
        self.build(&arguments, "the relay")
    }

    /// Builds the portal, for a bench that needs no other program.
    pub(crate) fn build_portal(&self, profile: &str) -> Result<()> {
        let arguments = ["build", "--locked", "--profile", profile, "--package", "adit-portal"];
        self.build(&arguments, "the portal")
    }

    /// Builds one example with what it needs itself and nothing else, for a bench that needs no world; its program.
    pub(crate) fn build_example_alone(&self, profile: &str, package: &str, example: &str) -> Result<PathBuf> {
        self.build_example_with(profile, package, example, &[])
    }

    /// The same, with features of its package.
    pub(crate) fn build_example_with(
        &self,
        profile: &str,
        package: &str,
        example: &str,
        features: &[&str],
    ) -> Result<PathBuf> {
        let features = features.join(",");
        let of = ["--package", package, "--example", example, "--features", &features];
        self.build(&[&["build", "--locked", "--profile", profile][..], &of].concat(), "the example")?;
        Ok(self.binaries(profile).join("examples").join(example))
    }

    fn build(&self, arguments: &[&str], what: &str) -> Result<()> {
        println!("cargo {}", arguments.join(" "));
        if !self.cargo(arguments)? {
            bail!("{what} do not build");
        }
        Ok(())
    }

    /// Runs cargo in the workspace with its output shown; whether it succeeded.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Result<bool> {
        let status = self.cargo_command(arguments).status().context("starting cargo")?;
        Ok(status.success())
    }

    /// A cargo command in the workspace, not yet started.
    pub(crate) fn cargo_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.workspace_root).args(arguments);
        command
    }
}

/// Arguments that build the shipped programs.
fn programs<'a>(profile: &'a str, features: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["build", "--locked", "--profile", profile];
    arguments.extend(PROGRAM_PACKAGES.iter().flat_map(|package| ["--package", *package]));
    arguments.extend(features);
    arguments
}

/// Arguments that add the relay's XDP program to a build of the programs or of the whole workspace; none without a
/// clang, which building it needs.
pub(crate) fn xdp() -> &'static [&'static str] {
    if packages::has_clang() { &["--features", "adit-relay/xdp"] } else { &[] }
}

impl Package {
    /// Directory of the package.
    pub(crate) fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
