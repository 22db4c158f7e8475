//! A TLS connection that can say anything at all: `openssl s_client` with our bytes on its input.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::system::Portal;
use crate::world::Host;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A connection to the portal; closed when dropped.
#[derive(Debug)]
pub(crate) struct Talk {
    child: Child,
    says: mpsc::Sender<Vec<u8>>,
    heard: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    began: Instant,
}

impl Talk {
    /// Connects, with the portal's certificate checked, and says `bytes`.
    pub(crate) fn begin(host: &Host, portal: &Portal, bytes: Vec<u8>) -> Result<Self> {
        let mut command = host.command("openssl");
        // Quiet also means that input is never read as commands, and that its end does not end the connection.
        command.args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-CAfile"]);
        command.arg(portal.ca_file()).args(["-connect", &portal.address().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting openssl")?;
        let mut input = child.stdin.take().context("openssl has no input")?;
        let mut output = child.stdout.take().context("openssl has no output")?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to_fill = Arc::clone(&heard);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8_192];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                to_fill.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..length]);
            }
        });
        let (says, to_say) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for bytes in to_say {
                // The portal may refuse to hear the end of it.
                let _ = input.write_all(&bytes).and_then(|()| input.flush());
            }
        });
        let talk = Self { child, says, heard, reader, began: Instant::now() };
        talk.say(bytes);
        Ok(talk)
    }

    /// Says more.
    pub(crate) fn say(&self, bytes: Vec<u8>) {
        // The thread that says it lives as long as this does.
        let _ = self.says.send(bytes);
    }

    /// Waits until the portal has said something with `text`; `false` when it has not within `limit`.
    pub(crate) fn wait_heard(&self, text: &str, limit: Duration) -> bool {
        let begin = Instant::now();
        while !self.heard().contains(text) {
            if begin.elapsed() > limit {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// What the portal said so far; bytes that are not UTF-8 replaced.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until the portal closes; the time since the beginning, or `None` when it has not within `limit`.
    pub(crate) fn wait_closed(&mut self, limit: Duration) -> Result<Option<Duration>> {
        loop {
            // The reader ends with the pipe, after the last bytes.
            if self.child.try_wait()?.is_some() && self.reader.is_finished() {
                return Ok(Some(self.began.elapsed()));
            }
            if self.began.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have ended by itself; either way the wait returns.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
