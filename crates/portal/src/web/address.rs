//! How the portal is reached, and the commands that tell it to machines.

use axum::http::{HeaderMap, header};

use crate::portal::Portal;
use crate::store::StoreError;

/// Where browsers reach the portal, without a slash at the end.
pub(crate) async fn browser_url(portal: &Portal, headers: &HeaderMap) -> Result<String, StoreError> {
    let setting = portal.store.sign_in_setting().await?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("portal.example.com");
    let url = setting.public_url.unwrap_or_else(|| format!("https://{host}"));
    Ok(url.trim_end_matches('/').to_owned())
}

/// Where gateways and clients connect to.
pub(crate) async fn peer_url(portal: &Portal, headers: &HeaderMap) -> Result<String, StoreError> {
    let url = browser_url(portal, headers).await?;
    Ok(match url.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some((_, rest)) => format!("wss://{rest}"),
        None => format!("wss://{url}"),
    })
}

/// What to run on a device: it writes the client's settings into the file that its unit reads, for the superuser alone,
/// and starts it.
pub(crate) fn client_command(settings: &[(&str, &str)]) -> String {
    let lines = lines(settings);
    format!(
        "sudo install -D -m 600 /dev/stdin /etc/adit/client.env <<'X'\n{lines}\nX\nsudo systemctl enable --now aditd"
    )
}

fn lines(settings: &[(&str, &str)]) -> String {
    let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.join("\n")
}

/// What to run on a machine that is to be a gateway: it installs the package if need be, keeps these settings for the
/// superuser alone, starts the service and says whether it came to the portal.
///
/// The token is in no command line, where every user of the machine could read it.
pub(crate) fn gateway_script(settings: &[(&str, &str)]) -> String {
    let script = include_str!("../../assets/install-gateway.sh").replace("@SETTINGS@", &lines(settings));
    format!("sudo sh <<'ADIT'\n{script}ADIT")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    /// A machine whose programs are these scripts, and whose /etc and /run are directories of ours.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(programs: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for place in ["etc", "run/systemd/system", "bin", "here"] {
                std::fs::create_dir_all(machine.path(place)).unwrap();
            }
            let recorded = machine.path("calls").display().to_string();
            for (name, text) in programs {
                let file = machine.path("bin").join(name);
                let text = format!("#!/bin/sh\necho \"{name} $*\" >>{recorded}\n{text}\n");
                std::fs::write(&file, text).unwrap();
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
            }
            machine
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        /// Runs what the page shows, but for the `sudo`.
        fn install(&self) -> Output {
            let settings = [("ADIT_PORTAL", "wss://portal.example"), ("ADIT_TOKEN", "secret")];
            let shown = gateway_script(&settings).replace("sudo sh", "sh");
            let root = self.0.path().display();
            let within = format!(
                "mount --bind {root}/etc /etc && mount --bind {root}/run /run && cd {root}/here && {shown}"
            );
            let path = format!("{root}/bin:/usr/bin:/bin");
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", &within]).env_clear().env("PATH", path);
            unshare.output().unwrap()
        }

        fn calls(&self) -> String {
            std::fs::read_to_string(self.path("calls")).unwrap_or_default()
        }
    }

    fn said(output: &Output) -> String {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn settings_of(etc: &Path) -> (String, u32) {
        let file = etc.join("adit/gateway.env");
        (
            std::fs::read_to_string(&file).unwrap(),
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        )
    }

    #[test]
    fn a_gateway_is_installed_from_the_package_at_hand_and_keeps_other_settings() {
        let became = "cp \"$(dirname \"$0\")/dpkg\" \"$(dirname \"$0\")/adit-gateway\"";
        let machine = Machine::new(&[
            ("apt-get", became),
            ("dpkg", "echo amd64"),
            ("systemctl", ""),
            ("journalctl", ""),
        ]);
        let refused = machine.install();
        assert!(
            !refused.status.success() && said(&refused).contains("adit-gateway_….deb"),
            "{}",
            said(&refused)
        );
        assert!(!machine.path("etc/adit/gateway.env").exists());

        std::fs::write(machine.path("here/adit-gateway_1.0_amd64.deb"), "").unwrap();
        std::fs::create_dir(machine.path("etc/adit")).unwrap();
        std::fs::write(machine.path("etc/adit/gateway.env"), "ADIT_TOKEN=old\nADIT_WORKERS=2").unwrap();
        let installed = machine.install();
        assert!(installed.status.success(), "{}", said(&installed));
        assert_eq!(said(&installed), "The gateway is connected.\n");
        let expected = "ADIT_WORKERS=2\nADIT_PORTAL=wss://portal.example\nADIT_TOKEN=secret\n";
        assert_eq!(settings_of(&machine.path("etc")), (expected.to_owned(), 0o600));
        let calls = machine.calls();
        assert!(calls.contains("apt-get install -y ./adit-gateway_1.0_amd64.deb\n"), "{calls}");
        assert!(calls.contains("systemctl restart --no-block adit-gateway\n"), "{calls}");
        assert!(!calls.contains("secret"), "{calls}");

        machine.install();
        let installations = machine.calls().matches("apt-get install").count();
        assert_eq!(installations, 1, "it is there already");
        assert_eq!(settings_of(&machine.path("etc")).0, expected, "again the same");
    }

    #[test]
    fn a_gateway_that_does_not_come_shows_its_log() {
        let fails = "case $1 in is-active) exit 3;; esac";
        let log = "echo 'the token is revoked'";
        let machine = Machine::new(&[("adit-gateway", ""), ("systemctl", fails), ("journalctl", log)]);
        let output = machine.install();
        assert!(!output.status.success());
        let text = said(&output);
        assert!(text.contains("the token is revoked") && text.contains("not connected"), "{text}");
    }

    #[test]
    fn a_command_writes_the_settings_and_nothing_else() {
        let command = client_command(&[("ADIT_PORTAL", "wss://a"), ("ADIT_CA", "sha256:0")]);
        let (before, rest) = command.split_once("<<'X'\n").unwrap();
        assert!(before.ends_with("/etc/adit/client.env "), "{before}");
        assert_eq!(rest, "ADIT_PORTAL=wss://a\nADIT_CA=sha256:0\nX\nsudo systemctl enable --now aditd");
    }
}
