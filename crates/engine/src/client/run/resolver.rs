//! The system's resolver, ours, and those of other tunnels of this host.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use adit_platform::dns_control::{Delegating, DnsSettings};
use adit_policy::ResourceAddress;
use adit_tunnel::Interface;

use super::Control;
use crate::client::NamesState;
use crate::doh::DohServer;

/// Where resolvers listen.
const DNS_PORT: u16 = 53;

/// Where names go that belong to no resource, unless the portal says.
pub(super) async fn system_resolvers(dns: &mut Delegating, doh: Option<&DohServer>) -> Vec<SocketAddr> {
    if let Some(doh) = doh {
        return doh.addresses().to_vec();
    }
    dns.upstreams().await.into_iter().map(|address| (address, DNS_PORT).into()).collect()
}

impl Control<'_> {
    /// Points the system's resolver at ours, and says whether that worked.
    pub(super) async fn set_resolver(&mut self, interface: &Interface) -> bool {
        // Before ours are in force: a network that is new may have brought others.
        let resolvers = system_resolvers(&mut self.dns, self.doh.as_ref()).await;
        self.driver.machine.set_system_resolvers(Instant::now(), resolvers);
        self.patterns = self.names_here();
        let settings =
            DnsSettings { servers: interface.dns_servers.clone(), search: interface.search_domains.clone() };
        let outcome = if settings.servers.is_empty() {
            self.dns.clear().await
        } else {
            self.dns.apply(&settings, self.patterns.clone()).await
        };
        if let Err(error) = &outcome {
            tracing::error!(error = format!("{error:#}"), "cannot set the system's resolver");
        }
        self.delegate();
        outcome.is_ok()
    }

    /// Has other tunnels of this host asked for the names that they answer.
    pub(super) fn delegate(&mut self) {
        let servers = |servers: &[IpAddr]| servers.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
        let others: Vec<(Vec<String>, Vec<SocketAddr>)> = (self.dns.delegations().into_iter())
            .map(|other| (other.patterns, servers(&other.servers)))
            .collect();
        if self.delegations != others {
            self.upstreams.reach_through_tunnel(others.iter().flat_map(|(_, servers)| servers).copied());
            self.driver.machine.set_delegations(Instant::now(), &others);
            self.delegations = others;
        }
    }

    /// The names of resources that are answered here.
    pub(super) fn names_here(&self) -> Vec<String> {
        let resources = self.driver.machine.resources(Instant::now());
        let patterns = resources.into_iter().filter_map(|resource| match resource.address {
            ResourceAddress::Dns { pattern } => Some(pattern.as_str().to_owned()),
            _ => None,
        });
        patterns.collect()
    }

    pub(super) fn names(&self) -> NamesState {
        let (upstreams, are_upstreams_of_portal) = self.driver.machine.upstreams();
        let desired = self.desired.as_ref();
        NamesState {
            resolvers: desired.map(|interface| interface.dns_servers.clone()).unwrap_or_default(),
            search_domains: desired.map(|interface| interface.search_domains.clone()).unwrap_or_default(),
            upstreams,
            are_upstreams_of_portal,
            is_over_https: self.doh.is_some() && !are_upstreams_of_portal,
        }
    }
}
