//! Services on a machine that records what is run on it.

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
        self.with_profile(None, act)
    }

    fn with_profile<T>(
        &self,
        profile: Option<&Profile>,
        act: impl FnOnce(&mut Machine<'_>, &Path) -> T,
    ) -> (T, Vec<String>) {
        let mut calls = Vec::new();
        let mut run = |command: Command| {
            let words: Vec<_> = std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            let variables: Vec<_> = command
                .get_envs()
                .map(|(name, value)| format!("{}={} ", name.display(), value.unwrap_or_default().display()))
                .collect();
            calls.push(variables.concat() + &words.join(" "));
            Ok(())
        };
        let mut machine = Machine { root: self.root.path(), profile, has_group: false, run: &mut run };
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
    let unit = std::fs::read_to_string(host.root.path().join(OWN_UNITS).join("aditd.service")).unwrap();
    let daemon = host.daemon.display().to_string();
    assert!(unit.contains(&format!("ExecStart={daemon}\n")), "{unit}");
    assert!(unit.contains(&format!("ExecStopPost={daemon} --cleanup\n")) && !unit.contains(PACKAGED_DAEMON));
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
    assert!(!host.root.path().join(OWN_UNITS).join("aditd.service").exists() && settings.exists());
    let (again, calls) = host.with(|machine, _| machine.uninstall());
    again.unwrap();
    assert!(calls.is_empty());
}

#[test]
fn the_services_of_profiles_share_a_unit() {
    let host = Host::new();
    let (work, home): (Profile, Profile) = ("work".parse().unwrap(), "home".parse().unwrap());
    for profile in [&work, &home] {
        let act = |machine: &mut Machine<'_>, daemon: &Path| machine.install(daemon, Some(&portal()));
        let (installed, calls) = host.with_profile(Some(profile), act);
        installed.unwrap();
        assert!(calls.contains(&format!("systemctl enable aditd@{profile}.service")), "{calls:?}");
        let settings = host.root.path().join(format!("etc/adit/profiles/{profile}.env"));
        assert!(std::fs::read_to_string(settings).unwrap().starts_with("ADIT_PORTAL=wss://portal"));
    }
    let unit = host.root.path().join(OWN_UNITS).join("aditd@.service");
    let daemon = host.daemon.display().to_string();
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(text.contains(&format!("ExecStart={daemon} --profile %i\n")), "{text}");
    // As `systemctl enable` left it.
    write(&host.root.path().join(OWN_UNITS).join("multi-user.target.wants/aditd@home.service"), "", 0o644)
        .unwrap();

    let (removed, calls) = host.with_profile(Some(&work), |machine, _| machine.uninstall());
    removed.unwrap();
    let cleanup = format!("ADIT_PORTAL=wss://portal.example.com/ {daemon} --profile work --cleanup");
    assert_eq!(calls, ["systemctl disable --now aditd@work.service", &cleanup]);
    assert!(unit.exists(), "it is still that of the other profile");
    let (removed, calls) = host.with_profile(Some(&home), |machine, _| machine.uninstall());
    removed.unwrap();
    assert_eq!(calls.last().map(String::as_str), Some("systemctl daemon-reload"));
    assert!(!unit.exists());
}

#[test]
fn a_packaged_unit_serves_profiles_too() {
    let host = Host::new();
    write(&host.root.path().join(PACKAGED_UNITS[0]).join("aditd@.service"), "", 0o644).unwrap();
    let work = "work".parse().unwrap();
    let act = |machine: &mut Machine<'_>, daemon: &Path| machine.install(daemon, Some(&portal()));
    let (installed, calls) = host.with_profile(Some(&work), act);
    installed.unwrap();
    assert_eq!(
        calls,
        [
            "groupadd --system adit",
            "systemctl enable aditd@work.service",
            "systemctl start aditd@work.service"
        ]
    );
    let (removed, calls) = host.with_profile(Some(&work), |machine, _| machine.uninstall());
    removed.unwrap();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(!host.root.path().join(OWN_UNITS).join("aditd@.service").exists());
}

#[test]
fn the_unit_of_profiles_differs_in_the_profile_alone() {
    let derived = UNIT
        .replace("Adit client daemon\n", "Adit client daemon, profile %i\n")
        .replace("/etc/adit/client.env", "/etc/adit/profiles/%i.env")
        .replace("ExecStart=/usr/bin/aditd\n", "ExecStart=/usr/bin/aditd --profile %i\n")
        .replace("/usr/bin/aditd --cleanup\n", "/usr/bin/aditd --profile %i --cleanup\n");
    assert_eq!(PROFILE_UNIT, derived);
}

#[test]
fn what_a_package_brought_is_left_alone() {
    let host = Host::new();
    write(&host.root.path().join(PACKAGED_UNITS[0]).join("aditd.service"), "", 0o644).unwrap();
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
        let (installed, calls) = host.with(|machine, _| machine.install(Path::new(daemon), Some(&portal())));
        assert!(installed.is_err() && calls.is_empty(), "{daemon}");
    }
}
