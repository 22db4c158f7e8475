//! The usual world: portal and relays on the "internet", clients and gateways behind routers of their own, and
//! sites with private servers behind the gateways.
//!
//! ```text
//!                 portal   relay0 …
//!                     \     /
//! client0 ─ client-router0 ─ internet ─ gateway-router0 ─ gateway0 ─┐
//! client1 ─ client-router1 ─/        \─ gateway-router1 ─ gateway1 ─┴─ site0 switch ─ web0, dns0
//! ```

mod plan;
mod way;

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

pub use way::Way;

pub use plan::{CLIENT_PUBLIC, Families, GATEWAY_PUBLIC, PUBLIC_RESOLVER, Pair, Subnet, Zone, site_address};

use crate::link::{Link, Profile};
use crate::nat::{DirectPaths, Nat, Router};
use crate::world::{End, Host, World};

/// How large the world is and how its networks behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Clients, each behind a router of its own; at most 29.
    pub clients: u8,
    /// Sites with a web and a DNS server each.
    pub sites: u8,
    /// Gateways in each site, each behind a router of its own; sites times gateways at most 29.
    pub gateways_per_site: u8,
    /// Relays; at most 28.
    pub relays: u8,
    /// IP versions outside; the private networks always have both.
    pub families: Families,
    /// Translation at the client routers.
    pub client_nat: Nat,
    /// Translation at the gateway routers.
    pub gateway_nat: Nat,
    /// Emulation between the client routers and the internet; `None` is a plain cable.
    pub client_link: Option<Profile>,
    /// Emulation between the gateway routers and the internet.
    pub gateway_link: Option<Profile>,
    /// Emulation between portal, relays and the internet.
    pub server_link: Option<Profile>,
    /// Whether clients have a second network to move to; at most 14 clients then.
    pub second_way: bool,
}

impl Options {
    /// A plain network: no delay, no translation, no firewall.
    pub fn lan() -> Self {
        Self { client_nat: Nat::Open, gateway_nat: Nat::Open, ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: 1,
            sites: 1,
            gateways_per_site: 1,
            relays: 1,
            families: Families::Both,
            client_nat: Nat::PortPreserving,
            gateway_nat: Nat::PortPreserving,
            client_link: None,
            gateway_link: None,
            server_link: None,
            second_way: false,
        }
    }
}

/// A server with a public address.
#[derive(Debug)]
pub struct Server {
    /// The machine.
    pub host: Host,
    /// Its addresses.
    pub address: Pair,
    /// Its cable, when emulated.
    pub link: Option<Link>,
}

/// A machine behind a router.
#[derive(Debug)]
pub struct Edge {
    /// The machine itself.
    pub host: Host,
    /// Its addresses.
    pub address: Pair,
    /// The router before it.
    pub router: Router,
    /// The router's outside addresses.
    pub public: Pair,
    /// The router's cable to the internet, when emulated.
    pub link: Option<Link>,
    /// Another network that the machine can move to.
    pub second: Option<Way>,
}

/// A private network with its servers and gateways.
#[derive(Debug)]
pub struct Site {
    /// The switch that joins the site.
    pub switch: Host,
    /// The web server's machine.
    pub web: Host,
    /// Its private addresses.
    pub web_address: Pair,
    /// The DNS server's machine.
    pub dns: Host,
    /// Its private addresses.
    pub dns_address: Pair,
    /// The gateways.
    pub gateways: Vec<Edge>,
}

/// The whole world; dropping it takes everything down.
#[derive(Debug)]
pub struct Topology {
    /// Clients behind their routers.
    pub clients: Vec<Edge>,
    /// Sites with their gateways.
    pub sites: Vec<Site>,
    /// The portal's machine.
    pub portal: Server,
    /// The relays' machines.
    pub relays: Vec<Server>,
    /// The router in the middle.
    pub internet: Host,
    /// Switch for the direct paths between clients and gateways.
    pub direct_paths: DirectPaths,
    /// IP versions outside.
    pub families: Families,
    /// Owner of all namespaces; last, so that links stop before their interfaces vanish.
    pub world: World,
}

impl Topology {
    /// Raises the world, with logs below `log_dir`.
    ///
    /// # Errors
    /// Without root rights, or when a part cannot be made; what was made by then is removed.
    pub fn raise(options: &Options, log_dir: &Path) -> Result<Self> {
        let mut world = World::new(log_dir)?;
        let internet = world.add_router("internet")?;
        internet.ip(&format!("address add {}/32 dev lo", PUBLIC_RESOLVER.v4))?;
        internet.ip(&format!("address add {}/128 dev lo", PUBLIC_RESOLVER.v6))?;
        let mut build = Builder { world: &mut world, internet: &internet, options };
        let portal = build.server("portal", 0)?;
        let relays = (0..options.relays).map(|index| build.server(&format!("relay{index}"), index + 1));
        let relays = relays.collect::<Result<Vec<_>>>()?;
        let clients = (0..options.clients).map(|index| build.client(index)).collect::<Result<Vec<_>>>()?;
        let sites = (0..options.sites).map(|index| build.site(index)).collect::<Result<Vec<_>>>()?;
        let direct_paths = DirectPaths::new(
            &internet,
            [CLIENT_PUBLIC.0, GATEWAY_PUBLIC.0],
            [CLIENT_PUBLIC.1, GATEWAY_PUBLIC.1],
        );
        let families = options.families;
        Ok(Self { clients, sites, portal, relays, internet, direct_paths, families, world })
    }

    /// The first client.
    ///
    /// # Panics
    /// In a world without clients.
    pub fn client(&self) -> &Edge {
        &self.clients[0]
    }

    /// The first gateway of the first site.
    ///
    /// # Panics
    /// In a world without gateways.
    pub fn gateway(&self) -> &Edge {
        &self.sites[0].gateways[0]
    }
}

struct Builder<'a> {
    world: &'a mut World,
    internet: &'a Host,
    options: &'a Options,
}

impl Builder<'_> {
    fn server(&mut self, name: &str, index: u8) -> Result<Server> {
        let host = self.world.add_host(name)?;
        let subnet = Zone::Servers.outside(index);
        let link =
            self.join(&End::new(self.internet, name), &End::new(&host, "eth0"), self.options.server_link)?;
        self.address(&End::new(self.internet, name), &End::new(&host, "eth0"), subnet)?;
        Ok(Server { host, address: subnet.far, link })
    }

    fn client(&mut self, index: u8) -> Result<Edge> {
        let (nat, profile) = (self.options.client_nat, self.options.client_link);
        let mut edge = self.edge(Zone::Clients, "client", index, nat, profile)?;
        if self.options.second_way {
            edge.second = Some(self.second_way(&edge, index, nat, profile)?);
        }
        edge.host.set_resolvers(&[PUBLIC_RESOLVER.of(self.options.families)])?;
        Ok(edge)
    }

    /// A machine behind a router: `internet ─ <role>-router<i> ─ <role><i>`.
    fn edge(
        &mut self,
        zone: Zone,
        role: &str,
        index: u8,
        nat: Nat,
        profile: Option<Profile>,
    ) -> Result<Edge> {
        let router = self.world.add_router(&format!("{role}-router{index}"))?;
        let host = self.world.add_host(&format!("{role}{index}"))?;
        let (outside, inside) = (zone.outside(index), zone.inside(index));
        let uplink = (End::new(self.internet, &format!("{role}{index}")), End::new(&router, "wan"));
        let downlink = (End::new(&router, "lan"), End::new(&host, "eth0"));
        let link = self.join(&uplink.0, &uplink.1, profile)?;
        self.address(&uplink.0, &uplink.1, outside)?;
        self.join(&downlink.0, &downlink.1, None)?;
        self.address(&downlink.0, &downlink.1, inside)?;
        if self.options.families.has_v6() {
            // IPv6 is routed to the machine, not translated.
            let prefix = format!("{}/64", inside.near.v6);
            self.internet.ip(&format!("route add {} via {}", network(&prefix), outside.far.v6))?;
        }
        self.route_inside(nat, inside, outside)?;
        let router = Router::new(&router, "lan", "wan", nat)?;
        Ok(Edge { host, address: inside.far, router, public: outside.far, link, second: None })
    }

    /// Without translation, private IPv4 addresses must be found from everywhere.
    fn route_inside(&self, nat: Nat, inside: Subnet, outside: Subnet) -> Result<()> {
        if nat == Nat::Open && self.options.families.has_v4() {
            self.internet.ip(&format!("route add {}/32 via {}", inside.far.v4, outside.far.v4))?;
        }
        Ok(())
    }

    /// A second router before a client, whose cable is not plugged in yet.
    fn second_way(&mut self, edge: &Edge, index: u8, nat: Nat, profile: Option<Profile>) -> Result<Way> {
        let number = index + way::FIRST;
        let router = self.world.add_router(&format!("client-router{number}"))?;
        let (outside, inside) = (Zone::Clients.outside(number), Zone::Clients.inside(number));
        let uplink = (End::new(self.internet, &format!("client{number}")), End::new(&router, "wan"));
        let downlink = (End::new(&router, "lan"), End::new(&edge.host, way::INTERFACE));
        let link = self.join(&uplink.0, &uplink.1, profile)?;
        self.address(&uplink.0, &uplink.1, outside)?;
        self.world.connect(&downlink.0, &downlink.1)?;
        way::prepare(&downlink.0, &downlink.1, inside, self.options.families)?;
        if self.options.families.has_v6() {
            let prefix = format!("{}/64", inside.near.v6);
            self.internet.ip(&format!("route add {} via {}", network(&prefix), outside.far.v6))?;
        }
        self.route_inside(nat, inside, outside)?;
        let router = Router::new(&router, "lan", "wan", nat)?;
        let first = Zone::Clients.inside(index);
        Ok(Way {
            host: edge.host.clone(),
            routers: [edge.router.host.clone(), router.host.clone()],
            router,
            link,
            subnets: [first, inside],
            families: self.options.families,
        })
    }

    fn site(&mut self, index: u8) -> Result<Site> {
        let switch = self.world.add_host(&format!("site{index}"))?;
        switch.ip("link add lan type bridge")?;
        switch.ip("link set lan up")?;
        let web = self.world.add_host(&format!("web{index}"))?;
        let dns = self.world.add_host(&format!("dns{index}"))?;
        let (web_address, dns_address) = (site_address(index, 80), site_address(index, 53));
        self.plug(&switch, &web, "eth0", web_address)?;
        self.plug(&switch, &dns, "eth0", dns_address)?;
        let mut gateways = Vec::new();
        for within in 0..self.options.gateways_per_site {
            let number = index * self.options.gateways_per_site + within;
            let (nat, profile) = (self.options.gateway_nat, self.options.gateway_link);
            let gateway = self.edge(Zone::Gateways, "gateway", number, nat, profile)?;
            self.plug(&switch, &gateway.host, "site", site_address(index, 11 + within))?;
            gateway.host.set_resolvers(&[IpAddr::from(dns_address.v4)])?;
            gateways.push(gateway);
        }
        Ok(Site { switch, web, web_address, dns, dns_address, gateways })
    }

    /// Joins a machine to a site's switch.
    fn plug(&mut self, switch: &Host, host: &Host, interface: &str, address: Pair) -> Result<()> {
        let port = End::new(switch, host.name());
        self.world.connect(&port, &End::new(host, interface))?;
        switch.ip(&format!("link set {} master lan", port.interface))?;
        host.ip(&format!("address add {}/24 dev {interface}", address.v4))?;
        host.ip(&format!("address add {}/64 dev {interface}", address.v6))
    }

    fn join(&mut self, near: &End, far: &End, profile: Option<Profile>) -> Result<Option<Link>> {
        match profile {
            Some(profile) => self.world.connect_emulated(near, far, profile).map(Some),
            None => self.world.connect(near, far).map(|()| None),
        }
    }

    fn address(&self, near: &End, far: &End, subnet: Subnet) -> Result<()> {
        address(near, far, subnet, self.options.families)
    }
}

/// Addresses both ends of a cable and makes the near one the far one's default route.
pub(crate) fn address(near: &End, far: &End, subnet: Subnet, families: Families) -> Result<()> {
    if families.has_v4() {
        for (end, address) in [(near, subnet.near), (far, subnet.far)] {
            end.host.ip(&format!("address add {}/{} dev {}", address.v4, subnet.v4_length, end.interface))?;
        }
        far.host.ip(&format!("route add default via {} dev {}", subnet.near.v4, far.interface))?;
    }
    if families.has_v6() {
        for (end, address) in [(near, subnet.near), (far, subnet.far)] {
            end.host.ip(&format!("address add {}/64 dev {}", address.v6, end.interface))?;
        }
        far.host.ip(&format!("-6 route add default via {} dev {}", subnet.near.v6, far.interface))?;
    }
    Ok(())
}

/// `2001:db8::1/64` to `2001:db8::/64`; every IPv6 network of the plan is a /64 with a small host part.
fn network(prefix: &str) -> String {
    prefix.replace("::1/64", "::/64")
}
