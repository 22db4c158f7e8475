//! `adit service`: makes the daemon a service of this machine, for those whom no package did it for.
//!
//! Both commands may be called again: they bring the machine to the state they are named after. A unit that a
//! package brought is the package's, and left alone.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::Group;
use url::Url;

use super::exit::Failure;
use super::progress::Progress;
use super::say;

/// The unit that packages bring; the daemon's place in it is theirs.
const UNIT: &str = include_str!("../../../../packaging/systemd/aditd.service");

/// Where packages put the daemon.
const PACKAGED_DAEMON: &str = "/usr/bin/aditd";

/// Where packages put the unit, and where administrators do.
const PACKAGED_UNITS: [&str; 2] =
    ["usr/lib/systemd/system/aditd.service", "lib/systemd/system/aditd.service"];
const OWN_UNIT: &str = "etc/systemd/system/aditd.service";

/// There while systemd runs the machine (sd_booted(3)).
const SYSTEMD: &str = "run/systemd/system";

/// The daemon's settings.
const SETTINGS: &str = "etc/adit/client.env";

/// Whoever is in it may operate the client.
const GROUP: &str = "adit";

/// A machine to install on.
struct Machine<'a> {
    root: &'a Path,
    has_group: bool,
    run: &'a mut dyn FnMut(Command) -> anyhow::Result<()>,
}

/// `adit service install`.
pub(super) fn install(daemon: Option<&Path>, portal: Option<&Url>, json: bool) -> Result<(), Failure> {
    require_root()?;
    let daemon = match daemon {
        Some(daemon) => daemon.to_owned(),
        None => std::env::current_exe().context("where is this program?")?.with_file_name("aditd"),
    };
    let has_group = Group::from_name(GROUP).context("cannot look groups up")?.is_some();
    let mut run = |command| run(command, json);
    let mut machine = Machine { root: Path::new("/"), has_group, run: &mut run };
    machine.install(&daemon, portal)?;
    say(json, "The daemon runs as the service `aditd` and starts with the machine.")
}

/// `adit service uninstall`.
pub(super) fn uninstall(json: bool) -> Result<(), Failure> {
    require_root()?;
    let mut run = |command| run(command, json);
    let mut machine = Machine { root: Path::new("/"), has_group: true, run: &mut run };
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
    fn install(&mut self, daemon: &Path, portal: Option<&Url>) -> Result<(), Failure> {
        self.refuse_packaged()?;
        if !self.root.join(SYSTEMD).is_dir() {
            return Err(
                anyhow::anyhow!("systemd does not run this machine: start aditd by other means").into()
            );
        }
        let unit = unit(daemon)?;
        self.keep_settings(portal)?;
        if !self.has_group {
            self.call("groupadd", &["--system", GROUP])?;
        }
        let path = self.root.join(OWN_UNIT);
        let is_new = std::fs::read_to_string(&path).ok().as_deref() != Some(&unit);
        if is_new {
            write(&path, &unit, 0o644)?;
            self.call("systemctl", &["daemon-reload"])?;
        }
        self.call("systemctl", &["enable", "aditd.service"])?;
        // A daemon that runs is left alone, unless its unit is another now.
        self.call("systemctl", &[if is_new { "restart" } else { "start" }, "aditd.service"])?;
        Ok(())
    }

    /// Writes the settings if there are none: those of an administrator stay as they are.
    fn keep_settings(&self, portal: Option<&Url>) -> Result<(), Failure> {
        let path = self.root.join(SETTINGS);
        if path.exists() {
            return Ok(());
        }
        let portal = portal.ok_or_else(|| {
            Failure::usage("where is the portal? give --portal, such as wss://portal.example.com".to_owned())
        })?;
        Ok(write(&path, &format!("ADIT_PORTAL={portal}\n"), 0o600)?)
    }

    fn uninstall(&mut self) -> Result<(), Failure> {
        self.refuse_packaged()?;
        let path = self.root.join(OWN_UNIT);
        let Ok(unit) = std::fs::read_to_string(&path) else { return Ok(()) };
        self.call("systemctl", &["disable", "--now", "aditd.service"])?;
        // As it does whenever it ends; once more, for a daemon that was started by hand.
        let daemon = daemon_of(&unit).unwrap_or_else(|| PACKAGED_DAEMON.to_owned());
        let mut cleanup = Command::new(daemon);
        cleanup.arg("--cleanup").envs(self.settings());
        (self.run)(cleanup)?;
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok(self.call("systemctl", &["daemon-reload"])?)
    }

    /// The variables that the unit gives to the daemon.
    fn settings(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.root.join(SETTINGS)).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned()))
            .collect()
    }

    fn refuse_packaged(&self) -> Result<(), Failure> {
        if PACKAGED_UNITS.iter().any(|unit| self.root.join(unit).exists()) {
            let message = "a package brought this service: `systemctl enable --now aditd` starts it, and the \
                           package manager removes it";
            return Err(anyhow::anyhow!(message).into());
        }
        Ok(())
    }

    fn call(&mut self, program: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(words);
        (self.run)(command)
    }
}

/// The packages' unit with the daemon at another place.
fn unit(daemon: &Path) -> Result<String, Failure> {
    let text = daemon.to_str().filter(|text| {
        // What systemd would take apart or replace.
        daemon.is_absolute() && !text.contains(|c: char| c.is_whitespace() || "%\"'\\$;".contains(c))
    });
    let text = text
        .ok_or_else(|| Failure::usage(format!("{} is no path that a service can have", daemon.display())))?;
    if !daemon.is_file() {
        return Err(Failure::usage(format!("{text} is not there; --daemon says where aditd is")));
    }
    Ok(UNIT.replace(PACKAGED_DAEMON, text))
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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Host {
        root: tempfile::TempDir,
        daemon: PathBuf,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let daemon = root.path().join("aditd");
            std::fs::write(&daemon, "").unwrap();
            std::fs::create_dir_all(root.path().join(SYSTEMD)).unwrap();
            Self { root, daemon }
        }

        fn with<T>(&self, act: impl FnOnce(&mut Machine<'_>, &Path) -> T) -> (T, Vec<String>) {
            let mut calls = Vec::new();
            let mut run = |command: Command| {
                let words: Vec<_> = std::iter::once(command.get_program())
                    .chain(command.get_args())
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect();
                let variables: Vec<_> = command
                    .get_envs()
                    .map(|(name, value)| {
                        format!("{}={} ", name.display(), value.unwrap_or_default().display())
                    })
                    .collect();
                calls.push(variables.concat() + &words.join(" "));
                Ok(())
            };
            let mut machine = Machine { root: self.root.path(), has_group: false, run: &mut run };
            let outcome = act(&mut machine, &self.daemon);
            (outcome, calls)
        }
    }

    fn portal() -> Url {
        Url::parse("wss://portal.example.com").unwrap()
    }

    #[test]
    fn the_service_comes_and_goes_and_either_may_be_asked_for_twice() {
        let host = Host::new();
        let (installed, calls) = host.with(|machine, daemon| machine.install(daemon, Some(&portal())));
        installed.unwrap();
        let group = "groupadd --system adit";
        let expected = [
            group,
            "systemctl daemon-reload",
            "systemctl enable aditd.service",
            "systemctl restart aditd.service",
        ];
        assert_eq!(calls, expected);
        let unit = std::fs::read_to_string(host.root.path().join(OWN_UNIT)).unwrap();
        let daemon = host.daemon.display().to_string();
        assert!(unit.contains(&format!("ExecStart={daemon}\n")), "{unit}");
        assert!(
            unit.contains(&format!("ExecStopPost={daemon} --cleanup\n")) && !unit.contains(PACKAGED_DAEMON)
        );
        let settings = host.root.path().join(SETTINGS);
        assert_eq!(std::fs::metadata(&settings).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&settings, "# mine\nADIT_PORTAL=wss://other\nADIT_STATE_DIR=\"/srv/adit\"\n").unwrap();

        let (again, calls) = host.with(|machine, daemon| machine.install(daemon, Some(&portal())));
        again.unwrap();
        assert_eq!(calls, [group, "systemctl enable aditd.service", "systemctl start aditd.service"]);
        assert!(std::fs::read_to_string(&settings).unwrap().starts_with("# mine"), "an administrator's stay");

        let (removed, calls) = host.with(|machine, _| machine.uninstall());
        removed.unwrap();
        let cleanup = format!("ADIT_PORTAL=wss://other ADIT_STATE_DIR=/srv/adit {daemon} --cleanup");
        assert_eq!(calls, ["systemctl disable --now aditd.service", &cleanup, "systemctl daemon-reload"]);
        assert!(!host.root.path().join(OWN_UNIT).exists() && settings.exists());
        let (again, calls) = host.with(|machine, _| machine.uninstall());
        again.unwrap();
        assert!(calls.is_empty());
    }

    #[test]
    fn what_a_package_brought_is_left_alone() {
        let host = Host::new();
        write(&host.root.path().join(PACKAGED_UNITS[0]), "", 0o644).unwrap();
        let (installed, calls) = host.with(|machine, daemon| machine.install(daemon, Some(&portal())));
        assert!(installed.unwrap_err().message().contains("package") && calls.is_empty());
        let (removed, calls) = host.with(|machine, _| machine.uninstall());
        assert!(removed.is_err() && calls.is_empty());
    }

    #[test]
    fn a_service_needs_systemd_a_portal_and_a_daemon() {
        let host = Host::new();
        std::fs::remove_dir(host.root.path().join(SYSTEMD)).unwrap();
        let (installed, calls) = host.with(|machine, daemon| machine.install(daemon, Some(&portal())));
        assert!(installed.unwrap_err().message().contains("systemd") && calls.is_empty());
        let host = Host::new();
        let (installed, calls) = host.with(|machine, daemon| machine.install(daemon, None));
        assert!(installed.unwrap_err().message().contains("--portal") && calls.is_empty());
        for daemon in ["/nowhere/aditd", "aditd", "/opt/my programs/aditd", "/opt/%n/aditd"] {
            let (installed, calls) =
                host.with(|machine, _| machine.install(Path::new(daemon), Some(&portal())));
            assert!(installed.is_err() && calls.is_empty(), "{daemon}");
        }
    }
}
