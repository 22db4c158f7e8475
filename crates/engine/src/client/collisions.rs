//! Addresses that are in use twice: in the tunnel, and in a network that the host is in or has a route to.
//!
//! The tunnel's routes are asked before the host's own ones, however specific those are: what is in both goes into
//! the tunnel, except to the addresses of the host itself. [`find`] says what that takes away.
//!
//! Deliberately absent: default routes of either side. An Internet resource leaves the host's networks alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use adit_platform::addresses::LocalNetwork;
use adit_tunnel::{Interface, ResourceStatus};
use ipnet::IpNet;

/// The most collisions that are reported.
pub(super) const MOST_COLLISIONS: usize = 64;

/// What is in use twice, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CollisionKind {
    /// A network of the host has addresses that the tunnel gives to names, or to this device.
    TunnelRange,
    /// A resource covers a network of the host, or a part of it.
    LocalNetwork,
    /// A resource or a range of the tunnel covers the router on the host's way out.
    Router,
    /// A resource or a range of the tunnel covers a name server that the client asks, past the tunnel.
    Resolver,
}

impl CollisionKind {
    /// A stable word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunnelRange => "tunnel_range",
            Self::LocalNetwork => "local_network",
            Self::Router => "router",
            Self::Resolver => "resolver",
        }
    }
}

/// Addresses that are in use twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collision {
    /// What is in use twice.
    pub kind: CollisionKind,
    /// The network of the host; a single address if it is a router or a name server.
    pub network: IpNet,
    /// The interface that leads to the network.
    pub interface: Option<String>,
    /// The tunnel's range, or the network of the resource.
    pub claimed: IpNet,
    /// The resource whose network it is.
    pub resource: Option<String>,
}

impl Collision {
    /// The addresses that are in both.
    pub fn taken(&self) -> IpNet {
        if self.network.prefix_len() >= self.claimed.prefix_len() { self.network } else { self.claimed }
    }
}

/// What the tunnel claims for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// Each network with the name of its resource; the tunnel's ranges have none.
    networks: BTreeMap<IpNet, Option<String>>,
}

impl Claims {
    /// What an interface and its resources claim.
    pub(super) fn new(interface: &Interface, resources: &[ResourceStatus]) -> Self {
        let mut claims = Self::default();
        for resource in resources {
            if let Some(network) = resource.address.network() {
                claims.add(network, Some(&resource.name));
            }
        }
        for address in [IpAddr::V4(interface.ipv4), IpAddr::V6(interface.ipv6)] {
            claims.add(IpNet::from(address), None);
        }
        for range in &interface.proxy_ranges {
            claims.add(*range, None);
        }
        claims
    }

    /// Adds a network of a resource, or a range of the tunnel.
    pub(super) fn add(&mut self, network: IpNet, resource: Option<&str>) {
        // A default route takes nothing away: networks of the host come before it.
        if network.prefix_len() > 0 {
            self.networks.insert(network.trunc(), resource.map(str::to_owned));
        }
    }

    /// The smallest claim that covers all of `network`.
    fn covering(&self, network: IpNet) -> Option<(IpNet, Option<&String>)> {
        (1..=network.prefix_len()).rev().find_map(|length| {
            let key = IpNet::new(network.addr(), length).ok()?.trunc();
            self.networks.get(&key).map(|resource| (key, resource.as_ref()))
        })
    }

    /// Claims for parts of `network`; none lies in another.
    fn inside(&self, network: IpNet) -> impl Iterator<Item = (IpNet, Option<&String>)> {
        let last = IpNet::from(network.broadcast());
        let mut before: Option<IpNet> = None;
        self.networks
            .range((Bound::Excluded(network), Bound::Included(last)))
            .filter(move |&(claim, _)| {
                let is_new = before.is_none_or(|before| !before.contains(claim));
                if is_new {
                    before = Some(*claim);
                }
                is_new
            })
            .map(|(claim, resource)| (*claim, resource.as_ref()))
    }
}

/// What the host has, and uses past the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostNetworks<'a> {
    /// Networks of other interfaces, the nearest first.
    pub(super) networks: &'a [LocalNetwork],
    /// The routers on the ways out.
    pub(super) routers: Vec<IpAddr>,
    /// The name servers for names that belong to no resource.
    pub(super) resolvers: Vec<IpAddr>,
}

/// Finds what is in use twice, the worst first, at most [`MOST_COLLISIONS`].
pub(super) fn find(claims: &Claims, host: &HostNetworks<'_>) -> Vec<Collision> {
    let mut found = Vec::new();
    let single = [(CollisionKind::Router, &host.routers), (CollisionKind::Resolver, &host.resolvers)];
    for (kind, addresses) in single {
        found.extend(addresses.iter().filter_map(|&address| {
            let network = IpNet::from(address);
            let (claimed, resource) = claims.covering(network)?;
            Some(Collision { kind, network, interface: None, claimed, resource: resource.cloned() })
        }));
    }
    for local in host.networks {
        if found.len() >= MOST_COLLISIONS {
            break;
        }
        let network = local.network.trunc();
        let covering = claims.covering(network);
        let parts = covering.is_none().then(|| claims.inside(network)).into_iter().flatten();
        let colliding = covering.into_iter().chain(parts).take(MOST_COLLISIONS);
        found.extend(colliding.map(|(claimed, resource)| Collision {
            kind: if resource.is_some() { CollisionKind::LocalNetwork } else { CollisionKind::TunnelRange },
            network,
            interface: Some(local.interface.clone()),
            claimed,
            resource: resource.cloned(),
        }));
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(MOST_COLLISIONS);
    found
}

/// Logs what was not there `before`.
pub(super) fn tell(before: &[Collision], now: &[Collision]) {
    for one in now.iter().filter(|one| !before.contains(one)) {
        let interface = one.interface.as_deref().unwrap_or_default();
        tracing::warn!(
            kind = one.kind.name(),
            interface,
            "addresses are in use both in the tunnel and outside: `adit status` says which"
        );
        let (network, claimed, resource) = (one.network, one.claimed, &one.resource);
        tracing::debug!(%network, %claimed, ?resource, interface, "these are the addresses in use twice");
    }
}

#[cfg(test)]
mod tests;
