//! Networks of the client that have the addresses of the tunnel: what is hidden, what is not, and that it is said.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::nearby;
use crate::probe::http;
use crate::probe::web::WebServer;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::world::Host;

const LIMIT: Duration = Duration::from_secs(10);

/// How long a request may take that should fail.
const ATTEMPT: Duration = Duration::from_secs(2);

const NEIGHBOUR_PAGE: &str = "a printer\n";

const RANGE: Near = Near { interface: "lte0", network: "100.100.7.0/24", prefix: "100.100.7." };
const INSIDE: Near = Near { interface: "office0", network: "10.30.0.128/25", prefix: "10.30.0." };
const AROUND: Near = Near { interface: "vpn0", network: "10.30.0.0/16", prefix: "10.30.77." };

/// A network between the client and its neighbour.
#[derive(Clone, Copy)]
struct Near {
    /// Its interface at the client.
    interface: &'static str,
    network: &'static str,
    /// How the addresses of the client and of the neighbour begin, .130 and .131.
    prefix: &'static str,
}

pub(super) fn run(context: &mut Context) -> Result<()> {
    context.expectations.announce("aditd", "in use both in the tunnel");
    let stage = Stage::complete(&nearby(), context)?;
    stage.open_page(&stage.page_by_address())?;
    ensure!(collisions(&stage)?.is_empty(), "nothing collides at first");
    doctor(&stage, true)?;

    let web = WebServer::start(Neighbour::host(&stage), 80, NEIGHBOUR_PAGE)?;
    let near = Neighbour::meet(&stage, RANGE, &web)?;
    let begin = Instant::now();
    let one = wait_for_one(&stage, "tunnel_range_taken")?;
    context.record_time("address to said", begin.elapsed(), Target::AtMost(2_000.0));
    ensure!(one["addresses"] == RANGE.network && one["interface"] == RANGE.interface, "{one}");
    ensure!(near.is_hidden(&stage)?, "the tunnel comes first");
    said(&stage, &near, "E-TUNNEL-RANGE-TAKEN")?;
    doctor(&stage, false)?;
    stage.open_page(&stage.page_by_name())?;
    near.leave(&stage)?;

    // More specific than the resource, and hidden all the same; the machine itself is not.
    let near = Neighbour::meet(&stage, INSIDE, &web)?;
    let one = wait_for_one(&stage, "local_network_hidden")?;
    ensure!(one["resource"] == "office network" && one["addresses"] == INSIDE.network, "{one}");
    ensure!(near.is_hidden(&stage)?, "the resource comes first");
    stage.client().host().run(&["ping", "-c", "1", "-W", "1", &near.own.to_string()])?;
    said(&stage, &near, "E-LOCAL-NETWORK-HIDDEN")?;
    near.leave(&stage)?;

    // Around the resource: the rest of the network is still there.
    let near = Neighbour::meet(&stage, AROUND, &web)?;
    let one = wait_for_one(&stage, "local_network_hidden")?;
    ensure!(one["network"] == AROUND.network && one["addresses"] == "10.30.0.0/24", "{one}");
    ensure!(!near.is_hidden(&stage)?, "no resource covers the neighbour");
    stage.open_page(&stage.page_by_address())?;
    near.leave(&stage)?;
    doctor(&stage, true)?;
    warned(&stage)?;
    stage.close()
}

/// A machine in a further network of the client's.
struct Neighbour<'a> {
    near: Near,
    own: IpAddr,
    address: SocketAddr,
    web: &'a WebServer,
}

impl<'a> Neighbour<'a> {
    /// Plugs the client into a network that its router is in too.
    fn meet(stage: &Stage, near: Near, web: &'a WebServer) -> Result<Self> {
        let (client, router) = (stage.client().host(), Self::host(stage));
        let Near { interface, prefix, network } = near;
        let length = network.split('/').nth(1).context("a network has a length")?;
        let peer = router.namespace();
        client.ip(&format!("link add {interface} type veth peer name {interface} netns {peer}"))?;
        for (host, last) in [(client, 130), (router, 131)] {
            host.ip(&format!("address add {prefix}{last}/{length} dev {interface}"))?;
            host.ip(&format!("link set {interface} up"))?;
        }
        let address: IpAddr = format!("{prefix}131").parse()?;
        Ok(Self { near, own: format!("{prefix}130").parse()?, address: SocketAddr::new(address, 80), web })
    }

    fn host(stage: &Stage) -> &Host {
        &stage.topology.clients[0].router.host
    }

    /// Whether a page of the neighbour does not come, nor any request to it.
    fn is_hidden(&self, stage: &Stage) -> Result<bool> {
        let before = self.web.requests();
        let fetched = http::fetch(stage.client().host(), &format!("http://{}/", self.address), ATTEMPT);
        let came = self.web.requests() > before;
        ensure!(fetched.is_ok_and(|page| page.body == NEIGHBOUR_PAGE) == came, "only one of both ends knows");
        Ok(!came)
    }

    /// Unplugs the client: nothing collides any more.
    fn leave(self, stage: &Stage) -> Result<()> {
        stage.client().host().ip(&format!("link del {}", self.near.interface))?;
        wait_until(|| Ok(collisions(stage)?.is_empty())).context("the collision stays")
    }
}

fn collisions(stage: &Stage) -> Result<Vec<Value>> {
    let status: Value = serde_json::from_str(&stage.client().adit(&["status", "--json"])?.stdout)?;
    ensure!(status["state"] == "online", "a collision is no reason to be less than online: {status}");
    Ok(status["collisions"].as_array().cloned().unwrap_or_default())
}

/// The only collision, once it is there.
fn wait_for_one(stage: &Stage, reason: &str) -> Result<Value> {
    wait_until(|| Ok(!collisions(stage)?.is_empty())).context(reason.to_owned())?;
    let [one] = &collisions(stage)?[..] else { bail!("not one: {:?}", collisions(stage)?) };
    ensure!(one["reason"] == reason, "{one}");
    Ok(one.clone())
}

fn wait_until(is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < LIMIT, "not within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Status, route and help name the code.
fn said(stage: &Stage, near: &Neighbour<'_>, code: &str) -> Result<()> {
    let client = stage.client();
    let address = near.address.ip().to_string();
    for command in [&["status"][..], &["route", &address], &["help", code]] {
        let text = client.adit(command)?.stdout;
        ensure!(text.contains(code), "adit {}: {text}", command.join(" "));
    }
    let elsewhere = client.adit(&["route", "192.0.2.200"])?.stdout;
    ensure!(!elsewhere.contains("E-"), "{elsewhere}");
    Ok(())
}

fn doctor(stage: &Stage, is_well: bool) -> Result<()> {
    let finished = stage.client().try_adit(&["doctor"])?;
    ensure!(finished.success() == is_well, "{}", finished.stdout);
    ensure!(finished.stdout.contains("BAD   addresses") != is_well, "{}", finished.stdout);
    Ok(())
}

/// The log warned of each, once, and names no address outside of DEBUG.
fn warned(stage: &Stage) -> Result<()> {
    let log = stage.client().adit(&["log", "tail", "--lines", "1000"])?.stdout;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("in use both in the tunnel")).collect();
    ensure!(warnings.len() == 3, "{warnings:?}");
    ensure!(
        !warnings.iter().any(|line| line.contains("10.30.") || line.contains("100.100.")),
        "{warnings:?}"
    );
    Ok(())
}
