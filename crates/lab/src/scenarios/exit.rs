//! A resource that is the Internet: everything public goes out at the gateway, the local network stays, and while the
//! resource is there nothing goes past the tunnel, whatever fails.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::nearby;
use crate::probe::http;
use crate::probe::web::WebServer;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::topology::PUBLIC_RESOLVER;

const LIMIT: Duration = Duration::from_secs(20);

/// How long one attempt may take that should fail.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Attempts while something is broken.
const ATTEMPTS: usize = 3;

const PUBLIC_PAGE: &str = "a public page\n";

/// The world around a client: a page on the Internet, and one in its own network.
struct Outside {
    public: WebServer,
    near: WebServer,
    near_address: SocketAddr,
    /// The client's own network, as others see it.
    own: IpAddr,
}

pub(super) fn internet(context: &mut Context) -> Result<()> {
    for program in ["aditd", "adit-gateway"] {
        context.expectations.announce(program, "portal");
    }
    let mut stage = Stage::complete(&nearby(), context)?;
    let edge = &stage.topology.clients[0];
    let near_address: IpAddr = near_of(edge.address.v4);
    let outside = Outside {
        public: WebServer::start(&stage.topology.internet, 80, PUBLIC_PAGE)?,
        near: WebServer::start(&edge.router.host, 80, PUBLIC_PAGE)?,
        near_address: SocketAddr::new(near_address, 80),
        own: edge.public.v4.into(),
    };
    ensure!(outside.who(&stage)? == outside.own, "without the resource the client goes out by itself");

    let policy = allow(&stage)?;
    let granted = Instant::now();
    outside.wait_for_exit(&stage)?;
    context.record_time("granted to going out at the gateway", granted.elapsed(), Target::AtMost(5_000.0));
    outside.check_ipv6(&stage)?;

    stage.portal.crash()?;
    ensure!(outside.who(&stage)? != outside.own, "the portal is away");
    stage.gateways[0].crash()?;
    outside.check_closed(&stage, "the gateway is away")?;
    stage.portal.start()?;
    stage.gateways[0].start()?;
    outside.wait_for_exit(&stage)?;

    stage.clients[0].crash()?;
    outside.check_closed(&stage, "the daemon is away")?;
    stage.clients[0].start_again()?;
    outside.wait_for_exit(&stage)?;

    stage.portal.delete_policy(&policy)?;
    let taken = Instant::now();
    outside.wait_for_own(&stage)?;
    context.record_time("taken away to going out by itself", taken.elapsed(), Target::AtMost(5_000.0));

    allow(&stage)?;
    outside.wait_for_exit(&stage)?;
    stage.client().adit(&["down"])?;
    ensure!(outside.who(&stage)? == outside.own, "disconnected, the client goes out by itself");
    stage.close()
}

/// The router of a network, from the address of a machine in it.
fn near_of(address: std::net::Ipv4Addr) -> IpAddr {
    let [a, b, c, _] = address.octets();
    IpAddr::from([a, b, c, 1])
}

/// Makes the Internet a resource of the group.
fn allow(stage: &Stage) -> Result<String> {
    let resource = match stage.portal.resource_named("the Internet") {
        Ok(resource) => resource,
        Err(_) => {
            let site = &stage.access.site;
            let make = ["resource", "create", "the Internet", "--type", "internet", "--site", site];
            stage.portal.create(&make)?
        }
    };
    stage.portal.create_policy(&stage.access.group, &resource)
}

impl Outside {
    /// As whom the public server sees the client.
    fn who(&self, stage: &Stage) -> Result<IpAddr> {
        let url = format!("http://{}/", SocketAddr::new(PUBLIC_RESOLVER.v4.into(), 80));
        let page = http::fetch(stage.client().host(), &url, ATTEMPT)?;
        ensure!(page.body == PUBLIC_PAGE, "another page came: {}", page.body);
        Ok(self.public.last_client().context("nobody came")?.ip().to_canonical())
    }

    fn wait_for_exit(&self, stage: &Stage) -> Result<()> {
        self.wait_for(stage, |who| who != self.own).context("out at the gateway")?;
        self.check_near(stage)
    }

    fn wait_for_own(&self, stage: &Stage) -> Result<()> {
        self.wait_for(stage, |who| who == self.own).context("out by itself")
    }

    fn wait_for(&self, stage: &Stage, is_right: impl Fn(IpAddr) -> bool) -> Result<()> {
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < LIMIT {
            match self.who(stage) {
                Ok(who) if is_right(who) => return Ok(()),
                other => last = Some(other),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("it does not come to that: {last:?}")
    }

    /// Nothing comes, and the public server sees nobody; the client's own network is there.
    fn check_closed(&self, stage: &Stage, when: &str) -> Result<()> {
        let before = self.public.requests();
        for _ in 0..ATTEMPTS {
            ensure!(self.who(stage).is_err(), "{when}: a page came all the same");
        }
        ensure!(self.public.requests() == before, "{when}: a request came all the same");
        self.check_near(stage).context(when.to_owned())
    }

    fn check_near(&self, stage: &Stage) -> Result<()> {
        let before = self.near.requests();
        http::fetch(stage.client().host(), &format!("http://{}/", self.near_address), ATTEMPT)?;
        ensure!(self.near.requests() == before + 1, "the own network is not reached directly");
        Ok(())
    }

    fn check_ipv6(&self, stage: &Stage) -> Result<()> {
        let url = format!("http://{}/", SocketAddr::new(PUBLIC_RESOLVER.v6.into(), 80));
        http::fetch(stage.client().host(), &url, ATTEMPT)?;
        let who = self.public.last_client().context("nobody came")?.ip();
        let own: IpAddr = stage.topology.clients[0].address.v6.into();
        ensure!(who != own, "over IPv6 the client goes out by itself");
        Ok(())
    }
}
