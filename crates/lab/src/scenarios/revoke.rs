//! Access is taken away from live flows: how long until the last packet, counted from the call of the API.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::probe::streams::{Streams, Traffic};
use crate::probe::tls::Talk;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

const LIMIT: Duration = Duration::from_secs(15);

/// Times that access is granted and taken away in one world.
const ROUNDS: usize = 8;

/// Where the streams' server listens.
const PORT: u16 = 9001;

/// Silence after which traffic counts as stopped.
const QUIET: Duration = Duration::from_millis(600);

pub(super) fn live(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    // The network alone, so that nothing is left when it goes.
    stage.portal.delete_policy(&stage.access.policies[1])?;
    let mut policy = stage.access.policies[0].clone();
    let resource = stage.portal.resource_named("office network")?;
    for round in 0..ROUNDS {
        let by_policy = round % 2 == 0;
        let last = round_of(&stage, &policy, by_policy)?;
        context.record_time("last_packet_ms", last, Target::Percentile(99, 100.0));
        stage.client().wait_for_no_connection(LIMIT)?;
        if by_policy {
            policy = stage.portal.create_policy(&stage.access.group, &resource)?;
        } else {
            let request = switch(&stage, &policy, true);
            let talk = Talk::begin(&stage.topology.portal.host, &stage.portal, request.into_bytes())?;
            ensure!(talk.wait_heard("HTTP/1.1 20", LIMIT), "the portal said: {}", talk.heard());
        }
    }
    stage.close()
}

/// Traffic flows; access ends; the time from the call to the last packet that the resource got, TCP or UDP.
fn round_of(stage: &Stage, policy: &str, by_policy: bool) -> Result<Duration> {
    stage.reach(LIMIT)?;
    let probe = stage.probe(1_000)?;
    probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    let target = SocketAddr::new(IpAddr::V4(stage.topology.sites[0].web_address.v4), PORT);
    let targets = vec![(target, Traffic::Both); 10];
    let streams = Streams::open(&stage.topology.sites[0].web, PORT, stage.client().host(), &targets)?;
    std::thread::sleep(Duration::from_millis(500));
    streams.measure();
    // Connected beforehand: the call alone counts, not the handshake of TLS.
    let talk = Talk::begin(&stage.topology.portal.host, &stage.portal, Vec::new())?;
    std::thread::sleep(Duration::from_millis(200));
    let request = if by_policy {
        stage.portal.request("DELETE", &format!("/api/v1/policies/{policy}"), "")
    } else {
        switch(stage, policy, false)
    };
    let called = Instant::now();
    talk.say(request.into_bytes());
    ensure!(talk.wait_heard("HTTP/1.1 20", LIMIT), "the portal said: {}", talk.heard());
    probe.wait_for_silence(QUIET, LIMIT)?;
    let (udp, _) = stage.echo.last_received().context("nothing was ever delivered")?;
    let tcp = streams.last_received_by_server().context("no stream was ever heard")?;
    let last = udp.max(tcp).max(called) - called;
    ensure!(last < LIMIT, "it never stopped");
    Ok(last)
}

/// The call that switches a policy on or off.
fn switch(stage: &Stage, policy: &str, is_enabled: bool) -> String {
    let body = format!("{{\"enabled\":{is_enabled}}}");
    stage.portal.request("PATCH", &format!("/api/v1/policies/{policy}"), &body)
}
