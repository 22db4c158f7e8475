//! The client's network lets nothing out but DNS and TCP 443: traffic goes through a relay's TLS or TCP listener.
//!
//! `carried` is life in such a network, `moves` its beginning and its end, `loads` what happens when more is sent than
//! fits, `relays` relays that go away, and `intercepted` somebody in between who speaks TLS too.

mod carried;
mod intercepted;
mod loads;
mod moves;
mod relays;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::nat::Udp;
use crate::probe::udp::Probe;
use crate::scenario::Context;
use crate::stage::{MONTH, Stage};
use crate::topology::Options;

pub(super) use carried::{both, carried};
pub(super) use intercepted::intercepted;
pub(super) use loads::loads;
pub(super) use moves::{firewall, roam};
pub(super) use relays::{drain, kill};

const LIMIT: Duration = Duration::from_secs(20);

/// Time for the last echoes.
const GRACE: Duration = Duration::from_millis(500);

/// Whose router lets out DNS and TCP 443 alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strict {
    Client,
    BothEnds,
}

/// Everything runs, and the client signs in behind such a router.
fn behind_a_firewall(options: &Options, context: &Context) -> Result<Stage> {
    raise(options, Strict::Client, context)
}

fn raise(options: &Options, strict: Strict, context: &Context) -> Result<Stage> {
    let mut stage = Stage::raise(options, &context.programs, context.log_dir())?;
    stage.topology.client().router.set(options.client_nat, Udp::OnlyHttps)?;
    let gateways = stage.topology.sites[0].gateways.iter().filter(|_| strict == Strict::BothEnds);
    for gateway in gateways {
        gateway.router.set(options.gateway_nat, Udp::OnlyHttps)?;
    }
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    stage.start_gateways()?;
    stage.start_clients()?;
    stage.sign_in(MONTH)?;
    Ok(stage)
}

/// The connection goes through a relay, reached like this.
fn require(stage: &Stage, transport: &str) -> Result<()> {
    let (status, _) = stage.client().wait_for_path("relayed", LIMIT)?;
    let all = status.connections.iter().all(|one| one.relay_transport.as_deref() == Some(transport));
    ensure!(all, "not over {transport}: {status:?}");
    Ok(())
}

/// Numbered datagrams that are echoed already.
fn flowing(stage: &Stage, per_second: u32) -> Result<Probe> {
    let probe = stage.probe(per_second)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    Ok(probe)
}

/// Lines of a log that say a connection was closed, and this text.
fn closed(file: &Path, text: &str) -> Result<usize> {
    let log = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(log.lines().filter(|line| line.contains("connection closed") && line.contains(text)).count())
}

/// Lines of the first client's log that say a connection was closed.
fn closed_at_client(stage: &Stage) -> Result<usize> {
    closed(&stage.client().host().log_dir()?.join("aditd.log"), "")
}
