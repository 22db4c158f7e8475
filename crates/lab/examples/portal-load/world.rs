//! A company: a site with gateways and resources, and people with devices.

use adit_policy::ResourceId;
use adit_protocol::{ClientToPortal, GatewayToPortal};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::Arguments;
use crate::api::Api;
use crate::installation::{Installation, Portal};
use crate::peer::{Peer, Place};

/// Devices that connect at a time.
const AT_ONCE: usize = 32;

/// Devices of one person.
const DEVICES_EACH: u32 = 20;

/// Gateways count from here, so that no device has the number of another.
pub(crate) const FIRST_GATEWAY: u32 = 1_000_000;

pub(crate) struct World {
    pub(crate) portal: Portal,
    pub(crate) api: Api,
    pub(crate) place: Place,
    pub(crate) resources: Vec<ResourceId>,
    pub(crate) policies: Vec<String>,
    pub(crate) client_tokens: Vec<String>,
    gateway_tokens: Vec<String>,
    /// Dropped last: it holds the directory that the portal uses.
    pub(crate) installation: Installation,
}

impl World {
    /// A portal without anybody.
    pub(crate) fn empty(arguments: &Arguments) -> Result<Self> {
        let installation = Installation::create(arguments)?;
        let portal = installation.serve()?;
        let api = Api::new(&installation, portal.address)?;
        let place = Place { address: portal.address, tls: installation.tls.clone() };
        Ok(Self {
            portal,
            api,
            place,
            resources: Vec::new(),
            policies: Vec::new(),
            client_tokens: Vec::new(),
            gateway_tokens: Vec::new(),
            installation,
        })
    }

    /// Everybody may reach every resource; nobody is connected yet.
    pub(crate) async fn new(arguments: &Arguments, resources: u32, gateways: u32) -> Result<Self> {
        let mut world = Self::empty(arguments)?;
        let api = &world.api;
        let site = api.create("sites", json!({ "name": "office" })).await?;
        let group = api.create("groups", json!({ "name": "staff" })).await?;
        let bodies = (0..resources).map(|number| {
            let pattern = format!("service-{number}.corp");
            json!({ "name": pattern, "address": { "type": "dns", "pattern": pattern }, "site": site })
        });
        let resources = api.post_many("resources", bodies.collect(), "id").await?;
        let bodies = resources.iter().map(|id| json!({ "group": group, "resource": id })).collect();
        world.policies = api.post_many("policies", bodies, "id").await?;
        world.resources = resources.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        let bodies = (0..gateways).map(|_| json!({ "kind": "gateway", "site": site })).collect();
        world.gateway_tokens = api.post_many("tokens", bodies, "token").await?;
        let people = arguments.devices.div_ceil(DEVICES_EACH);
        let bodies = (0..people).map(|n| json!({ "kind": "user", "name": format!("person-{n}") })).collect();
        for (number, person) in (0_u32..).zip(api.post_many("actors", bodies, "id").await?) {
            api.put(&format!("groups/{group}/members/{person}")).await?;
            let count = DEVICES_EACH.min(arguments.devices - number * DEVICES_EACH);
            world.client_tokens.extend(api.client_tokens(&person, count).await?);
        }
        Ok(world)
    }

    /// Another process for the same installation.
    pub(crate) fn restart(&mut self) -> Result<()> {
        // One process at a time may have a SQLite file.
        self.portal.stop()?;
        self.portal = self.installation.serve()?;
        self.api = Api::new(&self.installation, self.portal.address)?;
        self.place.address = self.portal.address;
        Ok(())
    }

    /// The token of a gateway.
    pub(crate) fn gateway_token(&self, number: usize) -> Result<&str> {
        Ok(self.gateway_tokens.get(number).context("there is no such gateway")?)
    }

    pub(crate) async fn gateways(&self) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for (number, token) in (FIRST_GATEWAY..).zip(&self.gateway_tokens) {
            let joined = Peer::join(&self.place, "gateway", token, number, GatewayToPortal::Hello).await?;
            peers.push(joined.0);
        }
        Ok(peers)
    }

    pub(crate) async fn client(&self, number: u32) -> Result<Peer> {
        let token = &self.client_tokens[number as usize];
        Ok(Peer::join(&self.place, "client", token, number, ClientToPortal::Hello).await?.0)
    }

    pub(crate) async fn clients(&self) -> Result<Vec<Peer>> {
        let count = u32::try_from(self.client_tokens.len())?;
        stream::iter(0..count).map(|number| self.client(number)).buffered(AT_ONCE).try_collect().await
    }
}
