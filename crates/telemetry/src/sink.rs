//! The queue between the threads that log and the one thread that writes.
//!
//! Submitting a line takes a short lock and never waits for a disk. The queue holds at most [`QUEUE_BYTES`];
//! a line that does not fit is lost and counted. Once writing works again the writer says in the log itself
//! how many lines were lost.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use crate::file::RotatingFile;
use crate::line;

/// Most bytes that wait in the queue.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// A standard stream that receives the lines too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Accepts lines from any thread; cheap to clone.
#[derive(Clone)]
pub struct Sink {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sink").field("lost", &self.lost_lines()).finish_non_exhaustive()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    drained: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    accepted: u64,
    finished: u64,
    closing: bool,
    closed: bool,
}

impl Shared {
    // A panic while the lock is held leaves a queue that is still consistent, and the panic itself must be
    // logged.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        metrics::counter!("adit_log_lines_lost_total").increment(lines);
    }
}

impl Sink {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// When the operating system refuses the thread.
    pub fn start(file: Option<RotatingFile>, consoles: Vec<Console>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let writer = Writer { shared: Arc::clone(&shared), file, consoles, announced: 0 };
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Queues one complete line (newline included); loses it when the queue is full or closed.
    pub fn submit(&self, line: String) {
        let mut queue = self.shared.lock();
        if queue.closing || queue.bytes + line.len() > QUEUE_BYTES {
            drop(queue);
            self.shared.lose(1);
            return;
        }
        queue.bytes += line.len();
        queue.accepted += 1;
        queue.lines.push_back(line);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Waits until all lines accepted before the call are written or lost; false when `deadline` passed
    /// first.
    pub fn flush(&self, deadline: Duration) -> bool {
        let queue = self.shared.lock();
        let target = queue.accepted;
        self.wait_until(queue, deadline, |queue| queue.finished >= target || queue.closed)
    }

    /// Refuses further lines, writes the queued ones and ends the writer; gives up waiting after `deadline`.
    pub fn close(&self, deadline: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.filled.notify_one();
        self.wait_until(queue, deadline, |queue| queue.closed)
    }

    /// Lines lost so far.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn wait_until(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        deadline: Duration,
        done: impl Fn(&Queue) -> bool,
    ) -> bool {
        let end = Instant::now() + deadline;
        while !done(&queue) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.shared.drained.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

struct Writer {
    shared: Arc<Shared>,
    file: Option<RotatingFile>,
    consoles: Vec<Console>,
    announced: u64,
}

impl Writer {
    fn run(mut self) {
        while let Some(lines) = self.next_batch() {
            let count = lines.len() as u64;
            self.write_consoles(&lines);
            self.write_file(&lines);
            let mut queue = self.shared.lock();
            queue.finished += count;
            drop(queue);
            self.shared.drained.notify_all();
        }
        self.shared.lock().closed = true;
        self.shared.drained.notify_all();
    }

    fn next_batch(&self) -> Option<VecDeque<String>> {
        let mut queue = self.shared.lock();
        while queue.lines.is_empty() && !queue.closing {
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes = 0;
        let lines = std::mem::take(&mut queue.lines);
        (!lines.is_empty()).then_some(lines)
    }

    fn write_consoles(&mut self, lines: &VecDeque<String>) {
        if self.consoles.is_empty() {
            return;
        }
        let chunk: String = lines.iter().map(String::as_str).collect();
        // A console that is gone (closed pipe) stays gone.
        self.consoles.retain(|console| match console {
            Console::Stdout => {
                let mut stream = std::io::stdout().lock();
                stream.write_all(chunk.as_bytes()).and_then(|()| stream.flush()).is_ok()
            }
            Console::Stderr => std::io::stderr().lock().write_all(chunk.as_bytes()).is_ok(),
        });
    }

    fn write_file(&mut self, lines: &VecDeque<String>) {
        let Some(file) = &mut self.file else { return };
        let mut lost = 0;
        for line in lines {
            lost += file.append(line);
        }
        lost += file.flush();
        if lost > 0 {
            self.shared.lose(lost);
            return;
        }
        let total = self.shared.lost.load(Ordering::Relaxed);
        if total > self.announced {
            let notice = line::assemble(
                SystemTime::now(),
                Level::WARN,
                "log lines were lost because the queue or the disk was full",
                module_path!(),
                &format!("\"lost\":{},\"total\":{total}", total - self.announced),
                std::iter::empty(),
            );
            if file.append(&notice) + file.flush() == 0 {
                self.announced = total;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        // No writer thread: nothing drains.
        let sink = Sink {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                filled: Condvar::new(),
                drained: Condvar::new(),
                lost: AtomicU64::new(0),
            }),
        };
        let line = "x".repeat(QUEUE_BYTES / 4);
        for _ in 0..6 {
            sink.submit(line.clone());
        }
        assert_eq!(sink.lost_lines(), 2);
        assert_eq!(sink.shared.lock().lines.len(), 4);
        assert!(!sink.flush(Duration::ZERO));
    }

    #[test]
    fn close_writes_what_was_queued_and_refuses_the_rest() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = RotatingFile::open(directory.path(), "probe", 1 << 20, 1 << 22).expect("opens");
        let sink = Sink::start(Some(file), Vec::new()).expect("starts");
        for index in 0..1000 {
            sink.submit(format!("{index}\n"));
        }
        assert!(sink.close(Duration::from_secs(10)));
        sink.submit("late\n".to_owned());
        assert_eq!(sink.lost_lines(), 1);
        let text = std::fs::read_to_string(directory.path().join("probe.log")).expect("reads");
        assert_eq!(text.lines().count(), 1000);
        assert_eq!(text.lines().last(), Some("999"));
    }
}
