//! A PostgreSQL server of its own, durable as in production: Debian's programs on a fresh cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

const RULES: &str = "\
max_connections = 60
shared_buffers = 128MB
listen_addresses = ''
log_min_messages = warning
";

/// Stopped and removed when dropped.
pub(crate) struct Server {
    directory: PathBuf,
    /// How the portal reaches it.
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        // Short, because the path of a socket has 107 bytes.
        let directory = PathBuf::from(format!("/tmp/adit-pg-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let url = format!("postgres://adit@localhost/postgres?host={}", directory.display());
        let server = Self { directory, url };
        if nix::unistd::geteuid().is_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&server.directory))?;
        }
        let data = server.data();
        let options = ["--auth=trust", "--username=adit", "--encoding=UTF8", "--locale=C", "--pgdata"];
        run(server.program("initdb")?.args(options).arg(&data))?;
        let config = data.join("postgresql.conf");
        let socket = format!("unix_socket_directories = '{}'\n", server.directory.display());
        let text = std::fs::read_to_string(&config)? + RULES + &socket;
        std::fs::write(&config, text)?;
        let log = server.directory.join("log");
        run(server
            .program("pg_ctl")?
            .args(["start", "--wait", "--log"])
            .arg(log)
            .arg("--pgdata")
            .arg(&data))?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// One of the programs, as the user who may run them.
    fn program(&self, name: &str) -> Result<Command> {
        let path = newest(name)?;
        let mut command = Command::new("setpriv");
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
        } else {
            command = Command::new(path);
        }
        command.current_dir(&self.directory).stdin(Stdio::null());
        Ok(command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(mut command) = self.program("pg_ctl") {
            let _ = run(command.args(["stop", "--mode=immediate", "--pgdata"]).arg(self.data()));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A program of the newest PostgreSQL that Debian has installed.
fn newest(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql")).into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.context("no PostgreSQL here: `cargo xtask packages --install`")
}
