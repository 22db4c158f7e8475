//! Ctrl-C and SIGTERM: take the namespaces down, then end with the usual status.
//!
//! The programs under test run in process groups of their own, so the terminal's interrupt reaches only this
//! process and the order of the teardown stays ours.

use std::sync::Once;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::namespace;

static INSTALLED: Once = Once::new();

/// Starts the thread that waits for the signals; later calls do nothing.
pub(crate) fn install() {
    INSTALLED.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        let waiter = move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nstopped by signal {signal}: taking the lab down");
                namespace::remove_all_own();
                std::process::exit(128 + signal);
            }
        };
        // Without the thread a killed run is cleaned up by the sweep of the next one.
        let _ = std::thread::Builder::new().name("interrupt".to_owned()).spawn(waiter);
    });
}
