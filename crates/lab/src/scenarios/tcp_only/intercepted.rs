//! Somebody between the client and its relays answers TLS in their place, with another certificate.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{behind_a_firewall, flowing, require};
use crate::scenario::{Context, Target};
use crate::scenarios::nearby;
use crate::stage::Stage;
use crate::topology::{Options, Pair};

/// How long nothing may get through.
const WATCH: Duration = Duration::from_secs(6);

/// What the client says of a certificate that the portal does not vouch for.
const REFUSAL: &str = "the certificate of a relay was refused";

pub(in crate::scenarios) fn intercepted(context: &mut Context) -> Result<()> {
    context.expectations.announce("aditd", REFUSAL);
    let stage = behind_a_firewall(&Options { relays: 2, ..nearby() }, context)?;
    let router = &stage.topology.client().router.host;
    // Each relay answers in the other's place: both speak TLS and TURN, and neither is whom the portal named.
    router.nft(&crossed(&stage))?;
    let probe = stage.probe(100)?;
    std::thread::sleep(WATCH);
    ensure!(probe.stop(Duration::ZERO).received == 0, "something got through");
    let status = stage.client().status()?;
    ensure!(status.connections.iter().all(|one| one.path.is_none()), "{status:?}");
    let log = std::fs::read_to_string(stage.client().host().log_dir()?.join("aditd.log"))?;
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains(REFUSAL)).collect();
    let first = refusals.first().context("the client said nothing of the certificates")?;
    ensure!(first.contains("SHA-256"), "it does not say which: {first}");
    context.record("refusals said", refusals.len() as f64, "lines", Target::AtMost(20.0));

    router.nft("delete table inet crossed")?;
    let honest = Instant::now();
    let probe = flowing(&stage, 100)?;
    context.record_time("honest again to first reply", honest.elapsed(), Target::AtMost(10_000.0));
    require(&stage, "tls")?;
    drop(probe);
    stage.close()
}

/// Rules that lead connections for one relay's port 443 to the other relay.
fn crossed(stage: &Stage) -> String {
    let [one, other] = [0, 1].map(|index| stage.topology.relays[index].address);
    let lead = |from: Pair, to: Pair| {
        format!(
            "        ip daddr {} tcp dport 443 dnat ip to {}
        ip6 daddr {} tcp dport 443 dnat ip6 to {}
",
            from.v4, to.v4, from.v6, to.v6
        )
    };
    format!(
        "table inet crossed {{
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
{}{}    }}
}}
",
        lead(one, other),
        lead(other, one)
    )
}
