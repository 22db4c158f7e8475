//! Our system: portal, relay, gateway and client, as a company would run them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Contestant;
use crate::bench::affinity;
use crate::bench::ground::{Ground, OUR_ADDRESS, OUR_NAME, OUR_NETWORK};
use crate::bench::implementation::Implementation;
use crate::bench::iperf;
use crate::probe::dns::DnsServer;
use crate::stage::MONTH;
use crate::system::{Client, Gateway, Portal, Programs, Relay, StateDir};
use crate::topology::Families;
use crate::world::Host;

/// Longest wait for a kind of path.
const PATH_LIMIT: Duration = Duration::from_secs(20);

/// The running system.
#[derive(Debug)]
pub(in crate::bench) struct Adit {
    client: Client,
    second: Option<Client>,
    gateway: Gateway,
    relay: Relay,
    portal: Portal,
    _site_dns: DnsServer,
    state: StateDir,
}

impl Adit {
    /// Starts everything and signs the clients in; no connection is made yet.
    pub(in crate::bench) fn start(ground: &Ground, programs: &Programs) -> Result<Self> {
        let state = StateDir::create()?;
        let private: [IpAddr; 1] = [OUR_ADDRESS.parse()?];
        let site_dns = DnsServer::start(&ground.resource, private[0], &[(OUR_NAME, &private)])?;
        let address = ground.portal.address.of(Families::V4);
        let mut portal = Portal::bootstrap(&ground.portal.host, address, programs, &state)?;
        portal.start()?;
        let relay = Relay::start(&ground.relay, Families::V4, &portal, programs, &state)?;
        let (actor, gateway_token) = grant_access(&portal)?;
        let gateway = affinity::on(ground.gateway_processor(), || {
            let mut gateway = Gateway::on(&ground.gateway, &gateway_token, &portal, programs, &state)?;
            gateway.start().map(|_| gateway)
        })?;
        let sign_in = |host: &Host| -> Result<Client> {
            let client = Client::start_on(host, &portal, programs, &state)?;
            client.sign_in(&portal.create_client_token(&actor, MONTH)?, &state)?;
            Ok(client)
        };
        let client = affinity::on(ground.client_processor(), || sign_in(&ground.client))?;
        let second = ground.second.as_ref().map(sign_in).transpose()?;
        Ok(Self { client, second, gateway, relay, portal, _site_dns: site_dns, state })
    }

    /// One way of using it. Waits until the first answer comes and packets take the path that is meant.
    pub(in crate::bench) fn contestant(&self, implementation: Implementation) -> Result<Contestant> {
        let (client, path) = match implementation {
            Implementation::AditRelayed => (self.second.as_ref().context("no second client")?, "relayed"),
            _ => (&self.client, "direct"),
        };
        let target = match implementation {
            Implementation::AditByName => OUR_NAME,
            _ => OUR_ADDRESS,
        };
        let relay = (path == "relayed").then(|| self.relay.process().pid());
        let contestant = Contestant {
            implementation,
            host: client.host().clone(),
            target: target.to_owned(),
            client: Some(client.process().pid()),
            gateway: Some(self.gateway.process().context("the gateway does not run")?.pid()),
            relay,
            _processes: Vec::new(),
        };
        contestant.reach()?;
        client.wait_for_path(path, PATH_LIMIT)?;
        Ok(contestant)
    }

    /// Secrets of this run.
    pub(in crate::bench) const fn state(&self) -> &StateDir {
        &self.state
    }

    /// Stops every program in order and requires exit status 0 of each.
    pub(in crate::bench) fn close(mut self) -> Result<()> {
        for client in self.second.into_iter().chain([self.client]) {
            client.stop()?;
        }
        self.gateway.stop()?;
        self.relay.stop()?;
        self.portal.stop().map(drop)
    }
}

/// One user who may reach the network by address and the name behind port filters; returns the user and the
/// gateway's token.
fn grant_access(portal: &Portal) -> Result<(String, String)> {
    let site = portal.create_site("bench")?;
    let group = portal.create_group("engineers")?;
    let actor = portal.create_actor("ana", &group)?;
    let network = portal.create_resource(&site, "network", OUR_NETWORK)?;
    let ports = format!("tcp/{},8000-8080", iperf::PORT);
    let name = portal.create(&[
        "resource",
        "create",
        "app",
        "--type",
        "dns",
        "--site",
        &site,
        "--address",
        OUR_NAME,
        "--filter",
        &ports,
        "--filter",
        "icmp",
    ])?;
    for resource in [network, name] {
        portal.create_policy(&group, &resource)?;
    }
    Ok((actor, portal.create_gateway_token(&site)?))
}
