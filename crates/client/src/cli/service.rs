//! `adit service`: makes the daemon a service of this machine, for those whom no package did it for.
//!
//! Both commands may be called again: they bring the machine to the state they are named after. A unit that a
//! package brought is the package's, and left alone.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adit_client_ipc::Profile;
use anyhow::Context as _;
use nix::unistd::Group;
use url::Url;

use super::exit::Failure;
use super::progress::Progress;
use super::say;

/// The units that packages bring, without a profile and for one; the daemon's place in them is theirs.
const UNIT: &str = include_str!("../../../../packaging/systemd/aditd.service");
const PROFILE_UNIT: &str = include_str!("../../../../packaging/systemd/aditd@.service");

/// Where packages put the daemon.
const PACKAGED_DAEMON: &str = "/usr/bin/aditd";

/// Where packages put the unit, and where administrators do.
const PACKAGED_UNITS: [&str; 2] = ["usr/lib/systemd/system", "lib/systemd/system"];
const OWN_UNITS: &str = "etc/systemd/system";

/// There while systemd runs the machine (sd_booted(3)).
const SYSTEMD: &str = "run/systemd/system";

/// The daemon's settings, and those of profiles.
const SETTINGS: &str = "etc/adit/client.env";
const PROFILE_SETTINGS: &str = "etc/adit/profiles";

/// Whoever is in it may operate the client.
const GROUP: &str = "adit";

/// A machine to install on.
struct Machine<'a> {
    root: &'a Path,
    profile: Option<&'a Profile>,
    has_group: bool,
    run: &'a mut dyn FnMut(Command) -> anyhow::Result<()>,
}

/// `adit service install`.
pub(super) fn install(
    profile: Option<&Profile>,
    daemon: Option<&Path>,
    portal: Option<&Url>,
    json: bool,
) -> Result<(), Failure> {
    require_root()?;
    let daemon = match daemon {
        Some(daemon) => daemon.to_owned(),
        None => std::env::current_exe().context("where is this program?")?.with_file_name("aditd"),
    };
    let has_group = Group::from_name(GROUP).context("cannot look groups up")?.is_some();
    let mut run = |command| run(command, json);
    let mut machine = Machine { root: Path::new("/"), profile, has_group, run: &mut run };
    machine.install(&daemon, portal)?;
    let service = machine.service();
    say(json, &format!("The daemon runs as the service `{service}` and starts with the machine."))
}

/// `adit service uninstall`.
pub(super) fn uninstall(profile: Option<&Profile>, json: bool) -> Result<(), Failure> {
    require_root()?;
    let mut run = |command| run(command, json);
    let mut machine = Machine { root: Path::new("/"), profile, has_group: true, run: &mut run };
    machine.uninstall()?;
    say(json, "The service is gone. Settings in /etc/adit and the identity in /var/lib/adit are kept.")
}

fn require_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::denied("only root may change the services of this machine".to_owned()))
}

impl Machine<'_> {
    /// What systemd knows the daemon by.
    fn service(&self) -> String {
        self.profile.map_or_else(|| "aditd".to_owned(), |profile| format!("aditd@{profile}"))
    }

    /// The unit's file; the services of all profiles have one.
    const fn unit_file(&self) -> &'static str {
        if self.profile.is_some() { "aditd@.service" } else { "aditd.service" }
    }

    fn own_unit(&self) -> PathBuf {
        self.root.join(OWN_UNITS).join(self.unit_file())
    }

    fn settings_file(&self) -> PathBuf {
        match self.profile {
            None => self.root.join(SETTINGS),
            Some(profile) => self.root.join(PROFILE_SETTINGS).join(format!("{profile}.env")),
        }
    }

    fn install(&mut self, daemon: &Path, portal: Option<&Url>) -> Result<(), Failure> {
        let is_packaged = self.is_packaged();
        if is_packaged && self.profile.is_none() {
            return Err(packaged());
        }
        if !self.root.join(SYSTEMD).is_dir() {
            return Err(
                anyhow::anyhow!("systemd does not run this machine: start aditd by other means").into()
            );
        }
        let unit = if is_packaged { None } else { Some(self.unit(daemon)?) };
        self.keep_settings(portal)?;
        if !self.has_group {
            self.call("groupadd", &["--system", GROUP])?;
        }
        let path = self.own_unit();
        let unit = unit.filter(|unit| std::fs::read_to_string(&path).ok().as_ref() != Some(unit));
        if let Some(unit) = &unit {
            write(&path, unit, 0o644)?;
            self.call("systemctl", &["daemon-reload"])?;
        }
        let service = format!("{}.service", self.service());
        self.call("systemctl", &["enable", &service])?;
        // A daemon that runs is left alone, unless its unit is another now.
        self.call("systemctl", &[if unit.is_some() { "restart" } else { "start" }, &service])?;
        Ok(())
    }

    /// Writes the settings if there are none: those of an administrator stay as they are.
    fn keep_settings(&self, portal: Option<&Url>) -> Result<(), Failure> {
        let path = self.settings_file();
        if path.exists() {
            return Ok(());
        }
        let portal = portal.ok_or_else(|| {
            Failure::usage("where is the portal? give --portal, such as wss://portal.example.com".to_owned())
        })?;
        Ok(write(&path, &format!("ADIT_PORTAL={portal}\n"), 0o600)?)
    }

    fn uninstall(&mut self) -> Result<(), Failure> {
        let is_packaged = self.is_packaged();
        if is_packaged && self.profile.is_none() {
            return Err(packaged());
        }
        let path = self.own_unit();
        let unit = match std::fs::read_to_string(&path) {
            Ok(unit) => unit,
            Err(_) if is_packaged => PROFILE_UNIT.to_owned(),
            Err(_) => return Ok(()),
        };
        self.call("systemctl", &["disable", "--now", &format!("{}.service", self.service())])?;
        // As it does whenever it ends; once more, for a daemon that was started by hand.
        let daemon = daemon_of(&unit).unwrap_or_else(|| PACKAGED_DAEMON.to_owned());
        let mut cleanup = Command::new(daemon);
        if let Some(profile) = self.profile {
            cleanup.args(["--profile", profile.as_str()]);
        }
        cleanup.arg("--cleanup").envs(self.settings());
        (self.run)(cleanup)?;
        if is_packaged || self.serves_another_profile() {
            return Ok(());
        }
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok(self.call("systemctl", &["daemon-reload"])?)
    }

    /// Whether the unit is still that of another profile's service.
    fn serves_another_profile(&self) -> bool {
        let own = format!("{}.service", self.service());
        let wanted = self.root.join(OWN_UNITS).join("multi-user.target.wants");
        let links = std::fs::read_dir(wanted).into_iter().flatten().flatten();
        let mut names = links.filter_map(|link| link.file_name().into_string().ok());
        self.profile.is_some() && names.any(|name| name.starts_with("aditd@") && name != own)
    }

    /// The variables that the unit gives to the daemon.
    fn settings(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.settings_file()).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
            .collect()
    }

    fn is_packaged(&self) -> bool {
        PACKAGED_UNITS.iter().any(|place| self.root.join(place).join(self.unit_file()).exists())
    }

    fn call(&mut self, program: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(words);
        (self.run)(command)
    }

    /// The packages' unit with the daemon at another place.
    fn unit(&self, daemon: &Path) -> Result<String, Failure> {
        let text = daemon.to_str().filter(|text| {
            // What systemd would take apart or replace.
            daemon.is_absolute() && !text.contains(|c: char| c.is_whitespace() || "%\"'\\$;".contains(c))
        });
        let text = text.ok_or_else(|| {
            Failure::usage(format!("{} is no path that a service can have", daemon.display()))
        })?;
        if !daemon.is_file() {
            return Err(Failure::usage(format!("{text} is not there; --daemon says where aditd is")));
        }
        let unit = if self.profile.is_some() { PROFILE_UNIT } else { UNIT };
        Ok(unit.replace(PACKAGED_DAEMON, text))
    }
}

fn packaged() -> Failure {
    let message = "a package brought this service: `systemctl enable --now aditd` starts it, and the package \
                   manager removes it";
    anyhow::anyhow!(message).into()
}

fn daemon_of(unit: &str) -> Option<String> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(failed)?;
    }
    let mut beside: PathBuf = path.to_owned();
    beside.set_extension("new");
    // One that was left half written has the wrong mode, perhaps.
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(mode).open(&beside).with_context(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    std::fs::rename(&beside, path).with_context(failed)
}

fn run(mut command: Command, json: bool) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let _progress = Progress::start(json, format!("Running `{name} {}`", words.join(" ")));
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{name}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`{name}` failed ({}): {}", output.status, said.trim());
    Ok(())
}

#[cfg(test)]
mod tests;
