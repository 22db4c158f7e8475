//! Our system alone under TCP load, for somebody who looks at it meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::contestant::Adit;
use super::ground::Ground;
use super::iperf::{self, Order};
use super::{Implementation, case::Setting};
use crate::system::Programs;

/// Time until the load is steady.
const RAMP: Duration = Duration::from_secs(1);

/// Process ids of our programs.
#[derive(Clone, Copy, Debug)]
pub struct Pids {
    /// `aditd`.
    pub client: u32,
    /// `adit-gateway`.
    pub gateway: u32,
}

/// Sends over one TCP connection for so many seconds and calls `look` while it flows; returns Gbit/s.
///
/// # Errors
/// When the system does not work, or `look` fails.
pub fn under_load(
    programs: &Programs,
    log_dir: &Path,
    seconds: u32,
    look: impl FnOnce(Pids) -> Result<()>,
) -> Result<f64> {
    let ground = Ground::raise(Setting::Fast, log_dir)?;
    let adit = Adit::start(&ground, programs)?;
    let server = iperf::serve(&ground.resource)?;
    let contestant = adit.contestant(Implementation::Adit)?;
    let pids = Pids {
        client: contestant.client.context("no client")?,
        gateway: contestant.gateway.context("no gateway")?,
    };
    let order = Order { target: &contestant.target, streams: 1, reverse: false, seconds };
    let transfer = std::thread::scope(|scope| {
        let load = scope.spawn(|| iperf::run(&contestant.host, &order));
        std::thread::sleep(RAMP);
        let looked = look(pids);
        let transfer = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        looked.and(transfer)
    })?;
    drop(server);
    adit.close()?;
    Ok(transfer.gigabits_per_second)
}
