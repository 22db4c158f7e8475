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
    pub(super) unit: &'static str,
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
        unit: "aditd.service",
        sysusers: Some("adit.conf"),
        depends: &[],
        state: "adit",
    },
    Contents {
        name: "adit-gateway",
        summary: "Adit gateway: lets clients reach the resources beside it",
        programs: &["adit-gateway"],
        unit: "adit-gateway.service",
        sysusers: None,
        depends: &["nftables"],
        state: "adit-gateway",
    },
    Contents {
        name: "adit-relay",
        summary: "Adit relay: STUN and TURN for peers without a direct path",
        programs: &["adit-relay"],
        unit: "adit-relay.service",
        sysusers: None,
        depends: &[],
        state: "adit-relay",
    },
    Contents {
        name: "adit-portal",
        summary: "Adit portal: identity, policy and introductions",
        programs: &["adit-portal"],
        unit: "adit-portal.service",
        sysusers: None,
        depends: &[],
        state: "adit-portal",
    },
];

/// Shells, the files that their completions are looked for in.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/adit"),
    ("zsh", "usr/share/zsh/site-functions/_adit"),
    ("fish", "usr/share/fish/vendor_completions.d/adit.fish"),
];

impl Contents {
    /// Puts everything where it will be on a machine.
    pub(super) fn stage(&self, root: &Path, sources: &Path, binaries: &Path) -> Result<()> {
        for program in self.programs {
            let target = root.join("usr/bin").join(program);
            copy(&binaries.join(program), &target, 0o755)?;
            // The names of functions stay, for `perf`.
            super::execute(Command::new("strip").arg("--strip-debug").arg(&target))?;
        }
        let unit = sources.join("packaging/systemd").join(self.unit);
        copy(&unit, &root.join("usr/lib/systemd/system").join(self.unit), 0o644)?;
        if let Some(file) = self.sysusers {
            let users = sources.join("packaging/sysusers").join(file);
            copy(&users, &root.join("usr/lib/sysusers.d").join(file), 0o644)?;
        }
        let documents = root.join("usr/share/doc").join(self.name);
        copy(&sources.join("LICENSE"), &documents.join("copyright"), 0o644)?;
        copy(&sources.join("CHANGELOG.md"), &documents.join("CHANGELOG.md"), 0o644)?;
        self.stage_generated(root, binaries)
    }

    /// Completions and manual pages, which the programs make from the definition that they parse with.
    fn stage_generated(&self, root: &Path, binaries: &Path) -> Result<()> {
        if !self.programs.contains(&"adit") {
            return Ok(());
        }
        let adit = binaries.join("adit");
        for (shell, place) in COMPLETIONS {
            let output = Command::new(&adit).args(["completion", shell]).output()?;
            if !output.status.success() || output.stdout.is_empty() {
                bail!("no completion for {shell}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            write(&root.join(place), &output.stdout)?;
        }
        let manual = root.join("usr/share/man/man1");
        super::execute(Command::new(&adit).arg("man").arg(&manual))?;
        for page in fs::read_dir(&manual)? {
            super::execute(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
        }
        Ok(())
    }
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
