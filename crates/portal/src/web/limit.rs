//! How often somebody may fail to sign in: for each name and for each address.
//!
//! The first few failures cost nothing; each one after that doubles the time until the next try.
//! Success forgets a name's failures, and an hour without any forgets all.
//! A name's delay is kept short, so that a stranger who fails on purpose cannot lock anybody
//! out; an address's is long. The memory is this node's: several nodes allow as many times more.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are remembered of each kind.
const CAPACITY: usize = 16_384;

/// A failure is forgotten this long after the last one.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// Failures without delay, and the longest delay.
#[derive(Debug, Clone, Copy)]
struct Patience {
    free: u32,
    longest: Duration,
}

const NAME: Patience = Patience { free: 5, longest: Duration::from_secs(60) };

/// An address may be a whole office.
const ADDRESS: Patience = Patience { free: 20, longest: Duration::from_secs(15 * 60) };

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// When the next try is allowed.
    fn until(self, patience: Patience) -> Instant {
        let Some(excess) = self.count.checked_sub(patience.free) else { return self.last };
        let delay = Duration::from_secs(1 << excess.min(20)).min(patience.longest);
        self.last + delay
    }
}

#[derive(Debug)]
struct Table<K> {
    patience: Patience,
    failures: HashMap<K, Failures>,
}

impl<K: Eq + Hash + Copy> Table<K> {
    fn new(patience: Patience) -> Self {
        Self { patience, failures: HashMap::new() }
    }

    fn allows(&self, now: Instant, key: &K) -> Result<(), Duration> {
        let Some(failures) = self.failures.get(key) else { return Ok(()) };
        match failures.until(self.patience).checked_duration_since(now) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Forgets what is old, or else whoever failed least: not the one that is guessed at.
    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, failures| now.saturating_duration_since(failures.last) < MEMORY);
        if self.failures.len() >= CAPACITY {
            let least = self.failures.iter().min_by_key(|(_, failures)| (failures.count, failures.last));
            if let Some(key) = least.map(|(key, _)| *key) {
                self.failures.remove(&key);
            }
        }
    }

    fn failed(&mut self, now: Instant, key: K) {
        if self.failures.len() >= CAPACITY && !self.failures.contains_key(&key) {
            self.make_room(now);
        }
        let entry = self.failures.entry(key).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(entry.last) >= MEMORY {
            entry.count = 0;
        }
        *entry = Failures { count: entry.count.saturating_add(1), last: now };
    }
}

/// Failures by name and by address.
#[derive(Debug)]
pub(crate) struct SignInLimit {
    tables: Mutex<(Table<[u8; 32]>, Table<IpAddr>)>,
}

impl SignInLimit {
    /// Nobody has failed yet.
    pub(crate) fn new() -> Self {
        Self { tables: Mutex::new((Table::new(NAME), Table::new(ADDRESS))) }
    }

    /// Whether there may be a try now; `Err` says how long to wait. `name` is a digest of what
    /// is guessed at.
    pub(crate) fn allows(&self, now: Instant, name: &[u8; 32], address: IpAddr) -> Result<(), Duration> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.1.allows(now, &network(address)).and_then(|()| tables.0.allows(now, name))
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, now: Instant, name: &[u8; 32], address: IpAddr) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.0.failed(now, *name);
        tables.1.failed(now, network(address));
    }

    /// Forgets the failures of a name whose owner has signed in.
    pub(crate) fn succeeded(&self, name: &[u8; 32]) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).0.failures.remove(name);
    }
}

/// One customer has a whole IPv6 /64, so that is what is counted.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn each_failure_after_the_first_few_doubles_the_wait() {
        let (limit, start) = (SignInLimit::new(), Instant::now());
        for _ in 0..4 {
            limit.failed(start, &[1; 32], address(1));
        }
        assert_eq!(limit.allows(start, &[1; 32], address(1)), Ok(()));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            limit.failed(start, &[1; 32], address(1));
            let wait = limit.allows(start, &[1; 32], address(2));
            assert_eq!(wait, Err(Duration::from_secs(seconds)));
        }
        assert_eq!(limit.allows(start, &[2; 32], address(1)), Ok(()), "the address has more patience");
        assert_eq!(limit.allows(start + Duration::from_secs(60), &[1; 32], address(1)), Ok(()));
        limit.succeeded(&[1; 32]);
        assert_eq!(limit.allows(start, &[1; 32], address(1)), Ok(()));
    }

    #[test]
    fn an_address_that_tries_many_names_waits_for_all_of_them() {
        let (limit, start) = (SignInLimit::new(), Instant::now());
        for name in 0..60 {
            limit.failed(start, &[name; 32], address(1));
        }
        assert_eq!(limit.allows(start, &[99; 32], address(1)), Err(Duration::from_secs(15 * 60)));
        assert_eq!(limit.allows(start, &[99; 32], address(2)), Ok(()));
        limit.failed(start + MEMORY, &[99; 32], address(1));
        assert_eq!(limit.allows(start + MEMORY, &[99; 32], address(1)), Ok(()), "an hour forgets");
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let (mut table, start) = (Table::new(NAME), Instant::now());
        for _ in 0..10 {
            table.failed(start, usize::MAX - 1);
        }
        for key in 0..CAPACITY + 10 {
            table.failed(start, key);
        }
        assert_eq!(table.failures.len(), CAPACITY);
        assert!(table.allows(start, &(usize::MAX - 1)).is_err(), "a flood does not hide who is guessed at");
        table.failed(start + MEMORY, usize::MAX);
        assert_eq!(table.failures.len(), 1);
    }
}
