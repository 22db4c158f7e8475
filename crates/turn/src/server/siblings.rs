//! What the machines of one relay know of each other.
//!
//! A relay may run a machine per processor, each with clients and ports of its own. Three things are known
//! only to all of them together: how many allocations there are, how many a user has, and which of the
//! relay's ports are lent, because a client of one machine may have a client of another as its peer.
//!
//! The first two are counted under a lock, which is taken when an allocation comes and when it goes. The
//! third is asked for packets, so each port is a bit that is read without one.

use super::{Limits, RelayPort};
use crate::stun::ErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Words of 64 ports.
const WORDS: usize = 65_536 / 64;

/// The machines of one relay; clones are the same. By default a machine is alone.
#[derive(Clone, Debug, Default)]
pub struct Siblings(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    held: Mutex<Held>,
    lent: [Lent; 2],
}

#[derive(Debug, Default)]
struct Held {
    allocations: usize,
    by_user: BTreeMap<Box<str>, usize>,
}

/// The ports of one family, a bit for each.
#[derive(Debug)]
struct Lent(Box<[AtomicU64]>);

impl Default for Lent {
    fn default() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Lent {
    /// The word and the bit of a port.
    fn place(&self, port: u16) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(usize::from(port) / 64)?, 1 << (port % 64)))
    }
}

impl Siblings {
    /// Counts one more allocation of a user.
    ///
    /// # Errors
    ///
    /// 486 if the user has as many as it may have, 508 if the relay has.
    pub(super) fn enter(&self, user: &str, limits: &Limits) -> Result<(), ErrorCode> {
        let mut held = self.held();
        let of_user = held.by_user.get(user).copied().unwrap_or(0);
        if of_user >= limits.allocations_per_user {
            return Err(ErrorCode::ALLOCATION_QUOTA_REACHED);
        }
        if held.allocations >= limits.allocations {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        held.allocations += 1;
        held.by_user.insert(user.into(), of_user + 1);
        Ok(())
    }

    /// Counts one allocation of a user less.
    pub(super) fn leave(&self, user: &str) {
        let mut held = self.held();
        held.allocations = held.allocations.saturating_sub(1);
        if let Some(count) = held.by_user.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                held.by_user.remove(user);
            }
        }
    }

    /// Notes that a port is lent, or no longer.
    pub(super) fn set_lent(&self, port: RelayPort, is_lent: bool) {
        // Relaxed: nothing else is read because of it, and a packet may come a moment before or after.
        match self.0.lent[port.family as usize].place(port.number) {
            Some((word, bit)) if is_lent => word.fetch_or(bit, Ordering::Relaxed),
            Some((word, bit)) => word.fetch_and(!bit, Ordering::Relaxed),
            None => 0,
        };
    }

    /// Whether any machine has lent the port.
    pub(super) fn is_lent(&self, port: RelayPort) -> bool {
        let place = self.0.lent[port.family as usize].place(port.number);
        place.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    #[test]
    fn bounds_hold_for_all_together() {
        let (one, other) = (Siblings::default(), Siblings::default());
        let same = one.clone();
        let limits = Limits { allocations: 3, allocations_per_user: 2, ..Limits::default() };
        assert_eq!(one.enter("alice", &limits), Ok(()));
        assert_eq!(same.enter("alice", &limits), Ok(()));
        assert_eq!(one.enter("alice", &limits), Err(ErrorCode::ALLOCATION_QUOTA_REACHED));
        assert_eq!(one.enter("bob", &limits), Ok(()));
        assert_eq!(same.enter("bob", &limits), Err(ErrorCode::INSUFFICIENT_CAPACITY));
        assert_eq!(other.enter("alice", &limits), Ok(()), "another relay");
        same.leave("alice");
        assert_eq!(same.enter("bob", &limits), Ok(()));
        for user in ["alice", "bob", "bob"] {
            one.leave(user);
        }
        assert!(one.held().by_user.is_empty() && one.held().allocations == 0);
    }

    #[test]
    fn a_lent_port_is_seen_by_all() {
        let siblings = Siblings::default();
        let same = siblings.clone();
        let port = |family, number| RelayPort { family, number };
        for number in [0, 63, 64, 50_000, 65_535] {
            siblings.set_lent(port(Family::V4, number), true);
            assert!(same.is_lent(port(Family::V4, number)));
            assert!(!same.is_lent(port(Family::V6, number)));
            same.set_lent(port(Family::V4, number), false);
            assert!(!siblings.is_lent(port(Family::V4, number)));
        }
    }
}
