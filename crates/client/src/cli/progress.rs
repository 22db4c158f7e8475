//! One line on the terminal while something takes longer than a second.
//!
//! It says what is being done and for how long, is rewritten in place, and is gone at the end. A thread of its own
//! writes it, since some of what takes long blocks. It appears on standard error, if that is a terminal that knows
//! the usual control sequences, and never with `--json`.
//!
//! Deliberately absent: bars and estimates. Nobody knows how long a person takes to sign in.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line is written anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// To the line's begin, and erase it. Wrapping is off meanwhile: a line longer than the terminal is wide could not be
/// taken back.
const BEGIN: &str = "\r\x1b[K\x1b[?7l";
const END: &str = "\x1b[?7h";
const ERASE: &str = "\r\x1b[K";

/// Shows a line until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    writer: Option<(Arc<Shared>, JoinHandle<()>)>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stage: String,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// On standard error; `stage` says what is being done, such as "Connecting to the portal".
    pub(super) fn start(json: bool, stage: impl Into<String>) -> Self {
        let is_plain = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
        if json || is_plain {
            return Self { writer: None };
        }
        Self::on(std::io::stderr(), stage.into())
    }

    fn on(mut terminal: impl Write + IsTerminal + Send + 'static, stage: String) -> Self {
        if !terminal.is_terminal() {
            return Self { writer: None };
        }
        let shared = Arc::new(Shared::default());
        shared.lock().stage = stage;
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("progress".to_owned());
        // Without a thread there is no line, and nothing else is lost.
        let thread = thread.spawn(move || write(&of_thread, &mut terminal));
        Self { writer: thread.ok().map(|thread| (shared, thread)) }
    }

    /// Goes on to the next stage; the seconds count on.
    pub(super) fn stage(&self, stage: impl Into<String>) {
        if let Some((shared, _)) = &self.writer {
            shared.lock().stage = stage.into();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((shared, thread)) = self.writer.take() {
            shared.lock().is_over = true;
            shared.changed.notify_all();
            // What is printed next begins where the line was.
            let _ = thread.join();
        }
    }
}

/// A terminal that is gone misses nothing, so whether it takes the line is of no interest.
fn write(shared: &Shared, terminal: &mut impl Write) {
    let begin = Instant::now();
    let mut next = begin + PATIENCE;
    let mut is_shown = false;
    let mut state = shared.lock();
    while !state.is_over {
        let left = next.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let line = format!("{BEGIN}{}… {} s{END}", state.stage, begin.elapsed().as_secs());
        drop(state);
        let _ = terminal.write_all(line.as_bytes()).and_then(|()| terminal.flush());
        is_shown = true;
        next += INTERVAL;
        state = shared.lock();
    }
    if is_shown {
        let _ = terminal.write_all(ERASE.as_bytes()).and_then(|()| terminal.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    /// What a terminal is sent while `act` goes on.
    fn shown(act: impl FnOnce(&Progress)) -> String {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let progress = Progress::on(File::from(terminal.slave), "Trying".to_owned());
        act(&progress);
        drop(progress);
        let mut master = File::from(terminal.master);
        let (mut text, mut buffer) = (Vec::new(), [0; 512]);
        // A master whose slaves are closed ends with EIO, after what was written.
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_takes_long_is_shown_rewritten_and_erased() {
        let text = shown(|progress| {
            std::thread::sleep(PATIENCE + INTERVAL / 4);
            progress.stage("Waiting");
            std::thread::sleep(INTERVAL);
        });
        let rewritten = text.strip_suffix(ERASE).unwrap();
        let mut lines = rewritten.split(BEGIN).skip(1);
        assert!(lines.clone().all(|line| line.ends_with(&format!(" s{END}"))), "{text:?}");
        assert!(lines.next().unwrap().starts_with("Trying… "), "{text:?}");
        assert!(lines.last().unwrap().starts_with("Waiting… "), "{text:?}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn what_is_quick_shows_nothing_and_is_not_held_up() {
        let begin = Instant::now();
        assert_eq!(shown(|_| std::thread::sleep(Duration::from_millis(50))), "");
        assert!(begin.elapsed() < PATIENCE);
    }

    #[test]
    fn a_file_gets_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        let progress = Progress::on(file.try_clone().unwrap(), "Trying".to_owned());
        assert!(progress.writer.is_none(), "no thread writes");
        std::thread::sleep(PATIENCE + INTERVAL / 4);
        drop(progress);
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    }
}
