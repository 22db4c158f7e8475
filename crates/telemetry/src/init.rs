//! Putting the pieces together, once per process.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use crate::file::RotatingFile;
use crate::layer::JsonLayer;
use crate::level::{self, LevelError, LevelHandle};
use crate::panic;
use crate::sink::{Console, Sink};

/// How long dropping the [`Guard`] or a panic waits for queued lines to reach the disk.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// Where the log of a program goes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Program name; log files are called `<program>.log` and `<program>.<time>.log`.
    pub program: &'static str,
    /// Directory of the log files (made when missing); `None` writes no files.
    pub log_dir: Option<PathBuf>,
    /// Also write the lines to standard output.
    pub stdout: bool,
    /// Also write the lines to standard error.
    pub stderr: bool,
    /// Level or filter list, for example `info` or `info,adit_peering=debug`.
    pub level: String,
    /// A file that would grow past this many bytes is rotated.
    pub max_file_bytes: u64,
    /// All files of this program together stay below this many bytes; the oldest go first.
    pub max_total_bytes: u64,
}

impl Config {
    /// Level `info`, no destination yet, 10 MiB files, 100 MiB in all.
    #[must_use]
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            log_dir: None,
            stdout: false,
            stderr: false,
            level: "info".to_owned(),
            max_file_bytes: 10 * 1024 * 1024,
            max_total_bytes: 100 * 1024 * 1024,
        }
    }
}

/// Why logging could not start.
#[derive(Debug)]
pub enum InitError {
    /// The level cannot be read.
    Level(LevelError),
    /// The log directory or file cannot be made.
    File {
        /// The directory that was asked for.
        directory: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The writer thread cannot be started.
    Thread(std::io::Error),
    /// A subscriber is already installed in this process.
    AlreadyInstalled,
}

impl std::fmt::Display for InitError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Level(error) => error.fmt(formatter),
            Self::File { directory, error } => {
                write!(formatter, "cannot write logs to {}: {error}", directory.display())
            }
            Self::Thread(error) => write!(formatter, "cannot start the log writer: {error}"),
            Self::AlreadyInstalled => formatter.write_str("logging is already set up in this process"),
        }
    }
}

impl std::error::Error for InitError {}

/// Keeps logging alive; dropping it flushes what is queued (for at most one second).
#[derive(Debug)]
#[must_use = "dropping the guard ends logging"]
pub struct Guard {
    sink: Sink,
    level: LevelHandle,
}

impl Guard {
    /// A handle that reads and changes the level.
    #[must_use]
    pub fn level(&self) -> LevelHandle {
        self.level.clone()
    }

    /// Waits until everything queued so far is written; false when `deadline` passed first.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.sink.flush(deadline)
    }

    /// Lines lost so far because the queue or the disk was full.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.sink.lost_lines()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sink.close(FLUSH_DEADLINE);
    }
}

/// Installs the subscriber and the panic hook of this process.
///
/// # Errors
/// See [`InitError`]; nothing is installed then.
pub fn init(config: Config) -> Result<Guard, InitError> {
    let filter = level::parse(&config.level).map_err(InitError::Level)?;
    let file = match &config.log_dir {
        None => None,
        Some(directory) => Some(
            RotatingFile::open(directory, config.program, config.max_file_bytes, config.max_total_bytes)
                .map_err(|error| InitError::File { directory: directory.clone(), error })?,
        ),
    };
    let mut consoles = Vec::new();
    if config.stdout {
        consoles.push(Console::Stdout);
    }
    if config.stderr {
        consoles.push(Console::Stderr);
    }
    let has_console = !consoles.is_empty();
    let sink = Sink::start(file, consoles).map_err(InitError::Thread)?;
    let (filter, handle) = reload::Layer::<_, Registry>::new(filter);
    let subscriber = Registry::default().with(filter).with(JsonLayer::new(sink.clone()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadyInstalled)?;
    panic::install(sink.clone(), !has_console);
    Ok(Guard { sink, level: LevelHandle::new(handle, config.level.trim()) })
}
