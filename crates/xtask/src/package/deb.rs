//! A Debian package, by `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::contents::Contents;
use super::{Builder, Effort, scripts};

pub(super) fn make(contents: &Contents, root: &Path, builder: &Builder<'_>) -> Result<PathBuf> {
    let Builder { version, output, .. } = builder;
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    fs::write(control.join("control"), self::control(contents, version))?;
    for (name, body) in maintainer_scripts(contents) {
        let path = control.join(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{body}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let path = output.join(format!("{}_{version}_{}.deb", contents.name, architecture()));
    let mut command = Command::new("dpkg-deb");
    if builder.effort == Effort::Least {
        command.args(["-Zgzip", "-z1"]);
    }
    super::execute(command.args(["--root-owner-group", "--build"]).arg(root).arg(&path))?;
    fs::remove_dir_all(&control)?;
    Ok(path)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn control(contents: &Contents, version: &str) -> String {
    // The C library that the programs were linked with is the oldest that surely does.
    let depends =
        ["libc6", "libgcc-s1"].iter().chain(contents.depends).copied().collect::<Vec<_>>().join(", ");
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nSection: net\nPriority: optional\n\
         Maintainer: The Adit developers <adit@localhost>\nDepends: {depends}\n\
         Description: {summary}\n Part of Adit, a zero-trust access platform that companies run themselves.\n",
        name = contents.name,
        architecture = architecture(),
        summary = contents.summary,
    )
}

fn maintainer_scripts(contents: &Contents) -> [(&'static str, String); 3] {
    let installed = scripts::after_install(contents, "[ -n \"$2\" ]");
    let removing = scripts::before_removal(contents);
    let purging = scripts::purge(contents);
    [
        ("postinst", format!("if [ \"$1\" = configure ]; then\n{installed}fi\n")),
        ("prerm", format!("if [ \"$1\" = remove ]; then\n{removing}fi\n")),
        ("postrm", format!("{}if [ \"$1\" = purge ]; then\n{purging}fi\n", scripts::after_removal())),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::contents::PACKAGES;
    use super::*;

    #[test]
    fn a_package_says_what_it_needs_and_its_scripts_are_sound() {
        for contents in &PACKAGES {
            let control = control(contents, "1.2.3");
            assert!(control.contains("\nVersion: 1.2.3\n") && control.ends_with('\n'), "{control}");
            assert!(contents.summary.len() < 70, "{}", contents.summary);
            for (name, body) in maintainer_scripts(contents) {
                let status = Command::new("sh").args(["-n", "-c", &body]).status().expect("a shell");
                assert!(status.success(), "{name} of {}:\n{body}", contents.name);
            }
        }
        assert!(control(&PACKAGES[1], "1").contains("nftables"));
    }
}
