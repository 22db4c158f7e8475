//! A real browser without a window, told what to do over the DevTools protocol.
//!
//! The protocol runs over two pipes (`--remote-debugging-pipe`), one JSON object after the other with a zero byte
//! behind each, so that neither a port nor a WebSocket is needed. Only what the lab needs of it is here: run a script in
//! an empty page and get its value.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;

use crate::world::Host;

/// The program, as Debian's package `chromium-headless-shell` calls it.
pub const PROGRAM: &str = "chromium-headless-shell";

/// The protocol's pipes are descriptors 3 and 4; here they are standard input and output. The program and its arguments
/// follow, as `$0` and so on.
const START: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";

/// As root it runs only without its sandbox; certificates of the lab's servers are nobody's.
const ARGUMENTS: [&str; 6] = [
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--ignore-certificate-errors",
];

/// Longest wait for the answer to a command that only administers.
const LIMIT: Duration = Duration::from_secs(30);

/// A running browser with an empty page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: ChildStdout,
    /// What was read of the next answer.
    read: Vec<u8>,
    number: u64,
    session: String,
}

impl Browser {
    /// Starts it on a host, with its profile in `directory`.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub fn start(host: &Host, directory: &Path) -> Result<Self> {
        let complaints = host.log_dir()?.join("browser.stderr");
        let mut command = host.command("sh");
        command.args(["-c", START, PROGRAM]).args(ARGUMENTS).env("HOME", directory);
        command.arg(format!("--user-data-dir={}", directory.join("profile").display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(complaints)?);
        let mut child = command.spawn().context("starting the browser")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (commands, answers) = pipes.context("the browser has no pipes")?;
        let mut browser =
            Self { child, commands, answers, read: Vec::new(), number: 0, session: String::new() };
        let page = browser.command("Target.createTarget", &json!({ "url": "about:blank" }), LIMIT)?;
        let target = page["targetId"].as_str().context("the browser has no page")?;
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = browser.command("Target.attachToTarget", &attach, LIMIT)?;
        attached["sessionId"].as_str().context("the page cannot be used")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Runs a script in the page, waits until its promise is kept, and returns the value.
    ///
    /// # Errors
    /// When the script throws, or takes longer than `limit`.
    pub fn evaluate(&mut self, script: &str, limit: Duration) -> Result<Value> {
        let arguments = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.command("Runtime.evaluate", &arguments, limit)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("the script failed: {thrown}");
        }
        Ok(answer["result"]["value"].take())
    }

    /// Gives a command and waits for its answer; events in between are nobody's concern.
    fn command(&mut self, method: &str, arguments: &Value, limit: Duration) -> Result<Value> {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": arguments });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&command)?;
        bytes.push(0);
        self.commands.write_all(&bytes).context("the browser is gone")?;
        let end = Instant::now() + limit;
        loop {
            let mut answer = self.next_message(end).with_context(|| format!("waiting for {method}"))?;
            if answer["id"] == json!(self.number) {
                if let Some(error) = answer.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(answer["result"].take());
            }
        }
    }

    fn next_message(&mut self, end: Instant) -> Result<Value> {
        loop {
            if let Some(length) = self.read.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.read.drain(..=length).collect();
                return Ok(serde_json::from_slice(&message[..length])?);
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut descriptors = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || poll(&mut descriptors, PollTimeout::try_from(left)?)? == 0 {
                bail!("the browser does not answer");
            }
            let mut bytes = [0; 1 << 16];
            match self.answers.read(&mut bytes)? {
                0 => bail!("the browser ended"),
                length => self.read.extend_from_slice(&bytes[..length]),
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes see the pipe close and follow; the world's end takes the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
