//! Permissions (RFC 8656, section 9): which hosts may send to an allocation, whatever their ports.
//!
//! Channels to a host hang from its permission, because data of a channel needs both. A channel
//! outlives a permission that is not refreshed; the entry then stays, without being granted.

use super::allocations::AllocationKey;
use super::endpoint::{HashKey, Host};
use super::index::Index;
use super::links::{Linked, Links, NONE};
use super::wheel::TimerId;
use slab::Slab;

/// One host that one allocation has, or had, a permission for.
#[derive(Debug)]
pub(super) struct Permission {
    pub(super) key: AllocationKey,
    pub(super) host: Host,
    /// Ends the permission; none if it is not granted.
    pub(super) timer: Option<TimerId>,
    /// Where the list of channels to the host starts.
    pub(super) channels: u32,
    links: Links,
}

impl Permission {
    pub(super) fn is_granted(&self) -> bool {
        self.timer.is_some()
    }

    /// The entry behind this one on its allocation's list, which may be none.
    pub(super) fn next(&self) -> u32 {
        self.links.next
    }
}

impl Linked for Permission {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// All permissions.
#[derive(Debug)]
pub(super) struct Permissions {
    pub(super) slots: Slab<Permission>,
    by_host: Index,
    key: HashKey,
    pub(super) granted: usize,
}

impl Permissions {
    pub(super) fn new(key: HashKey) -> Self {
        Self { slots: Slab::new(), by_host: Index::new(), key, granted: 0 }
    }

    /// The entry of a host, granted or not.
    pub(super) fn find(&self, key: AllocationKey, host: Host) -> Option<u32> {
        let is = |index: u32| {
            let permission = self.slots.get(index as usize);
            permission.is_some_and(|permission| permission.key == key && permission.host == host)
        };
        self.by_host.find(host.hash(self.key, key.slot), is)
    }

    /// True if the host may send to the allocation, and receive from it.
    pub(super) fn allows(&self, key: AllocationKey, host: Host) -> bool {
        let permission = self.find(key, host).and_then(|index| self.slots.get(index as usize));
        permission.is_some_and(Permission::is_granted)
    }

    /// Makes an entry that is not granted and on no list.
    pub(super) fn insert(&mut self, key: AllocationKey, host: Host) -> u32 {
        let permission = Permission { key, host, timer: None, channels: NONE, links: Links::NONE };
        let index = self.slots.insert(permission) as u32;
        self.by_host.insert(host.hash(self.key, key.slot), index);
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(permission) = self.slots.try_remove(index as usize) else { return };
        let hash = permission.host.hash(self.key, permission.key.slot);
        self.by_host.remove(hash, index);
    }
}
