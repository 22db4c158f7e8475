//! An RPM package, by Debian's `rpmbuild`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::contents::Contents;
use super::{Builder, Effort, scripts};

pub(super) fn make(contents: &Contents, root: &Path, builder: &Builder<'_>) -> Result<PathBuf> {
    let Builder { version, output, .. } = builder;
    let work = output.join("rpm-work");
    super::empty(&work)?;
    let specification = work.join(format!("{}.spec", contents.name));
    fs::write(&specification, self::specification(contents, root, version)?)?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--buildroot"]).arg(work.join("root"));
    command.arg("--define").arg(format!("_topdir {}", work.display()));
    command.arg("--define").arg(format!("_rpmdir {}", work.join("made").display()));
    if builder.effort == Effort::Least {
        command.args(["--define", "_binary_payload w1.gzdio"]);
    }
    super::execute(command.arg(&specification))?;
    let made = find(&work.join("made"))?.context("rpmbuild made nothing")?;
    let name = made.file_name().context("a file has a name")?;
    let path = output.join(name);
    fs::rename(&made, &path)?;
    fs::remove_dir_all(&work)?;
    Ok(path)
}

fn find(directory: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path)? {
                return Ok(Some(found));
            }
        } else if path.extension().is_some_and(|extension| extension == "rpm") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn specification(contents: &Contents, root: &Path, version: &str) -> Result<String> {
    // Debian's version knows no macros of Fedora's; every path is given in full.
    if version.contains('-') {
        bail!("`{version}` is no version of an RPM package");
    }
    let requires: String = contents.depends.iter().map(|name| format!("Requires: {name}\n")).collect();
    Ok(format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {summary}\nLicense: Apache-2.0\n{requires}\
         AutoReqProv: no\n\n%description\nPart of Adit, a zero-trust access platform that companies run themselves.\n\n\
         %global debug_package %{{nil}}\n%global __os_install_post %{{nil}}\n\n\
         %install\nmkdir -p %{{buildroot}}\ncp -a {root}/. %{{buildroot}}/\n\n\
         %files\n{files}\n\
         %post\n{installed}\n%preun\nif [ \"$1\" = 0 ]; then\n{removing}fi\n\n%postun\n{removed}",
        name = contents.name,
        summary = contents.summary,
        root = root.display(),
        files = files(root, root)?.join("\n"),
        installed = scripts::after_install(contents, "[ \"$1\" -gt 1 ]"),
        removing = scripts::before_removal(contents),
        removed = scripts::after_removal(),
    ))
}

/// Every file, as it will be on a machine.
fn files(root: &Path, directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(root, &path)?);
        } else {
            found.push(format!("/{}", path.strip_prefix(root)?.display()));
        }
    }
    found.sort();
    Ok(found)
}
