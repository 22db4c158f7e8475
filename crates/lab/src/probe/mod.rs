//! Instruments: what a user would do (fetch a page, ping), what a measurement needs (numbered datagrams), and
//! the small servers they talk to.
//!
//! The servers and the datagram probe are threads of the lab whose sockets live in a host's network, so that all
//! times come from one clock. `curl` and `ping` are used where the whole way through the system's own libraries,
//! names included, is the point.

pub mod browser;
pub mod dns;
pub mod http;
pub mod new_flow;
pub mod ping;
pub mod streams;
pub(crate) mod tls;
pub mod udp;
pub mod udp_load;
pub mod web;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest wait of a server thread before it looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends a server's threads when dropped.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until `descriptor` can be read; `false` once `stop` is set.
fn wait_readable(descriptor: &impl AsFd, stop: &AtomicBool) -> bool {
    let timeout = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut descriptors, timeout), Ok(ready) if ready > 0) {
            return true;
        }
    }
    false
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok(())
}
