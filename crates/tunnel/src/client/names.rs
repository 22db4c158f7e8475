//! Names of DNS resources, and the resolver that applications ask.
//!
//! The resolver has the address after the first one of each proxy range, for instance
//! `100.96.0.1` of `100.96.0.0/16`: no name is ever given an address of that first block, and
//! the range is routed into the tunnel anyway. Packets to it never become flows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_dns::{Pattern, Server, Settings};
use adit_packet::PacketView;
use adit_policy::ResourceId;
use adit_protocol::Interface as Configuration;

use super::{Client, ClientEvent};
use crate::drops::DropReason;

pub use adit_dns::{Transport as DnsTransport, UpstreamFailure as DnsFailure, UpstreamId as DnsQueryId};

/// Who has a proxy address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) name: String,
    /// All proxy addresses of the name.
    pub(super) addresses: Vec<IpAddr>,
    /// The resources that the name belongs to, the most specific pattern first.
    pub(super) resources: Vec<ResourceId>,
}

/// The resolver, once the portal said which ranges are ours.
#[derive(Debug)]
pub(super) struct Names {
    server: Option<Server<ResourceId>>,
    seed: [u8; 32],
    resolver: (Ipv4Addr, Ipv6Addr),
    /// The portal's, which win if there are any, and the system's.
    upstreams: (Vec<SocketAddr>, Vec<SocketAddr>),
    /// Names that others answer, and who.
    delegations: Vec<(Pattern, Vec<SocketAddr>)>,
}

impl Names {
    pub(super) const fn new(seed: [u8; 32]) -> Self {
        Self {
            server: None,
            seed,
            resolver: (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            upstreams: (Vec::new(), Vec::new()),
            delegations: Vec::new(),
        }
    }

    pub(super) fn configure(&mut self, now: Instant, configuration: &Configuration) {
        let (ipv4_proxies, ipv6_proxies) = (configuration.ipv4_proxy_range, configuration.ipv6_proxy_range);
        let ipv4 = Ipv4Addr::from_bits(ipv4_proxies.network().to_bits().saturating_add(1));
        let ipv6 = Ipv6Addr::from_bits(ipv6_proxies.network().to_bits().saturating_add(1));
        let settings = Settings { ipv4, ipv6, ipv4_proxies, ipv6_proxies };
        self.resolver = (ipv4, ipv6);
        match &mut self.server {
            Some(server) => server.configure(now, settings),
            None => self.server = Some(Server::new(now, settings, self.seed)),
        }
        self.upstreams.0.clone_from(&configuration.dns_upstreams);
        self.apply_upstreams();
        self.apply_delegations();
    }

    fn apply_delegations(&mut self) {
        if let Some(server) = &mut self.server {
            server.set_delegations(self.delegations.clone());
        }
    }

    fn apply_upstreams(&mut self) {
        let upstreams = self.upstreams_in_force();
        if let Some(server) = &mut self.server {
            server.set_upstreams(upstreams);
        }
    }

    fn upstreams_in_force(&self) -> Vec<SocketAddr> {
        let (portal, system) = &self.upstreams;
        // Asking ourselves would go round in circles.
        let chosen = if portal.is_empty() { system } else { portal };
        chosen.iter().filter(|upstream| !self.is_resolver(upstream.ip())).copied().collect()
    }

    pub(super) fn set_resources<'a>(&mut self, patterns: impl Iterator<Item = (ResourceId, &'a str)>) {
        let parsed = patterns.filter_map(|(id, text)| match text.parse::<Pattern>() {
            Ok(pattern) => Some((pattern, id)),
            Err(error) => {
                tracing::warn!(resource = %id, %error, "the pattern of a resource is not usable");
                None
            }
        });
        if let Some(server) = &mut self.server {
            server.set_resources(parsed.collect());
        }
    }

    /// Where applications find the resolver.
    pub(super) const fn resolver(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.resolver
    }

    pub(super) fn is_resolver(&self, address: IpAddr) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_resolver(address))
    }

    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_proxy(address))
    }

    /// Who has a proxy address; the name keeps it for a while because of that.
    pub(super) fn owner(&mut self, now: Instant, address: IpAddr) -> Option<Owner> {
        let owner = self.server.as_mut()?.owner(now, address)?;
        Some(Owner {
            name: owner.name.as_str().to_owned(),
            addresses: owner.assignment.addresses().collect(),
            resources: owner.resources,
        })
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(server) = &mut self.server {
            server.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.server.as_ref()?.poll_timeout()
    }
}

impl Client {
    /// Sets the system's own resolvers, for names that are no resources if the portal names none.
    pub fn set_system_resolvers(&mut self, now: Instant, resolvers: Vec<SocketAddr>) {
        self.names.upstreams.1 = resolvers;
        self.names.apply_upstreams();
        self.settle(now);
    }

    /// Sets which names other resolvers answer, such as those of another tunnel of this host, unless they belong to a
    /// resource here. What is no pattern is left out.
    pub fn set_delegations(&mut self, now: Instant, delegations: &[(Vec<String>, Vec<SocketAddr>)]) {
        let parsed = delegations.iter().flat_map(|(patterns, servers)| {
            let patterns = patterns.iter().filter_map(|text| text.parse::<Pattern>().ok());
            patterns.map(|pattern| (pattern, servers.clone()))
        });
        self.names.delegations = parsed.collect();
        self.names.apply_delegations();
        self.settle(now);
    }

    /// Whom the resolver asks for names that are no resources, and whether the portal named them.
    pub fn upstreams(&self) -> (Vec<SocketAddr>, bool) {
        (self.names.upstreams_in_force(), !self.names.upstreams.0.is_empty())
    }

    /// Takes the answer to a [`ClientEvent::DnsQuery`], or that there was none.
    pub fn handle_dns_response(
        &mut self,
        now: Instant,
        id: DnsQueryId,
        response: Result<Vec<u8>, DnsFailure>,
    ) {
        let Some(server) = &mut self.names.server else { return };
        let outcome = response.as_deref().map_err(|failure| *failure);
        if server.handle_response(now, id, outcome).is_err() {
            self.link.drops.count(DropReason::UnknownQuery);
        }
        self.settle(now);
    }

    pub(super) fn handle_resolver_packet(&mut self, now: Instant, packet: &[u8], view: &PacketView) {
        let Some(server) = &mut self.names.server else { return };
        if server.handle_packet(now, packet, view).is_err() {
            self.link.drops.count(DropReason::InvalidQuery);
        }
    }

    /// Passes on what the resolver has to say.
    pub(super) fn collect_names(&mut self) {
        let Some(server) = &mut self.names.server else { return };
        while let Some(packet) = server.poll_packet() {
            self.link.write_tun(packet);
        }
        while let Some(query) = server.poll_upstream_query() {
            self.events.push_back(ClientEvent::DnsQuery {
                id: query.id,
                upstream: query.server,
                transport: query.transport,
                message: query.message,
            });
        }
    }
}
