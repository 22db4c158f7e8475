//! Who runs, under which process id, and how much memory it holds.

use anyhow::{Result, ensure};

use crate::process::Process;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::system::{Client, Gateway, Relay};

/// Most that one program may grow by.
const MOST_GROWTH: f64 = 16.0;

#[derive(Debug)]
pub(super) struct Vitals {
    before: Vec<(u32, u64)>,
}

/// The portal, the relay, the gateway and the client's daemon.
pub(super) fn programs(stage: &Stage) -> Vec<&Process> {
    let portal = stage.portal.process();
    let relay = stage.relays.first().map(Relay::process);
    let gateway = stage.gateways.first().and_then(Gateway::process);
    let client = stage.clients.first().map(Client::process);
    [portal, relay, gateway, client].into_iter().flatten().collect()
}

impl Vitals {
    pub(super) fn take(stage: &Stage) -> Result<Self> {
        let before = programs(stage)
            .into_iter()
            .map(|process| Ok((process.pid(), process.resident_bytes()?)))
            .collect::<Result<_>>()?;
        Ok(Self { before })
    }

    /// Requires that the same processes still run, and records how much they grew.
    pub(super) fn compare(&self, stage: &Stage, context: &mut Context) -> Result<()> {
        let programs = programs(stage);
        ensure!(programs.len() == self.before.len() && programs.len() == 4, "programs are missing");
        for (process, (pid, before)) in programs.into_iter().zip(&self.before) {
            ensure!(process.pid() == *pid, "{} was started again", process.name());
            // Fails for a process that has ended.
            let growth = process.resident_bytes()? as f64 - *before as f64;
            let name = format!("growth of {}", process.name());
            context.record(&name, growth / f64::from(1 << 20), "MiB", Target::AtMost(MOST_GROWTH));
        }
        Ok(())
    }
}
