//! The whole system in the usual world: what demo and scenarios stand on.
//!
//! One site with a web server, an echo server and a DNS server; two resources (the site's network by address,
//! and `app.corp.example` by name); one user in one group that may reach both; the user's devices signed in.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::probe::dns::DnsServer;
use crate::probe::http::{self, Page};
use crate::probe::udp::{EchoServer, Probe};
use crate::probe::web::WebServer;
use crate::scenario::{self, Target};
use crate::system::{Client, Gateway, Portal, Programs, Relay, StateDir};
use crate::topology::{Families, Options, PUBLIC_RESOLVER, Topology};
use crate::world::Host;

/// The private name.
pub const PRIVATE_NAME: &str = "app.corp.example";
/// A name that belongs to nobody's resource.
pub const PUBLIC_NAME: &str = "www.example.com";
/// What the private page says.
pub const PRIVATE_PAGE: &str = "a private page\n";
/// The private network, as an administrator writes it.
pub const PRIVATE_NETWORK: &str = "10.30.0.0/24";

const ECHO_PORT: u16 = 7;

/// Time in which a page must come, connections included.
const PAGE_LIMIT: Duration = Duration::from_secs(15);

/// Lifetime of sign-in tokens, when a story does not say otherwise.
pub const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Objects in the portal that stories come back to.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The user.
    pub actor: String,
    /// The user's group.
    pub group: String,
    /// The site.
    pub site: String,
    /// Token of the site's gateways.
    pub gateway_token: String,
    /// Policies: the network, the name.
    pub policies: Vec<String>,
}

/// The system and its world. Programs end before the world does.
#[derive(Debug)]
pub struct Stage {
    /// Devices with their daemons.
    pub clients: Vec<Client>,
    /// Gateways of the site.
    pub gateways: Vec<Gateway>,
    /// Relays.
    pub relays: Vec<Relay>,
    /// The portal.
    pub portal: Portal,
    /// Objects in the portal.
    pub access: Access,
    /// The private web server.
    pub web: WebServer,
    /// Echoes datagrams, on the web server's machine.
    pub echo: EchoServer,
    /// The site's DNS server.
    pub site_dns: DnsServer,
    /// The resolver that clients have without us.
    pub public_dns: DnsServer,
    /// State of all programs.
    pub state: StateDir,
    /// The world.
    pub topology: Topology,
    programs: Programs,
}

impl Stage {
    /// Raises the world, starts its servers and bootstraps the portal; no program runs yet.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn raise(options: &Options, programs: &Programs, log_dir: &Path) -> Result<Self> {
        let topology = Topology::raise(options, log_dir)?;
        let site = &topology.sites[0];
        let web = WebServer::start(&site.web, 80, PRIVATE_PAGE)?;
        let echo = EchoServer::start(&site.web, ECHO_PORT)?;
        let private: [IpAddr; 2] = [site.web_address.v4.into(), site.web_address.v6.into()];
        let site_dns = DnsServer::start(&site.dns, site.dns_address.v4.into(), &[(PRIVATE_NAME, &private)])?;
        let public: [IpAddr; 2] = [PUBLIC_RESOLVER.v4.into(), PUBLIC_RESOLVER.v6.into()];
        let public_dns = DnsServer::start(
            &topology.internet,
            PUBLIC_RESOLVER.of(options.families),
            &[(PUBLIC_NAME, &public)],
        )?;
        let state = StateDir::create()?;
        let address = topology.portal.address.of(options.families);
        let portal = Portal::bootstrap(&topology.portal.host, address, programs, &state)?;
        Ok(Self {
            clients: Vec::new(),
            gateways: Vec::new(),
            relays: Vec::new(),
            portal,
            access: Access::default(),
            web,
            echo,
            site_dns,
            public_dns,
            state,
            topology,
            programs: programs.clone(),
        })
    }

    /// Raises everything and signs every client in.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn complete(options: &Options, context: &scenario::Context) -> Result<Self> {
        let mut stage = Self::raise(options, &context.programs, context.log_dir())?;
        stage.portal.start()?;
        stage.start_relays()?;
        stage.grant_access()?;
        stage.start_gateways()?;
        stage.start_clients()?;
        stage.sign_in(MONTH)?;
        Ok(stage)
    }

    /// Starts every relay.
    ///
    /// # Errors
    /// When one does not become ready.
    pub fn start_relays(&mut self) -> Result<()> {
        for server in &self.topology.relays {
            let families = self.topology.families;
            self.relays.push(Relay::start(server, families, &self.portal, &self.programs, &self.state)?);
        }
        Ok(())
    }

    /// Makes site, resources, group, user and policies.
    ///
    /// # Errors
    /// When the portal refuses.
    pub fn grant_access(&mut self) -> Result<()> {
        let portal = &self.portal;
        let site = portal.create_site("office")?;
        let group = portal.create_group("engineers")?;
        let actor = portal.create_actor("ana", &group)?;
        let mut policies = Vec::new();
        for (name, address) in [("office network", PRIVATE_NETWORK), ("app", PRIVATE_NAME)] {
            let resource = portal.create_resource(&site, name, address)?;
            policies.push(portal.create_policy(&group, &resource)?);
        }
        let gateway_token = portal.create_gateway_token(&site)?;
        self.access = Access { actor, group, site, gateway_token, policies };
        Ok(())
    }

    /// Starts every gateway of the site.
    ///
    /// # Errors
    /// When one does not become ready.
    pub fn start_gateways(&mut self) -> Result<()> {
        for edge in &self.topology.sites[0].gateways {
            let token = &self.access.gateway_token;
            let mut gateway = Gateway::new(edge, token, &self.portal, &self.programs, &self.state)?;
            gateway.start()?;
            self.gateways.push(gateway);
        }
        Ok(())
    }

    /// Starts every gateway of the site from another file.
    ///
    /// # Errors
    /// When one does not become ready.
    pub fn start_gateways_from(&mut self, program: &Path) -> Result<()> {
        for edge in &self.topology.sites[0].gateways {
            let token = &self.access.gateway_token;
            let mut gateway = Gateway::new(edge, token, &self.portal, &self.programs, &self.state)?;
            gateway.set_program(program);
            gateway.start()?;
            self.gateways.push(gateway);
        }
        Ok(())
    }

    /// Starts the daemon on one more machine.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_client_on(&self, host: &Host) -> Result<Client> {
        Client::start_on(host, &self.portal, &self.programs, &self.state)
    }

    /// Starts every client's daemon.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn start_clients(&mut self) -> Result<()> {
        for edge in &self.topology.clients {
            self.clients.push(Client::start(edge, &self.portal, &self.programs, &self.state)?);
        }
        Ok(())
    }

    /// Signs every client in, with a token each.
    ///
    /// # Errors
    /// When one does not come online.
    pub fn sign_in(&self, lifetime: Duration) -> Result<()> {
        for client in &self.clients {
            let token = self.portal.create_client_token(&self.access.actor, lifetime)?;
            client.sign_in(&token, &self.state)?;
        }
        Ok(())
    }

    /// The first client.
    ///
    /// # Panics
    /// Before the clients were started.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Where the echo server is, in the private network.
    pub fn echo_address(&self) -> SocketAddr {
        SocketAddr::new(self.topology.sites[0].web_address.v4.into(), ECHO_PORT)
    }

    /// URL of the private page by address.
    pub fn page_by_address(&self) -> String {
        format!("http://{}/", self.topology.sites[0].web_address.v4)
    }

    /// URL of the private page by name.
    pub fn page_by_name(&self) -> String {
        format!("http://{PRIVATE_NAME}/")
    }

    /// Opens the private page as the first client's user and checks what it says.
    ///
    /// # Errors
    /// When it does not come or says something else.
    pub fn open_page(&self, url: &str) -> Result<Page> {
        let page = http::fetch(self.client().host(), url, PAGE_LIMIT)?;
        if page.status != 200 || page.body != PRIVATE_PAGE {
            bail!("{url} answered {} `{}`", page.status, page.body);
        }
        Ok(page)
    }

    /// Which gateway the first client's only connection leads to.
    ///
    /// # Errors
    /// When it has no connection.
    pub fn gateway_in_use(&self) -> Result<usize> {
        let status = self.client().status()?;
        let used = &status.connections.first().context("no connection")?.name;
        let index = self.gateways.iter().position(|gateway| gateway.host().name() == used);
        index.with_context(|| format!("no gateway is called {used}"))
    }

    /// Which relay the first client's only connection goes through.
    ///
    /// # Errors
    /// When it goes through none.
    pub fn relay_in_use(&self) -> Result<usize> {
        let status = self.client().status()?;
        let connection = status.connections.first().context("no connection")?;
        let remote = connection.remote.as_deref().context("the connection has no path")?;
        let address: IpAddr = remote
            .parse()
            .or_else(|_| remote.parse().map(|socket: SocketAddr| socket.ip()))
            .with_context(|| format!("not an address: {remote}"))?;
        let servers = &self.topology.relays;
        let index = servers.iter().position(|server| {
            [IpAddr::from(server.address.v4), server.address.v6.into()].contains(&address)
        });
        index.with_context(|| format!("no relay is at {remote}"))
    }

    /// Starts one relay, again or for the first time.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_relay(&self, index: usize) -> Result<Relay> {
        let server = self.topology.relays.get(index).context("there is no such relay")?;
        Relay::start(server, self.topology.families, &self.portal, &self.programs, &self.state)
    }

    /// Sends numbered datagrams from the first client to the echo server.
    ///
    /// # Errors
    /// When there is no route to it.
    pub fn probe(&self, per_second: u32) -> Result<Probe> {
        Probe::start(self.client().host(), self.echo_address(), per_second, 64)
    }

    /// Waits until the echo server can be reached, with a new socket each time: one that is opened before the
    /// route is there keeps another source address.
    ///
    /// # Errors
    /// When it cannot be reached within `limit`.
    pub fn reach(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let tried = self.probe(20)?.wait_for_reply_after(Instant::now(), Duration::from_millis(500));
            match tried {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > limit => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Records the resident memory of every running program.
    ///
    /// # Errors
    /// When one has ended.
    pub fn record_memory(&self, context: &mut scenario::Context) -> Result<()> {
        let portal = self.portal.process();
        let relay = self.relays.first().map(Relay::process);
        let gateway = self.gateways.first().and_then(Gateway::process);
        let client = self.clients.first().map(Client::process);
        for process in [portal, relay, gateway, client].into_iter().flatten() {
            let mebibytes = process.resident_bytes()? as f64 / f64::from(1 << 20);
            context.record(
                &format!("resident memory of {}", process.name()),
                mebibytes,
                "MiB",
                Target::Shown,
            );
        }
        Ok(())
    }

    /// Stops every program in order, requires exit status 0 of each, and takes the world down.
    ///
    /// # Errors
    /// When a program does not stop in order, or the world leaves something behind.
    pub fn close(mut self) -> Result<()> {
        for client in self.clients.drain(..) {
            client.stop()?;
        }
        for gateway in &mut self.gateways {
            if gateway.process().is_some() {
                gateway.stop()?;
            }
        }
        for relay in self.relays.drain(..) {
            relay.stop()?;
        }
        if self.portal.process().is_some() {
            self.portal.stop()?;
        }
        let own: Vec<String> =
            self.topology.world.hosts().iter().map(|host| host.namespace().to_owned()).collect();
        drop(self);
        let left: Vec<&String> =
            own.iter().filter(|name| Path::new("/run/netns").join(name).exists()).collect();
        if !left.is_empty() {
            bail!("left behind: {left:?}");
        }
        Ok(())
    }

    /// Whether clients reach portal and relays over IPv6 alone.
    pub fn is_ipv6_only(&self) -> bool {
        self.topology.families == Families::V6
    }
}
