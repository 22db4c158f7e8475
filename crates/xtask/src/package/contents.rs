//! What is in each package.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One package.
pub(super) struct Contents {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Programs, for `/usr/bin`.
    pub(super) programs: &'static [&'static str],
    /// The one of them that people type commands of: it brings completions and a manual page for each command.
    pub(super) front_end: Option<&'static str>,
    pub(super) unit: &'static str,
    /// A unit of which systemd makes one for each name.
    pub(super) template: Option<&'static str>,
    /// A file of `packaging/settings`: what the settings in `/etc/adit` are at first.
    pub(super) settings: &'static str,
    /// A file of `packaging/sysusers`.
    pub(super) sysusers: Option<&'static str>,
    /// Other packages that must be there; the names are the same in both worlds.
    pub(super) depends: &'static [&'static str],
    /// Where it keeps its state, in `/var/lib` and `/var/log`; removed when the package is purged.
    pub(super) state: &'static str,
}

pub(super) const PACKAGES: [Contents; 4] = [
    Contents {
        name: "adit",
        summary: "Adit client: reach the private resources that you may reach",
        programs: &["aditd", "adit"],
        front_end: Some("adit"),
        unit: "aditd.service",
        template: Some("aditd@.service"),
        settings: "client.env",
        sysusers: Some("adit.conf"),
        depends: &[],
        state: "adit",
    },
    Contents {
        name: "adit-gateway",
        summary: "Adit gateway: lets clients reach the resources beside it",
        programs: &["adit-gateway"],
        front_end: None,
        unit: "adit-gateway.service",
        template: None,
        settings: "gateway.env",
        sysusers: None,
        depends: &["nftables"],
        state: "adit-gateway",
    },
    Contents {
        name: "adit-relay",
        summary: "Adit relay: STUN and TURN for peers without a direct path",
        programs: &["adit-relay"],
        front_end: None,
        unit: "adit-relay.service",
        template: None,
        settings: "relay.env",
        sysusers: None,
        depends: &[],
        state: "adit-relay",
    },
    Contents {
        name: "adit-portal",
        summary: "Adit portal: identity, policy and introductions",
        programs: &["adit-portal"],
        front_end: Some("adit-portal"),
        unit: "adit-portal.service",
        template: None,
        settings: "portal.env",
        sysusers: None,
        depends: &[],
        state: "adit-portal",
    },
];

/// Where each shell looks for the completions of a program.
fn completions(program: &str) -> [(&'static str, String); 3] {
    [
        ("bash", format!("usr/share/bash-completion/completions/{program}")),
        ("zsh", format!("usr/share/zsh/site-functions/_{program}")),
        ("fish", format!("usr/share/fish/vendor_completions.d/{program}.fish")),
    ]
}

impl Contents {
    /// Puts everything where it will be on a machine.
    pub(super) fn stage(&self, root: &Path, sources: &Path, binaries: &Path) -> Result<()> {
        for program in self.programs {
            let target = root.join("usr/bin").join(program);
            copy(&binaries.join(program), &target, 0o755)?;
            // The names of functions stay, for `perf`.
            super::execute(Command::new("strip").arg("--strip-debug").arg(&target))?;
        }
        for unit in std::iter::once(self.unit).chain(self.template) {
            let source = sources.join("packaging/systemd").join(unit);
            copy(&source, &root.join("usr/lib/systemd/system").join(unit), 0o644)?;
        }
        if let Some(file) = self.sysusers {
            let users = sources.join("packaging/sysusers").join(file);
            copy(&users, &root.join("usr/lib/sysusers.d").join(file), 0o644)?;
        }
        let settings = sources.join("packaging/settings").join(self.settings);
        copy(&settings, &root.join("usr/share").join(self.name).join(self.settings), 0o644)?;
        let documents = root.join("usr/share/doc").join(self.name);
        copy(&sources.join("LICENSE"), &documents.join("copyright"), 0o644)?;
        copy(&sources.join("CHANGELOG.md"), &documents.join("CHANGELOG.md"), 0o644)?;
        self.stage_generated(root, binaries)
    }

    /// Completions and manual pages, which the programs make from the definition that they parse with.
    fn stage_generated(&self, root: &Path, binaries: &Path) -> Result<()> {
        for program in self.programs {
            let binary = binaries.join(program);
            if self.front_end == Some(program) {
                let manual = root.join("usr/share/man/man1");
                super::execute(Command::new(&binary).arg("man").arg(&manual))?;
                compress(&manual)?;
                stage_completions(root, program, &binary)?;
            } else {
                let manual = root.join("usr/share/man/man8");
                super::execute(Command::new(&binary).arg("--manual").arg(&manual))?;
                compress(&manual)?;
            }
        }
        Ok(())
    }
}

fn stage_completions(root: &Path, program: &str, binary: &Path) -> Result<()> {
    for (shell, place) in completions(program) {
        let output = Command::new(binary).args(["completion", shell]).output()?;
        if !output.status.success() || output.stdout.is_empty() {
            bail!("no completion for {shell}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        write(&root.join(place), &output.stdout)?;
    }
    Ok(())
}

/// Compresses the pages, without a time in them: the same pages are the same files.
fn compress(manual: &Path) -> Result<()> {
    for page in fs::read_dir(manual)? {
        super::execute(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
