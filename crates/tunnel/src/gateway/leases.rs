//! What one client may reach, and on which lease a packet rests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use adit_dataplane::GrantId;
use adit_dns::{Name, Pattern};
use adit_policy::{AuthorizationId, Resource, ResourceAddress, ResourceId, Traffic, permits};

use crate::address::{TunnelRanges, is_private};
use crate::network_table::NetworkTable;

/// A lease: the client may reach the resource until the deadline, which a timer holds.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) resource: Resource,
    /// What the flows rest on.
    pub(crate) grant: GrantId,
    /// When it ends, by the portal's clock; a timer holds the same.
    pub(crate) expires_at_ms: u64,
}

/// Proof that a lease covers a packet: only [`Leases`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    grant: GrantId,
    authorization: AuthorizationId,
    resource: ResourceId,
}

impl Covered {
    /// What the flow rests on.
    pub(crate) const fn grant(self) -> GrantId {
        self.grant
    }

    /// Names the lease.
    pub(crate) const fn authorization(self) -> AuthorizationId {
        self.authorization
    }

    /// What it is for.
    pub(crate) const fn resource(self) -> ResourceId {
        self.resource
    }
}

/// Why no lease covers a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCovered {
    /// No lease leads to the destination.
    Destination,
    /// One does, but lets other traffic through only.
    Traffic,
}

/// The leases of one client.
#[derive(Debug)]
pub(crate) struct Leases {
    by_id: BTreeMap<AuthorizationId, Lease>,
    by_resource: BTreeMap<ResourceId, BTreeSet<AuthorizationId>>,
    networks: NetworkTable<AuthorizationId>,
    internet: BTreeSet<AuthorizationId>,
}

impl Leases {
    pub(crate) const fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_resource: BTreeMap::new(),
            networks: NetworkTable::new(),
            internet: BTreeSet::new(),
        }
    }

    /// Adds or replaces a lease and returns the grant that it replaces.
    pub(crate) fn insert(&mut self, id: AuthorizationId, lease: Lease) -> Option<GrantId> {
        let replaced = self.remove(id).map(|old| old.grant);
        match lease.resource.address.network() {
            Some(network) => self.networks.insert(network, id),
            None if lease.resource.address == ResourceAddress::Internet => drop(self.internet.insert(id)),
            None => {}
        }
        self.by_resource.entry(lease.resource.id).or_default().insert(id);
        self.by_id.insert(id, lease);
        replaced
    }

    pub(crate) fn remove(&mut self, id: AuthorizationId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        if let Some(network) = lease.resource.address.network() {
            self.networks.remove(network, id);
        }
        self.internet.remove(&id);
        if let Some(ids) = self.by_resource.get_mut(&lease.resource.id) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_resource.remove(&lease.resource.id);
            }
        }
        Some(lease)
    }

    /// The same lease ends at another time.
    pub(crate) fn set_end(&mut self, id: AuthorizationId, expires_at_ms: u64) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.expires_at_ms = expires_at_ms;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AuthorizationId, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn get(&self, id: AuthorizationId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(crate) fn ids(&self) -> Vec<AuthorizationId> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The leases on a resource.
    pub(crate) fn of_resource(&self, resource: ResourceId) -> Vec<AuthorizationId> {
        self.by_resource.get(&resource).into_iter().flatten().copied().collect()
    }

    /// Whether the client may speak of `name` under a resource; `None` without a lease on it.
    pub(crate) fn allows_name(&self, resource: ResourceId, name: &str) -> Option<bool> {
        let mut ids = self.by_resource.get(&resource)?.iter();
        Some(ids.any(|id| self.leads_to_name(*id, name)))
    }

    /// Whether a lease covers `traffic` to a name of a DNS resource.
    ///
    /// The name is held against the pattern each time: the resource may have changed since the
    /// client announced the name, or another lease on it may have come in place of the first.
    pub(crate) fn covers_name(
        &self,
        resource: ResourceId,
        name: &str,
        traffic: Traffic,
    ) -> Result<Covered, NotCovered> {
        let ids = self.by_resource.get(&resource).ok_or(NotCovered::Destination)?;
        self.first_permitting(ids.iter().copied().filter(|id| self.leads_to_name(*id, name)), traffic)
    }

    fn leads_to_name(&self, id: AuthorizationId, name: &str) -> bool {
        let Some(ResourceAddress::Dns { pattern }) = self.by_id.get(&id).map(|lease| &lease.resource.address)
        else {
            return false;
        };
        let (pattern, name) = (pattern.parse::<Pattern>(), name.parse::<Name>());
        pattern.ok().zip(name.ok()).is_some_and(|(pattern, name)| pattern.matches(&name))
    }

    /// Whether a lease covers `traffic` to `destination`, the most specific network first.
    ///
    /// The Internet is what is public and not the gateway's `own`: whoever may go out does not
    /// thereby reach what listens on the gateway itself.
    pub(crate) fn covers_address(
        &self,
        ranges: &TunnelRanges,
        own: &[IpAddr],
        destination: IpAddr,
        traffic: Traffic,
    ) -> Result<Covered, NotCovered> {
        let meant =
            self.networks.covering(destination).filter(|(network, _)| ranges.is_meant(*network, destination));
        match self.first_permitting(meant.map(|(_, id)| id), traffic) {
            Err(NotCovered::Destination)
                if !is_private(destination)
                    && !ranges.contains(destination)
                    && !own.contains(&destination) =>
            {
                self.first_permitting(self.internet.iter().copied(), traffic)
            }
            judgement => judgement,
        }
    }

    fn first_permitting(
        &self,
        ids: impl Iterator<Item = AuthorizationId>,
        traffic: Traffic,
    ) -> Result<Covered, NotCovered> {
        let mut failure = NotCovered::Destination;
        for (authorization, lease) in ids.filter_map(|id| Some((id, self.by_id.get(&id)?))) {
            if permits(&lease.resource.filters, traffic) {
                let (grant, resource) = (lease.grant, lease.resource.id);
                return Ok(Covered { grant, authorization, resource });
            }
            failure = NotCovered::Traffic;
        }
        Err(failure)
    }
}
