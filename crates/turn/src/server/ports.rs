//! The pool of ports to lend, per address family.
//!
//! Ports are drawn at random so that a relayed address cannot be guessed. A drawn port is taken until
//! released; a port that could not be bound is avoided by drawing again.

use super::{AllocationKey, Config, RelayPort};
use crate::Family;
use rand::Rng;

/// Ports of both families, and who holds them.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    v4: Pool,
    v6: Pool,
}

/// Who holds each port of one family, by distance from the first port.
#[derive(Debug)]
struct Pool {
    holders: Vec<Option<AllocationKey>>,
    taken: usize,
}

impl Ports {
    pub(super) fn new(config: &Config) -> Self {
        let (first, last) = (*config.ports.start(), *config.ports.end());
        let count = usize::from(last.saturating_sub(first)) + 1;
        let pool = |served: bool| Pool { holders: vec![None; if served { count } else { 0 }], taken: 0 };
        Self { first, v4: pool(config.public_v4.is_some()), v6: pool(config.public_v6.is_some()) }
    }

    /// True if the relay lends ports of this family at all.
    pub(super) fn serves(&self, family: Family) -> bool {
        !self.pool(family).holders.is_empty()
    }

    /// Takes a random free port, an even one if asked for; `None` if all are taken.
    pub(super) fn take(
        &mut self,
        random: &mut impl Rng,
        family: Family,
        even: bool,
        holder: AllocationKey,
    ) -> Option<RelayPort> {
        let first = self.first;
        let pool = self.pool_mut(family);
        let count = pool.holders.len();
        if pool.taken >= count {
            return None;
        }
        // From a random place onwards: at most one lap, and short as long as the pool is not full.
        let start = random.random_range(0..count);
        let fits = |index: usize| !even || (usize::from(first) + index).is_multiple_of(2);
        let free = |index: &usize| fits(*index) && pool.holders[*index].is_none();
        let index = (start..count).chain(0..start).find(free)?;
        pool.holders[index] = Some(holder);
        pool.taken += 1;
        let number = first + u16::try_from(index).ok()?;
        Some(RelayPort { family, number })
    }

    /// Gives a port back.
    pub(super) fn release(&mut self, port: RelayPort) {
        let Some(index) = self.index(port) else { return };
        let pool = self.pool_mut(port.family);
        if let Some(holder) = pool.holders.get_mut(index)
            && holder.take().is_some()
        {
            pool.taken -= 1;
        }
    }

    /// The allocation that holds a port.
    pub(super) fn holder(&self, port: RelayPort) -> Option<AllocationKey> {
        let index = self.index(port)?;
        self.pool(port.family).holders.get(index).copied().flatten()
    }

    fn index(&self, port: RelayPort) -> Option<usize> {
        port.number.checked_sub(self.first).map(usize::from)
    }

    fn pool(&self, family: Family) -> &Pool {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn pool_mut(&mut self, family: Family) -> &mut Pool {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
