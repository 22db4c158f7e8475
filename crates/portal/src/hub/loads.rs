//! How many clients each gateway serves, for the choice between equals.
//!
//! Counting leases costs the more the more there are, and the answer only ever decides between
//! gateways that are otherwise as good as each other. So a count is used for a second, and what
//! is given out meanwhile is added to it, lest everybody who asks in that second is sent to
//! the same gateway.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_policy::{GatewayId, SiteId};

/// How long a count is used.
const FRESH: Duration = Duration::from_secs(1);

/// Sites that are remembered; more begin anew.
const CAPACITY: usize = 4096;

#[derive(Debug)]
struct Count {
    at: Instant,
    clients: HashMap<GatewayId, i64>,
}

/// Counts of each site, as old as they may be.
#[derive(Debug, Default)]
pub(crate) struct Loads(Mutex<HashMap<SiteId, Count>>);

impl Loads {
    /// What was counted lately, if it was.
    pub(crate) fn of(&self, now: Instant, site: SiteId) -> Option<Vec<(GatewayId, i64)>> {
        let sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sites.get(&site).filter(|count| now.saturating_duration_since(count.at) < FRESH)?;
        Some(count.clients.iter().map(|(gateway, clients)| (*gateway, *clients)).collect())
    }

    /// Remembers a count.
    pub(crate) fn counted(&self, now: Instant, site: SiteId, clients: &[(GatewayId, i64)]) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= CAPACITY && !sites.contains_key(&site) {
            sites.clear();
        }
        sites.insert(site, Count { at: now, clients: clients.iter().copied().collect() });
    }

    /// A client was sent to a gateway.
    pub(crate) fn add(&self, site: SiteId, gateway: GatewayId) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sites.get_mut(&site) {
            *count.clients.entry(gateway).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_count_lasts_a_second_and_goes_on_meanwhile() {
        let (site, start) = (SiteId::from_uuid(Uuid::nil()), Instant::now());
        let gateway = |n| GatewayId::from_uuid(Uuid::from_u128(n));
        let loads = Loads::default();
        loads.add(site, gateway(1));
        assert_eq!(loads.of(start, site), None);
        loads.counted(start, site, &[(gateway(1), 5)]);
        loads.add(site, gateway(1));
        loads.add(site, gateway(2));
        let mut found = loads.of(start, site).unwrap();
        found.sort_unstable();
        assert_eq!(found, [(gateway(1), 6), (gateway(2), 1)]);
        assert_eq!(loads.of(start + FRESH, site), None);
    }
}
