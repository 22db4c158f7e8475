//! coturn's server `turnserver`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::process::{Process, Spawn};
use crate::topology::{Families, Pair};
use crate::world::Host;

const READY_LIMIT: Duration = Duration::from_secs(15);

/// What it is told always: memory only, no console, and authentication by a shared secret.
const ALWAYS: [&str; 8] = [
    "-n",
    "--log-file=stdout",
    "--simple-log",
    "--realm=adit.test",
    "--use-auth-secret",
    "--no-rfc5780",
    "--no-dynamic-ip-list",
    "--no-dynamic-realms",
];

/// What switches off, in versions before 4.17, what newer ones have off.
const OFF_BEFORE_4_17: [&str; 2] = ["--no-cli", "--no-dtls"];

/// A build of it.
#[derive(Clone, Debug)]
pub struct Build {
    /// The program, with whatever must come before it to start it.
    pub launcher: Vec<PathBuf>,
    /// Whether it is 4.17 or newer.
    pub is_recent: bool,
    /// What exactly it is.
    pub version: String,
}

impl Build {
    /// The one that this machine's Debian has.
    pub fn installed(version: impl Into<String>) -> Self {
        Self { launcher: vec!["turnserver".into()], is_recent: false, version: version.into() }
    }
}

/// How to run it.
#[derive(Clone, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) build: &'a Build,
    pub(crate) address: Pair,
    pub(crate) families: Families,
    pub(crate) secret: &'a str,
    /// For its files.
    pub(crate) directory: &'a Path,
    /// Further arguments.
    pub(crate) arguments: Vec<OsString>,
}

/// A running `turnserver` that shares a secret with its users; killed when dropped, for it knows no better end.
#[derive(Debug)]
pub(crate) struct TurnServer {
    process: Process,
}

impl TurnServer {
    pub(crate) const PORT: u16 = 3478;

    /// Starts it and waits until it listens. An allocation has the family of the client's address, since this server
    /// does not know the number that RFC 8656 gave to ADDITIONAL-ADDRESS-FAMILY.
    pub(crate) fn start(host: &Host, setup: &Setup<'_>) -> Result<Self> {
        let database = setup.directory.join("turndb");
        make_database(host, &database)?;
        let mut launcher = setup.build.launcher.iter();
        let program = launcher.next().cloned().unwrap_or_else(|| "turnserver".into());
        let mut spawn = Spawn::new("turnserver", program)
            .args(launcher)
            .args(ALWAYS)
            .arg("--allocation-default-address-family=keep")
            .arg(format!("--static-auth-secret={}", setup.secret))
            .args(["--listening-port", &Self::PORT.to_string(), "--pidfile"])
            .arg(setup.directory.join("turnserver.pid"))
            .arg("--userdb")
            .arg(database);
        if !setup.build.is_recent {
            spawn = spawn.args(OFF_BEFORE_4_17);
        }
        for address in addresses(setup) {
            spawn = spawn.args(["--listening-ip", &address, "--relay-ip", &address]);
        }
        let mut process = host.spawn(&spawn.args(&setup.arguments))?;
        // The last thing that each of them does before it serves.
        let ready = if setup.build.is_recent { "Total auth threads" } else { "(admin thread)" };
        process.wait_for_output(ready, READY_LIMIT)?;
        Ok(Self { process })
    }

    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }
}

fn addresses(setup: &Setup<'_>) -> Vec<String> {
    let Setup { address, families, .. } = setup;
    let v4 = families.has_v4().then_some(IpAddr::V4(address.v4));
    let v6 = families.has_v6().then_some(IpAddr::V6(address.v6));
    v4.into_iter().chain(v6).map(|address| address.to_string()).collect()
}

/// Makes the tables beforehand: the server's threads would each do it on their first user, and find the database locked.
///
/// The tool logs to `/var/log` whatever it is told, so it gets one of its own.
fn make_database(host: &Host, path: &Path) -> Result<()> {
    let script = "mount -t tmpfs log /var/log && exec turnadmin --list --userdb \"$0\"";
    let path = path.to_string_lossy();
    host.run(&["unshare", "--mount", "sh", "-c", script, &path]).map(drop)
}
