//! Allocations (RFC 8656, section 6): who holds what until when.
//!
//! They live in a slab; a key names a slot and its generation, so that a stale key finds nothing
//! instead of somebody else's allocation. What an allocation grants to peers is on lists that start
//! here, see [`permissions`](super::permissions) and [`channels`](super::channels).

use super::RelayPort;
use super::allocate::Pending;
use super::endpoint::{ClientKey, HashKey};
use super::index::Index;
use super::links::NONE;
use super::users::UserId;
use super::wheel::TimerId;
use crate::Family;
use crate::stun::TransactionId;
use slab::Slab;

/// Names an allocation for all time.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct AllocationKey {
    pub(super) slot: u32,
    generation: u32,
}

/// One family's relayed address. In a dual allocation each has its own lifetime, permissions and
/// channels (RFC 8656, sections 6 and 8.1).
#[derive(Debug)]
pub(super) struct Half {
    pub(super) port: u16,
    /// Ends the half; none once it is over.
    pub(super) timer: Option<TimerId>,
    /// Where the list of its permissions starts.
    pub(super) permissions: u32,
}

impl Half {
    pub(super) fn new(port: u16) -> Self {
        Self { port, timer: None, permissions: NONE }
    }
}

/// What one client holds.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: ClientKey,
    /// Whose credentials they were.
    pub(super) user: UserId,
    /// Which secret the latest credentials were made with.
    pub(super) secret: u32,
    /// IPv4 and IPv6.
    pub(super) halves: [Option<Half>; 2],
    pub(super) channels: usize,
    pub(super) permissions: usize,
    /// The request that made it.
    pub(super) request: TransactionId,
    /// The answer to `request`; none as long as ports are being bound.
    pub(super) response: Option<Box<[u8]>>,
    /// What is to be done until there is an answer.
    pub(super) pending: Option<Box<Pending>>,
}

impl Allocation {
    /// The port lent for a family.
    pub(super) fn port(&self, family: Family) -> Option<RelayPort> {
        let half = self.halves[family as usize].as_ref()?;
        Some(RelayPort { family, number: half.port })
    }

    /// The ports lent.
    pub(super) fn ports(&self) -> impl Iterator<Item = RelayPort> {
        [Family::V4, Family::V6].into_iter().filter_map(|family| self.port(family))
    }
}

/// All allocations.
#[derive(Debug)]
pub(super) struct Allocations {
    slots: Slab<(u32, Allocation)>,
    next_generation: u32,
    by_client: Index,
    key: HashKey,
}

impl Allocations {
    pub(super) fn new(key: HashKey) -> Self {
        Self { slots: Slab::new(), next_generation: 0, by_client: Index::new(), key }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationKey {
        let hash = allocation.client.hash(self.key, 0);
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let slot = self.slots.insert((generation, allocation)) as u32;
        self.by_client.insert(hash, slot);
        AllocationKey { slot, generation }
    }

    /// The allocation of a 5-tuple.
    pub(super) fn find(&self, client: ClientKey) -> Option<AllocationKey> {
        let is = |slot: u32| self.slots.get(slot as usize).is_some_and(|(_, other)| other.client == client);
        let slot = self.by_client.find(client.hash(self.key, 0), is)?;
        let &(generation, _) = self.slots.get(slot as usize)?;
        Some(AllocationKey { slot, generation })
    }

    pub(super) fn get(&self, key: AllocationKey) -> Option<&Allocation> {
        let (generation, allocation) = self.slots.get(key.slot as usize)?;
        (*generation == key.generation).then_some(allocation)
    }

    pub(super) fn get_mut(&mut self, key: AllocationKey) -> Option<&mut Allocation> {
        let (generation, allocation) = self.slots.get_mut(key.slot as usize)?;
        (*generation == key.generation).then_some(allocation)
    }

    /// Takes an allocation out.
    pub(super) fn remove(&mut self, key: AllocationKey) -> Option<Allocation> {
        let hash = self.get(key)?.client.hash(self.key, 0);
        self.by_client.remove(hash, key.slot);
        self.slots.try_remove(key.slot as usize).map(|(_, allocation)| allocation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (AllocationKey, &Allocation)> {
        self.slots.iter().map(|(slot, (generation, allocation))| {
            (AllocationKey { slot: slot as u32, generation: *generation }, allocation)
        })
    }
}
