//! The process as a service: readiness and watchdog messages to systemd, stop signals, limits.
//!
//! Every call is harmless without systemd.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tells the service manager that the program does its work now, with one line for `systemctl status`.
pub fn notify_ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Replaces the line of `systemctl status`.
pub fn notify_status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Tells the service manager that the program is stopping.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Proves that the program is alive; call it at least every [`watchdog_interval`].
pub fn notify_alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Half of the time after which the service manager would kill a silent program; `None` when it does not
/// watch.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Which signal asked the program to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM, from a service manager.
    Terminate,
    /// SIGINT, from a keyboard.
    Interrupt,
}

/// Receives stop signals; from its creation on they no longer end the process by themselves.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts listening; needs a tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next stop signal; may be dropped and called again.
    pub async fn next(&mut self) -> StopSignal {
        tokio::select! {
            Some(()) = self.terminate.recv() => StopSignal::Terminate,
            Some(()) = self.interrupt.recv() => StopSignal::Interrupt,
            else => std::future::pending().await,
        }
    }
}

/// Receives the wish to make room for a successor on this host: SIGUSR1.
///
/// Service managers can send another signal when they restart a service than when they stop it (systemd:
/// `RestartKillSignal=`), and only they know which it is.
#[derive(Debug)]
pub struct RestartSignal(Signal);

impl RestartSignal {
    /// Starts listening; needs a tokio runtime.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::user_defined1())?))
    }

    /// Waits for the signal; may be dropped and called again.
    pub async fn received(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Raises the number of files the process may open to what the system permits, and returns it.
///
/// # Errors
/// When the limit cannot be read or raised.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_file_limit_only_rises() {
        let (before, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads");
        let raised = raise_open_files().expect("raises");
        assert!(raised >= before);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("reads").0, raised);
    }

    #[tokio::test]
    async fn a_stop_signal_is_received_and_does_not_kill() {
        let mut signals = StopSignals::new().expect("installs");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).expect("raises");
        assert_eq!(signals.next().await, StopSignal::Terminate);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).expect("raises");
        assert_eq!(signals.next().await, StopSignal::Interrupt);
    }
}
