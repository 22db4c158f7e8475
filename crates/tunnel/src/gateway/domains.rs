//! Names that one client reaches through this gateway, and where they really are.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_policy::ResourceId;
use adit_protocol::peer::DomainState;

use super::LookupId;
use super::held::Announcement;
use crate::address::{TunnelRanges, is_link_local, is_never_reachable};

/// An answer of the resolver this young is used again.
const FRESH: Duration = Duration::from_secs(30);
/// A failure is tried again sooner.
const FAILED_FRESH: Duration = Duration::from_secs(2);
/// The most names of one client; beyond it the one announced longest ago goes.
const MAX_NAMES: usize = 1024;
/// More addresses than a client gives to a name.
pub(crate) const MAX_PROXIES: usize = 16;
/// More real addresses than are of use.
const MAX_ADDRESSES: usize = 32;

/// A name and what is known of it.
#[derive(Debug)]
struct Domain {
    resource: ResourceId,
    proxies: Vec<IpAddr>,
    /// Sorted; empty until resolved.
    addresses: Vec<IpAddr>,
    /// The newest answer of the resolver, and when it came.
    answered: Option<(DomainState, Instant)>,
    /// The resolver was asked.
    resolving: Option<LookupId>,
    /// The announcement that waits for an answer.
    question: Option<u32>,
    /// When it was announced, in order.
    number: u64,
}

/// What to do about an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Answer at once.
    Answer(DomainState),
    /// Ask the resolver.
    Resolve,
    /// The resolver was asked already.
    Wait,
}

/// The names of one client.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    by_name: BTreeMap<String, Domain>,
    by_proxy: HashMap<IpAddr, String>,
    by_number: BTreeMap<u64, String>,
    last_number: u64,
}

impl Domains {
    /// Takes an announcement that a lease covers.
    pub(crate) fn announce(&mut self, now: Instant, announcement: &Announcement) -> NextStep {
        self.place(announcement);
        let Some(domain) = self.by_name.get_mut(&announcement.name) else { return NextStep::Wait };
        if let Some((state, at)) = domain.answered {
            let fresh = if state == DomainState::Active { FRESH } else { FAILED_FRESH };
            if now.saturating_duration_since(at) < fresh {
                return NextStep::Answer(state);
            }
        }
        domain.question = Some(announcement.message_id);
        if domain.resolving.is_some() { NextStep::Wait } else { NextStep::Resolve }
    }

    /// Gives the name its proxy addresses; whoever had one of them loses it.
    fn place(&mut self, announcement: &Announcement) {
        let is_known = self.by_name.get(&announcement.name).is_some_and(|known| {
            known.resource == announcement.resource && known.proxies == announcement.proxies
        });
        if is_known {
            return;
        }
        self.remove(&announcement.name);
        for proxy in &announcement.proxies {
            if let Some(previous) = self.by_proxy.get(proxy).cloned() {
                self.remove(&previous);
            }
        }
        if self.by_name.len() >= MAX_NAMES
            && let Some(oldest) = self.by_number.values().next().cloned()
        {
            self.remove(&oldest);
        }
        self.last_number += 1;
        self.by_number.insert(self.last_number, announcement.name.clone());
        for proxy in &announcement.proxies {
            self.by_proxy.insert(*proxy, announcement.name.clone());
        }
        let domain = Domain {
            resource: announcement.resource,
            proxies: announcement.proxies.clone(),
            addresses: Vec::new(),
            answered: None,
            resolving: None,
            question: None,
            number: self.last_number,
        };
        self.by_name.insert(announcement.name.clone(), domain);
    }

    /// The resolver was asked about `name`.
    pub(crate) fn set_resolving(&mut self, name: &str, id: LookupId) {
        if let Some(domain) = self.by_name.get_mut(name) {
            domain.resolving = Some(id);
        }
    }

    /// Takes what the resolver said: usable addresses, none, or (`None`) nothing.
    ///
    /// Returns the announcement to answer. Where a name was once, it stays until the resolver
    /// says otherwise: its failure is not news of the name.
    pub(crate) fn resolved(
        &mut self,
        now: Instant,
        name: &str,
        id: LookupId,
        addresses: Option<Vec<IpAddr>>,
    ) -> Option<(ResourceId, u32, DomainState)> {
        let domain = self.by_name.get_mut(name)?;
        if domain.resolving != Some(id) {
            return None;
        }
        domain.resolving = None;
        let state = match addresses {
            Some(addresses) => {
                domain.addresses = addresses;
                if domain.addresses.is_empty() { DomainState::NotFound } else { DomainState::Active }
            }
            None if domain.addresses.is_empty() => DomainState::ResolverFailed,
            None => DomainState::Active,
        };
        domain.answered = Some((state, now));
        Some((domain.resource, domain.question.take()?, state))
    }

    /// The resource and the name behind a proxy address, and the real address, once it is known: one of the proxy's
    /// family, or of the other one where the name has no such address.
    pub(crate) fn look_up(&self, proxy: IpAddr) -> Option<(ResourceId, &str, Option<IpAddr>)> {
        let name = self.by_proxy.get(&proxy)?;
        let domain = self.by_name.get(name)?;
        let same_family = |address: &&IpAddr| address.is_ipv4() == proxy.is_ipv4();
        let position = domain.proxies.iter().filter(same_family).position(|present| *present == proxy)?;
        let count = domain.addresses.iter().filter(same_family).count();
        let real = match position.checked_rem(count) {
            Some(at) => domain.addresses.iter().filter(same_family).nth(at),
            None => position.checked_rem(domain.addresses.len()).and_then(|at| domain.addresses.get(at)),
        };
        Some((domain.resource, name, real.copied()))
    }

    /// The name that an address stands for.
    pub(crate) fn name_at(&self, proxy: IpAddr) -> Option<Arc<str>> {
        self.by_proxy.get(&proxy).map(|name| name.as_str().into())
    }

    /// Every name that was resolved: resource, name, proxy addresses, real addresses.
    pub(crate) fn resolved_names(&self) -> impl Iterator<Item = (ResourceId, &str, &[IpAddr], &[IpAddr])> {
        self.by_name.iter().filter(|(_, domain)| !domain.addresses.is_empty()).map(|(name, domain)| {
            (domain.resource, name.as_str(), &domain.proxies[..], &domain.addresses[..])
        })
    }

    /// Takes over a name from an earlier run, as if it had been resolved a moment ago.
    pub(crate) fn restore(&mut self, now: Instant, announcement: &Announcement, addresses: Vec<IpAddr>) {
        self.place(announcement);
        if let Some(domain) = self.by_name.get_mut(&announcement.name) {
            domain.addresses = addresses;
            domain.answered = Some((DomainState::Active, now));
        }
    }

    fn remove(&mut self, name: &str) -> Option<LookupId> {
        let domain = self.by_name.remove(name)?;
        self.by_number.remove(&domain.number);
        for proxy in &domain.proxies {
            if self.by_proxy.get(proxy).is_some_and(|owner| owner == name) {
                self.by_proxy.remove(proxy);
            }
        }
        domain.resolving
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Forgets the names of a resource that the client may no longer reach.
    pub(crate) fn remove_resource(&mut self, resource: ResourceId) {
        let names: Vec<String> = self
            .by_name
            .iter()
            .filter(|(_, domain)| domain.resource == resource)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.remove(&name);
        }
    }
}

/// The resolved addresses that a tunnel may lead to, sorted.
///
/// A name is whatever its resolver says, and a resolver may be led to say "localhost".
pub(crate) fn usable(ranges: &TunnelRanges, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut usable: Vec<IpAddr> = addresses
        .into_iter()
        .map(|address| address.to_canonical())
        .filter(|address| {
            !is_never_reachable(*address) && !is_link_local(*address) && !ranges.contains(*address)
        })
        .collect();
    usable.sort_unstable();
    usable.dedup();
    usable.truncate(MAX_ADDRESSES);
    usable
}
