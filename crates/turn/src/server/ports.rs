//! The pool of ports to lend, per address family.
//!
//! Ports are drawn at random so that a relayed address cannot be guessed (RFC 8656, section 7.2, and
//! RFC 6056), from lists of those that are free: one for even numbers, one for odd ones. Drawing and
//! giving back cost the same with all ports free and with one left.

use super::allocations::AllocationKey;
use super::siblings::Siblings;
use super::{Config, RelayPort};
use crate::Family;
use rand::Rng;

/// Ports of both families, and who holds them.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    siblings: Siblings,
    pools: [Pool; 2],
}

/// The ports of one family.
#[derive(Debug)]
struct Pool {
    /// By distance from the first port.
    holders: Vec<Option<AllocationKey>>,
    /// Even and odd ones that nobody holds.
    free: [Vec<u16>; 2],
}

impl Pool {
    fn new(ports: impl Iterator<Item = u16>) -> Self {
        let (even, odd): (Vec<u16>, Vec<u16>) = ports.partition(|port| port.is_multiple_of(2));
        Self { holders: vec![None; even.len() + odd.len()], free: [even, odd] }
    }
}

impl Ports {
    pub(super) fn new(config: &Config, siblings: Siblings) -> Self {
        let pool = |served: bool| Pool::new(config.ports.clone().filter(|_| served));
        Self {
            first: *config.ports.start(),
            siblings,
            pools: [pool(config.public_v4.is_some()), pool(config.public_v6.is_some())],
        }
    }

    /// True if the relay lends ports of this family at all.
    pub(super) fn serves(&self, family: Family) -> bool {
        !self.pools[family as usize].holders.is_empty()
    }

    /// Takes a random free port, an even one if asked for; `None` if all are taken.
    pub(super) fn take(
        &mut self,
        random: &mut impl Rng,
        family: Family,
        even: bool,
        holder: AllocationKey,
    ) -> Option<RelayPort> {
        let pool = &mut self.pools[family as usize];
        let [evens, odds] = &mut pool.free;
        let count = if even { evens.len() } else { evens.len() + odds.len() };
        if count == 0 {
            return None;
        }
        let drawn = random.random_range(0..count);
        let number = match drawn.checked_sub(evens.len()) {
            None => evens.swap_remove(drawn),
            Some(drawn) => odds.swap_remove(drawn),
        };
        *pool.holders.get_mut(usize::from(number - self.first))? = Some(holder);
        let port = RelayPort { family, number };
        self.siblings.set_lent(port, true);
        Some(port)
    }

    /// Gives a port back.
    pub(super) fn release(&mut self, port: RelayPort) {
        let Some(index) = port.number.checked_sub(self.first) else { return };
        let pool = &mut self.pools[port.family as usize];
        let holder = pool.holders.get_mut(usize::from(index));
        if holder.is_some_and(|holder| holder.take().is_some()) {
            pool.free[usize::from(port.number % 2)].push(port.number);
            self.siblings.set_lent(port, false);
        }
    }

    /// The allocation that holds a port.
    pub(super) fn holder(&self, port: RelayPort) -> Option<AllocationKey> {
        let index = port.number.checked_sub(self.first)?;
        self.pools[port.family as usize].holders.get(usize::from(index)).copied().flatten()
    }

    /// Whether the port is lent, by this machine or by another one of the relay.
    pub(super) fn is_lent(&self, port: RelayPort) -> bool {
        self.siblings.is_lent(port)
    }

    /// How many ports are taken.
    pub(super) fn taken(&self) -> usize {
        let taken = |pool: &Pool| pool.holders.len() - pool.free[0].len() - pool.free[1].len();
        self.pools.iter().map(taken).sum()
    }
}
