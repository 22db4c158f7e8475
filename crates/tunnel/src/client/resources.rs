//! The resources that the client may ask for, and which of them a packet is meant for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use adit_policy::{Resource, ResourceAddress, ResourceId, SiteId, Traffic, permits};
use ipnet::IpNet;

use crate::address::{is_link_local, is_never_reachable, is_private};
use crate::network_table::NetworkTable;

/// Why no resource takes a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResource {
    /// No resource covers the destination.
    NotCovered,
    /// This resource does, but lets other traffic through only.
    Filtered(ResourceId),
}

/// All visible resources, indexed by where they are.
#[derive(Debug)]
pub(crate) struct Resources {
    by_id: BTreeMap<ResourceId, Resource>,
    by_site: BTreeMap<SiteId, BTreeSet<ResourceId>>,
    networks: NetworkTable<ResourceId>,
    internet: BTreeSet<ResourceId>,
}

impl Resources {
    pub(crate) const fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_site: BTreeMap::new(),
            networks: NetworkTable::new(),
            internet: BTreeSet::new(),
        }
    }

    /// Adds or replaces a resource and returns the one it replaced.
    pub(crate) fn insert(&mut self, resource: Resource) -> Option<Resource> {
        let replaced = self.remove(resource.id);
        match resource.address.network() {
            Some(network) => self.networks.insert(network, resource.id),
            None if resource.address == ResourceAddress::Internet => drop(self.internet.insert(resource.id)),
            None => {}
        }
        self.by_site.entry(resource.site.id).or_default().insert(resource.id);
        self.by_id.insert(resource.id, resource);
        replaced
    }

    pub(crate) fn remove(&mut self, id: ResourceId) -> Option<Resource> {
        let resource = self.by_id.remove(&id)?;
        if let Some(network) = resource.address.network() {
            self.networks.remove(network, id);
        }
        self.internet.remove(&id);
        if let Some(site) = self.by_site.get_mut(&resource.site.id) {
            site.remove(&id);
            if site.is_empty() {
                self.by_site.remove(&resource.site.id);
            }
        }
        Some(resource)
    }

    pub(crate) fn get(&self, id: ResourceId) -> Option<&Resource> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.by_id.values()
    }

    pub(crate) fn has_site(&self, site: SiteId) -> bool {
        self.by_site.contains_key(&site)
    }

    /// The resource that takes `traffic` to `destination`, an address that no name has.
    ///
    /// The most specific network wins whose filters let the traffic through: permissions
    /// add up, so a narrow resource takes nothing away from a wide one. The Internet is what
    /// no network covers, never a way around a filter.
    pub(crate) fn route(&self, destination: IpAddr, traffic: Traffic) -> Result<ResourceId, NoResource> {
        let mut refused_by = None;
        for (_, id) in self.networks.covering(destination) {
            if self.permits(id, traffic) {
                return Ok(id);
            }
            refused_by.get_or_insert(id);
        }
        if refused_by.is_none() && is_internet(destination) {
            for id in self.internet.iter().copied() {
                if self.permits(id, traffic) {
                    return Ok(id);
                }
                refused_by.get_or_insert(id);
            }
        }
        Err(refused_by.map_or(NoResource::NotCovered, NoResource::Filtered))
    }

    pub(crate) fn permits(&self, id: ResourceId, traffic: Traffic) -> bool {
        self.by_id.get(&id).is_some_and(|resource| permits(&resource.filters, traffic))
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.networks.networks()
    }

    pub(crate) fn has_internet(&self) -> bool {
        !self.internet.is_empty()
    }
}

fn is_internet(destination: IpAddr) -> bool {
    !is_never_reachable(destination) && !is_link_local(destination) && !is_private(destination)
}

#[cfg(test)]
mod tests {
    use adit_policy::{Filter, PortRange, Site};
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> ResourceId {
        ResourceId::from_uuid(Uuid::from_u128(number))
    }

    fn resource(number: u128, address: ResourceAddress, ports: Option<u16>) -> Resource {
        let site = Site { id: SiteId::from_uuid(Uuid::from_u128(9)), name: "hq".into() };
        let filters = ports.and_then(|port| PortRange::new(port, port)).map(|ports| Filter::Tcp { ports });
        Resource { id: id(number), name: "r".into(), address, site, filters: filters.into_iter().collect() }
    }

    fn cidr(text: &str) -> ResourceAddress {
        ResourceAddress::Cidr { network: text.parse().unwrap() }
    }

    fn route(resources: &Resources, destination: &str, port: u16) -> Result<ResourceId, NoResource> {
        resources.route(destination.parse().unwrap(), Traffic::Tcp(port))
    }

    #[test]
    fn the_most_specific_network_that_permits_wins() {
        let mut resources = Resources::new();
        resources.insert(resource(1, cidr("10.0.0.0/8"), None));
        resources.insert(resource(2, cidr("10.0.0.0/24"), Some(443)));
        assert_eq!(route(&resources, "10.0.0.1", 443), Ok(id(2)));
        assert_eq!(route(&resources, "10.0.0.1", 22), Ok(id(1)));
        resources.remove(id(1));
        assert_eq!(route(&resources, "10.0.0.1", 22), Err(NoResource::Filtered(id(2))));
        assert_eq!(route(&resources, "10.0.1.1", 22), Err(NoResource::NotCovered));
    }

    #[test]
    fn the_internet_takes_what_nothing_covers_and_is_no_way_around_a_filter() {
        let mut resources = Resources::new();
        resources.insert(resource(1, ResourceAddress::Internet, None));
        resources.insert(resource(2, cidr("192.0.2.0/24"), Some(443)));
        assert_eq!(route(&resources, "1.1.1.1", 53), Ok(id(1)));
        assert_eq!(route(&resources, "192.0.2.1", 22), Err(NoResource::Filtered(id(2))));
        for private in ["192.168.1.1", "224.0.0.251", "fe80::1"] {
            assert_eq!(route(&resources, private, 53), Err(NoResource::NotCovered));
        }
    }

    #[test]
    fn a_moved_resource_is_found_at_its_new_place_only() {
        let mut resources = Resources::new();
        resources.insert(resource(1, cidr("10.0.0.0/8"), None));
        resources.insert(resource(1, cidr("172.16.0.0/12"), None));
        assert_eq!(route(&resources, "10.0.0.1", 1), Err(NoResource::NotCovered));
        assert_eq!(route(&resources, "172.16.0.1", 1), Ok(id(1)));
        assert!(resources.has_site(SiteId::from_uuid(Uuid::from_u128(9))));
        resources.remove(id(1));
        assert!(!resources.has_site(SiteId::from_uuid(Uuid::from_u128(9))));
    }
}
