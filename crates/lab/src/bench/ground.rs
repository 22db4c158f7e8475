//! The world of a bench: two ends, a router between them, and a resource behind the gateway.
//!
//! ```text
//! client ─┐                ┌─ gateway ─ resource
//!         ├──── router ────┤
//! second ─┘                └─ portal, relay
//! ```
//!
//! Each implementation has a resource address of its own, so that all are up at once and routes decide which tunnel
//! a test goes through. Those of the peers are in a network apart from ours, because our client routes its whole
//! resource with precedence over the main routing table.

use std::path::Path;

use anyhow::Result;

use super::case::Setting;
use super::implementation::Implementation;
use crate::topology::{self, Families, PUBLIC_RESOLVER, Server, Subnet, Zone};
use crate::world::{End, Host, World};

/// What our resource is called, and its address.
pub(super) const OUR_NAME: &str = "app.corp.example";
pub(super) const OUR_ADDRESS: &str = "10.30.0.80";
/// What an administrator writes for it.
pub(super) const OUR_NETWORK: &str = "10.30.0.0/24";

const OUR_GATEWAY: &str = "10.30.0.1";
const PEER_GATEWAY: &str = "10.30.1.1";
const PEER_NETWORK: &str = "10.30.1.0/24";

/// The network of the second client, and that of portal and relay.
const SECOND_CLIENT: &str = "198.51.100.8/29";
const SERVERS: &str = "203.0.113.0/24";

/// The machines; dropping it takes them down.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) client: Host,
    /// A client whose direct paths to the gateway are blocked.
    pub(super) second: Option<Host>,
    pub(super) gateway: Host,
    pub(super) resource: Host,
    pub(super) portal: Server,
    pub(super) relay: Server,
    pub(super) setting: Setting,
    router: Host,
    world: World,
}

impl Ground {
    /// Raises the world, with logs below `log_dir`.
    ///
    /// # Errors
    /// Without root rights, or when a part cannot be made; what was made by then is removed.
    pub(super) fn raise(setting: Setting, log_dir: &Path) -> Result<Self> {
        let mut world = World::new(log_dir)?;
        let router = world.add_router("router")?;
        let client = join(&mut world, &router, "client", Zone::Clients.outside(0))?;
        let second = match setting {
            Setting::Relayed => Some(join(&mut world, &router, "second", Zone::Clients.outside(1))?),
            _ => None,
        };
        let gateway = join(&mut world, &router, "gateway", Zone::Gateways.outside(0))?;
        let portal = server(&mut world, &router, "portal", 0)?;
        let relay = server(&mut world, &router, "relay", 1)?;
        let resource = world.add_host("resource")?;
        let ground = Self { client, second, gateway, resource, portal, relay, setting, router, world };
        ground.prepare()
    }

    fn prepare(mut self) -> Result<Self> {
        self.client.set_resolvers(&[PUBLIC_RESOLVER.v4.into()])?;
        self.gateway.set_resolvers(&[OUR_ADDRESS.parse()?])?;
        self.gateway.sysctl("net/ipv4/ip_forward", "1")?;
        for host in self.world.hosts() {
            // A machine with many tunnels must not wonder through which one a packet comes.
            for scope in ["all", "default"] {
                host.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            }
        }
        self.connect_resource()?;
        self.shape()?;
        if let Some(second) = &self.second {
            second.set_resolvers(&[PUBLIC_RESOLVER.v4.into()])?;
            self.router.nft(&servers_only(SECOND_CLIENT))?;
        }
        Ok(self)
    }

    fn connect_resource(&mut self) -> Result<()> {
        let (near, far) = (End::new(&self.gateway, "site"), End::new(&self.resource, "eth0"));
        self.world.connect(&near, &far)?;
        for address in [OUR_GATEWAY, PEER_GATEWAY] {
            self.gateway.ip(&format!("address add {address}/24 dev site"))?;
        }
        self.resource.ip(&format!("address add {OUR_ADDRESS}/24 dev eth0"))?;
        for peer in Implementation::PEERS {
            self.resource.ip(&format!("address add {}/24 dev eth0", resource_address(peer)))?;
        }
        self.resource.ip(&format!("route add default via {OUR_GATEWAY}"))?;
        let gateway = Zone::Gateways.outside(0).far.v4;
        self.router.ip(&format!("route add {PEER_NETWORK} via {gateway}"))
    }

    /// Takes from the wire between the two ends what the setting does not have.
    fn shape(&self) -> Result<()> {
        let receive = match self.setting {
            Setting::Gro => "on",
            Setting::Seg => "off",
            Setting::Fast | Setting::Pinned | Setting::Relayed => return Ok(()),
        };
        let ends = [
            (&self.client, "eth0"),
            (&self.router, "client"),
            (&self.router, "gateway"),
            (&self.gateway, "eth0"),
        ];
        for (host, interface) in ends {
            let features = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", receive];
            host.run(&[&["ethtool", "-K", interface], &features[..]].concat())?;
        }
        Ok(())
    }

    /// The processor that the client's side has to itself.
    pub(super) fn client_processor(&self) -> Option<usize> {
        (self.setting == Setting::Pinned).then_some(0)
    }

    /// The processor of the gateway and the resource.
    pub(super) fn gateway_processor(&self) -> Option<usize> {
        (self.setting == Setting::Pinned).then_some(1)
    }

    /// Where the client is, as seen by the gateway.
    pub(super) fn client_address() -> std::net::Ipv4Addr {
        Zone::Clients.outside(0).far.v4
    }

    /// Where the gateway is, as seen by the client.
    pub(super) fn gateway_address() -> std::net::Ipv4Addr {
        Zone::Gateways.outside(0).far.v4
    }
}

/// The address that belongs to this peer alone.
pub(super) fn resource_address(peer: Implementation) -> String {
    format!("10.30.1.{}", peer.number())
}

/// Rules by which these clients can talk UDP to the servers alone: every address of the gateway is out of their reach.
fn servers_only(clients: &str) -> String {
    format!(
        "flush ruleset
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ip saddr {clients} ip daddr != {SERVERS} meta l4proto udp drop
        ip daddr {clients} ip saddr != {SERVERS} meta l4proto udp drop
    }}
}}
"
    )
}

fn join(world: &mut World, router: &Host, name: &str, subnet: Subnet) -> Result<Host> {
    let host = world.add_host(name)?;
    let (near, far) = (End::new(router, name), End::new(&host, "eth0"));
    world.connect(&near, &far)?;
    topology::address(&near, &far, subnet, Families::V4)?;
    Ok(host)
}

fn server(world: &mut World, router: &Host, name: &str, index: u8) -> Result<Server> {
    let subnet = Zone::Servers.outside(index);
    Ok(Server { host: join(world, router, name, subnet)?, address: subnet.far, link: None })
}
