//! One device in two networks at once: two daemons, each of a profile, with portals that know nothing of each other and
//! configure the same ranges. Names of both resolve, whichever daemon holds the device's resolver.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::nearby;
use crate::probe::dns::DnsServer;
use crate::probe::http;
use crate::probe::web::WebServer;
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, PRIVATE_NAME, PRIVATE_PAGE, PUBLIC_NAME, Stage};
use crate::system::{Client, Gateway, Portal, StateDir};
use crate::topology::Options;

/// What the second network calls its page, and what that says.
const OTHER_NAME: &str = "wiki.other.example";
const OTHER_PAGE: &str = "a page of another network\n";
/// The second private network.
const OTHER_NETWORK: &str = "10.30.1.0/24";

/// Within which names are answered again after the daemon went away that answered them.
const LIMIT: Duration = Duration::from_secs(10);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The network that the profile is for.
struct Other {
    portal: Portal,
    gateway: Gateway,
    dns: DnsServer,
    client: Client,
    state: StateDir,
}

pub(super) fn run(context: &mut Context) -> Result<()> {
    let options = Options { sites: 2, relays: 2, ..nearby() };
    let mut stage = Stage::raise(&options, &context.programs, context.log_dir())?;
    stage.portal.start()?;
    // The machine of the second one is the other network's portal.
    stage.relays.push(stage.start_relay(0)?);
    stage.grant_access()?;
    stage.start_gateways()?;
    stage.start_clients()?;
    let before = resolv_conf(&stage)?;
    stage.sign_in(MONTH)?;
    let site = &stage.topology.sites[1];
    let _web = WebServer::start(&site.web, 80, OTHER_PAGE)?;
    let other = Other::raise(&stage, context)?;
    let joined = Instant::now();
    both_work(&stage)?;
    context.record_time("joined to both networks' names", joined.elapsed(), Target::AtMost(5_000.0));
    by_address(&stage)?;
    ensure!(leaked(&stage) == 0, "a private name went to the public resolver");
    no_network_learns_of_the_other(&stage, &other)?;

    // Whoever holds the resolver goes, and the other takes it.
    stage.clients[0].crash()?;
    let crashed = Instant::now();
    page(&stage, OTHER_NAME, OTHER_PAGE)?;
    public_name(&stage)?;
    context.record_time("names of the other after a crash", crashed.elapsed(), Target::AtMost(5_000.0));
    stage.clients[0].start_again()?;
    stage.client().adit(&["wait", "--for", "online"])?;
    both_work(&stage)?;
    other.client.adit(&["down"])?;
    let left = Instant::now();
    page(&stage, PRIVATE_NAME, PRIVATE_PAGE)?;
    public_name(&stage)?;
    context.record_time("names of the first after the other left", left.elapsed(), Target::AtMost(5_000.0));
    ensure!(fetch(&stage, OTHER_NAME, OTHER_PAGE).is_err(), "the network that was left answers");

    other.client.adit(&["up", "--wait"])?;
    page(&stage, OTHER_NAME, OTHER_PAGE)?;
    // While its network was away, a name was anybody's.
    let before_both = leaked(&stage);
    both_work(&stage)?;
    ensure!(leaked(&stage) == before_both, "a private name went to the public resolver");
    no_network_learns_of_the_other(&stage, &other)?;
    other.close(&stage)?;
    page(&stage, PRIVATE_NAME, PRIVATE_PAGE)?;
    stage.client().adit(&["down"])?;
    let after = resolv_conf(&stage)?;
    ensure!(before == after, "resolv.conf is not as it was: {after}");
    let rules = stage.client().host().run(&["ip", "rule"])?;
    ensure!(rules.lines().count() == 3, "rules are left behind: {rules}");
    stage.close()
}

impl Other {
    /// A network of its own, and the client's second daemon in it.
    fn raise(stage: &Stage, context: &Context) -> Result<Self> {
        let (topology, programs) = (&stage.topology, &context.programs);
        let (server, site) = (&topology.relays[1], &topology.sites[1]);
        let state = StateDir::create()?;
        let address = server.address.of(topology.families);
        let mut portal = Portal::bootstrap(&server.host, address, programs, &state)?;
        portal.start()?;
        let office = portal.create_site("elsewhere")?;
        let group = portal.create_group("everybody")?;
        let actor = portal.create_actor("ana", &group)?;
        for (name, address) in [("their network", OTHER_NETWORK), ("wiki", OTHER_NAME)] {
            let resource = portal.create_resource(&office, name, address)?;
            portal.create_policy(&group, &resource)?;
        }
        let private: [IpAddr; 2] = [site.web_address.v4.into(), site.web_address.v6.into()];
        let dns = DnsServer::start(&site.dns, site.dns_address.v4.into(), &[(OTHER_NAME, &private)])?;
        let token = portal.create_gateway_token(&office)?;
        let mut gateway = Gateway::new(&site.gateways[0], &token, &portal, programs, &state)?;
        gateway.start()?;
        let token = portal.create_client_token(&actor, MONTH)?;
        let client = stage.client().start_beside("other", &portal, programs, &stage.state)?;
        client.sign_in(&token, &state)?;
        Ok(Self { portal, gateway, dns, client, state })
    }

    fn close(mut self, stage: &Stage) -> Result<()> {
        let host = stage.client().host().clone();
        self.client.stop()?;
        let links = host.run(&["ip", "-o", "link"])?;
        ensure!(links.contains("adit0") && !links.contains("adit1"), "not one tunnel is left: {links}");
        self.gateway.stop()?;
        self.portal.stop()?;
        drop(self.state);
        Ok(())
    }
}

fn both_work(stage: &Stage) -> Result<()> {
    page(stage, PRIVATE_NAME, PRIVATE_PAGE)?;
    page(stage, OTHER_NAME, OTHER_PAGE)?;
    public_name(stage)
}

/// The page of a name comes, soon at least.
fn page(stage: &Stage, name: &str, content: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        match fetch(stage, name, content) {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > LIMIT => {
                return Err(error).context(format!("the page of {name}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn fetch(stage: &Stage, name: &str, content: &str) -> Result<()> {
    let page = http::fetch(stage.client().host(), &format!("http://{name}/"), ATTEMPT)?;
    ensure!(page.body == content, "{name} answered {}", page.body);
    Ok(())
}

fn by_address(stage: &Stage) -> Result<()> {
    for (site, content) in [(0, PRIVATE_PAGE), (1, OTHER_PAGE)] {
        let address = stage.topology.sites[site].web_address.v4;
        fetch(stage, &address.to_string(), content)?;
    }
    Ok(())
}

fn public_name(stage: &Stage) -> Result<()> {
    let begin = Instant::now();
    loop {
        let found = stage.client().host().finish(&["getent", "ahosts", PUBLIC_NAME], ATTEMPT)?;
        if found.success() && !found.stdout.trim().is_empty() {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            bail!("{PUBLIC_NAME} has no address: {}", found.complaint());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often the public resolver was asked for a private name.
fn leaked(stage: &Stage) -> u64 {
    [PRIVATE_NAME, OTHER_NAME].map(|name| stage.public_dns.questions(name)).iter().sum()
}

fn no_network_learns_of_the_other(stage: &Stage, other: &Other) -> Result<()> {
    ensure!(other.dns.questions(OTHER_NAME) > 0, "the other network was not asked for its name");
    ensure!(other.dns.questions(PRIVATE_NAME) == 0, "the other network was asked for a name of the first");
    ensure!(stage.site_dns.questions(OTHER_NAME) == 0, "the first network was asked for a name of the other");
    Ok(())
}

fn resolv_conf(stage: &Stage) -> Result<String> {
    let path = stage.client().host().etc_dir().join("resolv.conf");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}
