//! The rod: our own bare packet path.

use std::time::Duration;

use anyhow::Result;

use super::{READY_LIMIT, ROD, Side, address, sides};
use crate::bench::affinity;
use crate::bench::ground::Ground;
use crate::bench::implementation::Implementation;
use crate::process::{Process, Spawn};
use crate::system::Programs;

pub(super) fn start(peer: Implementation, ground: &Ground, programs: &Programs) -> Result<[Process; 2]> {
    let sides = sides(peer, ground);
    let [client, gateway] = &sides;
    let ends = [
        launch(client, "client", peer, programs, READY_LIMIT)?,
        launch(gateway, "gateway", peer, programs, READY_LIMIT)?,
    ];
    address(&sides, peer)?;
    Ok(ends)
}

fn launch(
    side: &Side<'_>,
    role: &str,
    peer: Implementation,
    programs: &Programs,
    limit: Duration,
) -> Result<Process> {
    let mut spawn = Spawn::new(peer.name(), programs.example(ROD.1))
        .args(["--role", role, "--interface", &side.interface])
        .args(["--listen", &format!("0.0.0.0:{}", side.port), "--peer", &side.other.to_string()]);
    if peer == Implementation::RodWithoutCrypto {
        spawn = spawn.arg("--no-crypto");
    }
    let mut process = affinity::on(side.processor, || side.host.spawn(&spawn))?;
    process.wait_for_output("ready", limit)?;
    Ok(process)
}
