//! Programs and commands on hosts: started, watched, signalled by pid, and ended with their handle.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::kill;
use nix::unistd::Pid;

pub use nix::sys::signal::Signal;

use crate::world::Host;

/// Pause between two looks at something that has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What to start: a name for its logs, the program, its arguments and environment.
#[derive(Clone, Debug)]
pub struct Spawn {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Spawn {
    /// `program` under `name`; its output goes to `<name>.stdout` and `<name>.stderr` in the host's log directory.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Starts another file from now on.
    pub fn set_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    host: Host,
    child: Child,
    /// Where this start's output begins in the two files, which restarts of the program append to.
    output: [(PathBuf, u64); 2],
}

impl Process {
    pub(crate) fn start(host: &Host, spawn: &Spawn) -> Result<Self> {
        let directory = host.log_dir()?;
        let (stdout, stdout_at) = append(directory.join(format!("{}.stdout", spawn.name)))?;
        let (stderr, stderr_at) = append(directory.join(format!("{}.stderr", spawn.name)))?;
        let child = host
            .command(&spawn.program)
            .args(&spawn.arguments)
            .envs(spawn.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("starting {} on {}", spawn.name, host.name()))?;
        Ok(Self { name: spawn.name.clone(), host: host.clone(), child, output: [stdout_at, stderr_at] })
    }

    /// Name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Machine it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Process id: `ip netns exec` replaces itself, so this is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Status if it has ended, without waiting.
    ///
    /// # Errors
    /// When the system refuses to say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal; a program that has ended is an error.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Asking first reaps an ended child, so its pid cannot have been given to a stranger.
        if let Some(status) = self.try_wait()? {
            bail!("{}", self.ended(status));
        }
        kill(pid_of(&self.child)?, signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for_end(&mut self.child, limit)?
            .ok_or_else(|| anyhow!("{} on {} still runs after {limit:?}", self.name, self.host.name()))
    }

    /// Asks it to stop with SIGTERM and requires status 0 within `limit`; returns the time it took.
    ///
    /// # Errors
    /// When it has ended before, takes longer, or ends with another status.
    pub fn stop(&mut self, limit: Duration) -> Result<Duration> {
        let asked = Instant::now();
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{}", self.ended(status));
        }
        Ok(asked.elapsed())
    }

    /// Waits until its health endpoint answers 200 on this host's own network.
    ///
    /// # Errors
    /// When the program ends first, or `limit` passes.
    pub fn wait_healthy(
        &mut self,
        health: std::net::SocketAddr,
        path: &str,
        limit: Duration,
    ) -> Result<Duration> {
        let host = self.host.clone();
        self.wait_until(&format!("an answer from http://{health}{path}"), limit, |_| {
            matches!(crate::probe::http::get(&host, health, path), Ok(response) if response.status == 200)
        })
    }

    /// Waits until its output holds `text`.
    ///
    /// # Errors
    /// When the program ends first, or `limit` passes.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<Duration> {
        self.wait_until(&format!("`{text}` in the output"), limit, |process| process.output().contains(text))
    }

    /// Waits until `ready` says so; `what` names it in the complaint.
    ///
    /// # Errors
    /// When the program ends first, or `limit` passes.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        ready: impl Fn(&Self) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            if ready(self) {
                return Ok(begin.elapsed());
            }
            if let Some(status) = self.try_wait()? {
                bail!("{}", self.ended(status));
            }
            if begin.elapsed() > limit {
                bail!("{} on {}: waited {limit:?} in vain for {what}", self.name, self.host.name());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What it wrote since this start: standard output, then standard error.
    pub fn output(&self) -> String {
        self.output.iter().map(|(path, from)| read_from(path, *from)).collect()
    }

    /// Resident memory in bytes (`VmRSS`).
    ///
    /// # Errors
    /// When the program has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kibibytes.with_context(|| format!("{} has no VmRSS: it has ended", self.name))? * 1024)
    }

    /// Processor time used so far, user and system together, at the kernel's resolution of 10 ms.
    ///
    /// # Errors
    /// When the program has ended and was waited for.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    fn ended(&self, status: ExitStatus) -> String {
        let output = self.output();
        let tail: Vec<&str> = output.lines().rev().take(8).collect();
        let tail: String = tail.iter().rev().map(|line| format!("\n    {line}")).collect();
        format!("{} on {} ended with {status}{tail}", self.name, self.host.name())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It ends by itself or by this; either way the wait below returns.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that ran to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output; bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// Standard error; bytes that are not UTF-8 replaced.
    pub stderr: String,
    /// Time from start to end.
    pub took: Duration,
}

impl Finished {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard error, or standard output when there is none.
    pub fn complaint(&self) -> &str {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        said.trim()
    }
}

/// Runs a command with no input; it is killed and an error when it takes longer than `limit`.
///
/// # Errors
/// When it cannot be started or hangs.
pub fn finish(command: Command, limit: Duration) -> Result<Finished> {
    finish_with_input(command, &[], limit)
}

/// As [`finish`], with `input` on standard input.
///
/// # Errors
/// When it cannot be started or hangs.
pub fn finish_with_input(mut command: Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let begin = Instant::now();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input)));
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        let status = wait_for_end(&mut child, limit)?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        let took = begin.elapsed();
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        let status = status.ok_or_else(|| anyhow!("still running after {limit:?}; {stdout}{stderr}"))?;
        Ok(Finished { status, stdout, stderr, took })
    })
}

fn drain(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A broken pipe means the program is gone; what came until then counts.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait_for_end(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

fn append(path: PathBuf) -> Result<(File, (PathBuf, u64))> {
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    let length = file.metadata()?.len();
    Ok((file, (path, length)))
}

fn read_from(path: &Path, offset: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}
