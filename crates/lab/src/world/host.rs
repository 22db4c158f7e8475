//! One machine of the world: a namespace with commands, programs and threads that run inside it.

use std::ffi::OsStr;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::namespace;
use crate::process::{self, Finished, Process, Spawn};

/// Time a command may take before it is ended and reported as hanging.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A machine of the world; clones mean the same machine.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    log_dir: PathBuf,
}

impl Host {
    /// Creates the namespace; `World` is the only caller, since it owns the teardown.
    pub(crate) fn create(prefix: &str, name: &str, log_dir: &Path) -> Result<Self> {
        let namespace = format!("{prefix}{name}");
        namespace::create(&namespace)?;
        let inner = Inner { name: name.to_owned(), namespace, log_dir: log_dir.join(name) };
        let host = Self { inner: Arc::new(inner) };
        host.prepare_kernel()?;
        Ok(host)
    }

    /// Addresses are usable at once (no duplicate address detection) and come from us alone (no advertisements).
    fn prepare_kernel(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            self.sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
            self.sysctl(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0")?;
        }
        Ok(())
    }

    /// Name within the world, as in `client0`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Name of the namespace, for a person who wants to look inside with `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// Directory for the logs of programs on this host; made when first asked for.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn log_dir(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.inner.log_dir)
            .with_context(|| format!("making {}", self.inner.log_dir.display()))?;
        Ok(self.inner.log_dir.clone())
    }

    /// A command that will run on this host, in a process group of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.inner.namespace]).arg(program).process_group(0);
        command
    }

    /// Runs a command to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started, ends with a status other than 0, or takes more than a minute.
    pub fn run(&self, command_line: &[&str]) -> Result<String> {
        let finished = self.finish(command_line, COMMAND_LIMIT)?;
        if !finished.success() {
            bail!(
                "{}: `{}` ended with {}: {}",
                self.name(),
                command_line.join(" "),
                finished.status,
                finished.complaint()
            );
        }
        Ok(finished.stdout)
    }

    /// Runs a command to its end, whatever its status.
    ///
    /// # Errors
    /// When it cannot be started, or takes longer than `limit`.
    pub fn finish(&self, command_line: &[&str], limit: Duration) -> Result<Finished> {
        let (program, arguments) = command_line.split_first().context("an empty command line")?;
        let mut command = self.command(program);
        command.args(arguments);
        process::finish(command, limit)
            .with_context(|| format!("{}: `{}`", self.name(), command_line.join(" ")))
    }

    /// Starts a program that stays, with its output kept in this host's log directory.
    ///
    /// # Errors
    /// When the log files cannot be made or the program cannot be started.
    pub fn spawn(&self, spawn: &Spawn) -> Result<Process> {
        Process::start(self, spawn)
    }

    /// Configures the network with `ip`, the words separated by blanks.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, words: &str) -> Result<()> {
        let mut arguments = vec!["-n", &self.inner.namespace];
        arguments.extend(words.split_whitespace());
        namespace::ip(&arguments).with_context(|| format!("on {}", self.name()))
    }

    /// Loads an nftables script, all or nothing.
    ///
    /// # Errors
    /// When `nft` refuses; its message names the line.
    pub fn nft(&self, script: &str) -> Result<()> {
        let mut command = self.command("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped());
        let finished = process::finish_with_input(command, script.as_bytes(), COMMAND_LIMIT)?;
        if !finished.success() {
            bail!("{}: nft: {}\n{script}", self.name(), finished.complaint());
        }
        Ok(())
    }

    /// Sets a kernel setting below `/proc/sys`, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the setting does not exist or cannot be written.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.enter(|| std::fs::write(Path::new("/proc/sys").join(path), value))?
            .with_context(|| format!("{}: setting {path} to {value}", self.name()))
    }

    /// Writes the `resolv.conf` that commands and programs on this host see.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_resolvers(&self, servers: &[IpAddr]) -> Result<()> {
        let directory = self.etc_dir();
        std::fs::create_dir_all(&directory)?;
        let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(directory.join("resolv.conf"), lines)
            .with_context(|| format!("{}: writing resolv.conf", self.name()))
    }

    /// Directory whose files appear below `/etc` for commands and programs of this host.
    pub fn etc_dir(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.inner.namespace)
    }

    /// Calls `f` on a thread that is inside this host's network; sockets it opens stay in that network.
    ///
    /// Only the network changes: files, and with them `resolv.conf`, are still those of this process.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace, or `f` panics.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.inner.namespace);
        let target = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let inside = move || -> Result<T> {
            setns(&target, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            Ok(f())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
