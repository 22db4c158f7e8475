//! Users: what each of them holds, and how fast each may have data relayed.
//!
//! Rates are token buckets, one for packets and one for bytes in each direction, so that what peers
//! send to a user takes nothing from what the user sends. A bucket holds a second's worth. Time comes
//! with the datagrams, and is worked out once for all that come at the same moment.
//!
//! A user without allocations is forgotten, but not before the buckets are full again: making a new
//! allocation brings no new tokens.

use super::Limits;
use super::endpoint::HashKey;
use super::index::Index;
use super::wheel::TimerId;
use slab::Slab;
use std::hash::Hasher as _;
use std::time::{Duration, Instant};

/// Names a user for as long as it has allocations.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct UserId(pub(super) u32);

/// Which way data goes.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    ToPeer,
    ToClient,
}

/// What one user holds.
#[derive(Debug)]
pub(super) struct User {
    name: Box<str>,
    pub(super) allocations: usize,
    pub(super) channels: usize,
    pub(super) permissions: usize,
    /// Ends the memory of a user without allocations.
    pub(super) timer: Option<TimerId>,
}

/// A user's buckets, for itself in a cache line; in thousandths of packets and bytes.
#[derive(Copy, Clone, Debug)]
#[repr(align(64))]
struct Buckets {
    filled_at: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
}

/// How fast a bucket fills, in thousandths per millisecond, and how much it holds.
#[derive(Copy, Clone, Debug)]
struct Rate {
    per_millisecond: u64,
    capacity: u64,
}

impl User {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Rate {
    /// `least` is what a bucket holds at least, so that the largest datagram can pass.
    fn new(per_second: Option<u64>, least: u64) -> Self {
        let per_second = per_second.unwrap_or(u64::MAX);
        let least = if per_second == 0 { 0 } else { least };
        Self { per_millisecond: per_second, capacity: per_second.max(least).saturating_mul(1000) }
    }

    fn fill(self, tokens: &mut u64, milliseconds: u64) {
        let new = milliseconds.saturating_mul(self.per_millisecond);
        *tokens = tokens.saturating_add(new).min(self.capacity);
    }

    /// How long an empty bucket takes to fill.
    fn time(self) -> Duration {
        Duration::from_millis(self.capacity / self.per_millisecond.max(1))
    }
}

/// All users.
#[derive(Debug)]
pub(super) struct Users {
    users: Slab<User>,
    by_name: Index,
    key: HashKey,
    /// By the users' numbers; empty if nothing is limited.
    buckets: Vec<Buckets>,
    packets: Rate,
    bytes: Rate,
    start: Instant,
    /// The last moment and its milliseconds since the start.
    latest: (Instant, u64),
}

impl Users {
    pub(super) fn new(now: Instant, limits: &Limits, key: HashKey) -> Self {
        Self {
            users: Slab::new(),
            by_name: Index::new(),
            key,
            buckets: Vec::new(),
            packets: Rate::new(limits.packets_per_second, 1),
            bytes: Rate::new(limits.bytes_per_second, 65_536),
            start: now,
            latest: (now, 0),
        }
    }

    /// The user of that name, who is remembered from now on.
    pub(super) fn enter(&mut self, now: Instant, name: &str) -> UserId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let user = User { name: name.into(), allocations: 0, channels: 0, permissions: 0, timer: None };
        let id = self.users.insert(user) as u32;
        self.by_name.insert(hash(self.key, name), id);
        if self.limits_rates() {
            let filled_at = self.milliseconds(now);
            let buckets =
                Buckets { filled_at, packets: [self.packets.capacity; 2], bytes: [self.bytes.capacity; 2] };
            let length = self.buckets.len().max(id as usize + 1);
            self.buckets.resize(length, buckets);
            self.buckets[id as usize] = buckets;
        }
        UserId(id)
    }

    pub(super) fn find(&self, name: &str) -> Option<UserId> {
        self.by_name.find(hash(self.key, name), |id| self.is(UserId(id), name)).map(UserId)
    }

    pub(super) fn get(&self, id: UserId) -> Option<&User> {
        self.users.get(id.0 as usize)
    }

    pub(super) fn get_mut(&mut self, id: UserId) -> Option<&mut User> {
        self.users.get_mut(id.0 as usize)
    }

    pub(super) fn is(&self, id: UserId, name: &str) -> bool {
        self.get(id).is_some_and(|user| *user.name == *name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (UserId, &User)> {
        self.users.iter().map(|(id, user)| (UserId(id as u32), user))
    }

    /// How long a user without allocations must be remembered.
    pub(super) fn memory(&self) -> Duration {
        if self.limits_rates() { self.packets.time().max(self.bytes.time()) } else { Duration::ZERO }
    }

    /// Forgets a user who has no allocations.
    pub(super) fn forget(&mut self, id: UserId) {
        let idle = self.get(id).filter(|user| user.allocations == 0);
        let Some(hash) = idle.map(|user| hash(self.key, &user.name)) else { return };
        self.by_name.remove(hash, id.0);
        self.users.try_remove(id.0 as usize);
    }

    /// Takes a packet's tokens; false if there are too few, and it must be dropped.
    pub(super) fn take(&mut self, now: Instant, id: UserId, direction: Direction, length: usize) -> bool {
        if !self.limits_rates() {
            return true;
        }
        let now = self.milliseconds(now);
        let Some(buckets) = self.buckets.get_mut(id.0 as usize) else { return true };
        if now > buckets.filled_at {
            let passed = now - buckets.filled_at;
            buckets.filled_at = now;
            buckets.packets.iter_mut().for_each(|tokens| self.packets.fill(tokens, passed));
            buckets.bytes.iter_mut().for_each(|tokens| self.bytes.fill(tokens, passed));
        }
        let packets = &mut buckets.packets[direction as usize];
        let bytes = &mut buckets.bytes[direction as usize];
        let cost = length as u64 * 1000;
        let enough = *packets >= 1000 && *bytes >= cost;
        if enough {
            *packets -= 1000;
            *bytes -= cost;
        }
        enough
    }

    /// Has the cache line of a user's buckets fetched. The result is of no use.
    pub(super) fn touch(&self, id: UserId) -> u64 {
        self.buckets.get(id.0 as usize).map_or(0, |buckets| buckets.filled_at)
    }

    fn limits_rates(&self) -> bool {
        self.packets.capacity < u64::MAX || self.bytes.capacity < u64::MAX
    }

    fn milliseconds(&mut self, now: Instant) -> u64 {
        if self.latest.0 != now {
            let since = now.saturating_duration_since(self.start);
            self.latest = (now, since.as_secs() * 1000 + u64::from(since.subsec_millis()));
        }
        self.latest.1
    }
}

fn hash(key: HashKey, name: &str) -> u64 {
    let mut hasher = key.hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(now: Instant, packets: Option<u64>, bytes: Option<u64>) -> Users {
        let limits = Limits { packets_per_second: packets, bytes_per_second: bytes, ..Limits::default() };
        Users::new(now, &limits, HashKey::new((1, 2)))
    }

    fn passed(users: &mut Users, now: Instant, id: UserId, length: usize) -> usize {
        (0..1000).filter(|_| users.take(now, id, Direction::ToPeer, length)).count()
    }

    #[test]
    fn packets_are_limited_for_each_user_and_direction() {
        let start = Instant::now();
        let mut users = users(start, Some(100), None);
        let (alice, bob) = (users.enter(start, "alice"), users.enter(start, "bob"));
        assert_eq!(passed(&mut users, start, alice, 1200), 100);
        assert_eq!(passed(&mut users, start, bob, 1200), 100);
        assert!(users.take(start, alice, Direction::ToClient, 1200), "the other direction");
        let later = start + Duration::from_millis(55);
        assert_eq!(passed(&mut users, later, alice, 1200), 5);
        assert_eq!(passed(&mut users, later + Duration::from_secs(99), alice, 1200), 100);
    }

    #[test]
    fn bytes_are_limited_and_the_largest_datagram_still_passes() {
        let start = Instant::now();
        let mut users = users(start, None, Some(1000));
        let alice = users.enter(start, "alice");
        assert_eq!(passed(&mut users, start, alice, 65_507), 1);
        assert_eq!(passed(&mut users, start, alice, 29), 1);
        let later = start + Duration::from_secs(10);
        assert_eq!(passed(&mut users, later, alice, 1000), 10);
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_pass() {
        let start = Instant::now();
        let mut users = users(start, Some(0), None);
        let alice = users.enter(start, "alice");
        assert_eq!(passed(&mut users, start + Duration::from_secs(99), alice, 1), 0);
    }

    #[test]
    fn forgetting_waits_for_the_last_allocation() {
        let start = Instant::now();
        let mut users = users(start, Some(10), None);
        let alice = users.enter(start, "alice");
        assert_eq!(users.enter(start, "alice"), alice);
        if let Some(user) = users.get_mut(alice) {
            user.allocations = 1;
        }
        users.forget(alice);
        assert!(users.is(alice, "alice"));
        if let Some(user) = users.get_mut(alice) {
            user.allocations = 0;
        }
        assert_eq!(users.memory(), Duration::from_secs(1));
        users.forget(alice);
        assert_eq!((users.iter().count(), users.find("alice")), (0, None));
    }
}
