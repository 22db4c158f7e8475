//! Everything that clients hold, and its upkeep: allocations own permissions, permissions own
//! channels, and whatever ends takes with it what it owns, its timers and its routes.

use super::allocations::{Allocation, AllocationKey, Allocations, Half};
use super::channels::{Channels, NewChannel};
use super::endpoint::{ClientKey, HashKey, Host};
use super::links::{self, NONE};
use super::permissions::Permissions;
use super::siblings::Siblings;
use super::users::{Direction, UserId, Users};
use super::wheel::Wheel;
use super::{Command, Limits, RelayPort, Timer};
use crate::Family;
use crate::stun::{ErrorCode, TransactionId};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// RFC 8656, section 9: it must be 300 seconds.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656, section 12: ten minutes.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// All tables, and the commands that changes to them bring about.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) allocations: Allocations,
    pub(super) permissions: Permissions,
    pub(super) channels: Channels,
    pub(super) users: Users,
    pub(super) timers: Wheel<Timer>,
    pub(super) commands: VecDeque<Command>,
    pub(super) siblings: Siblings,
    /// The caller wants to know of routes.
    pub(super) announces_routes: bool,
    /// Generation of the next route.
    pub(super) next_route: u64,
}

impl Tables {
    /// `key` is asked for a secret per table.
    pub(super) fn new(
        now: Instant,
        limits: &Limits,
        announces_routes: bool,
        siblings: Siblings,
        mut key: impl FnMut() -> HashKey,
    ) -> Self {
        Self {
            allocations: Allocations::new(key()),
            permissions: Permissions::new(key()),
            channels: Channels::new([key(), key()]),
            users: Users::new(now, limits, key()),
            timers: Wheel::new(now),
            commands: VecDeque::new(),
            siblings,
            announces_routes: announces_routes && !limits.has_rates(),
            next_route: 0,
        }
    }

    /// Adds an allocation without ports.
    ///
    /// # Errors
    ///
    /// 486 or 508 if there are too many.
    pub(super) fn allocate(
        &mut self,
        now: Instant,
        client: ClientKey,
        user: &str,
        request: TransactionId,
        limits: &Limits,
    ) -> Result<AllocationKey, ErrorCode> {
        self.siblings.enter(user, limits)?;
        let user = self.users.enter(now, user);
        if let Some(user) = self.users.get_mut(user) {
            user.allocations += 1;
        }
        Ok(self.allocations.insert(Allocation {
            client,
            user,
            secret: 0,
            halves: [None, None],
            channels: 0,
            permissions: 0,
            request,
            response: None,
            pending: None,
        }))
    }

    /// Gives an allocation a relayed port.
    pub(super) fn add_port(&mut self, key: AllocationKey, port: RelayPort) {
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.halves[port.family as usize] = Some(Half::new(port.number));
        }
    }

    /// Sets when one family of an allocation, or both, will end (RFC 8656, sections 7.2 and 8.2).
    pub(super) fn set_lifetime(&mut self, key: AllocationKey, family: Option<Family>, end: Instant) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        let families = [Family::V4, Family::V6].into_iter();
        for family in families.filter(|other| family.is_none_or(|family| family == *other)) {
            let Some(half) = &mut allocation.halves[family as usize] else { continue };
            match half.timer {
                Some(timer) => self.timers.reset(timer, end),
                None => half.timer = Some(self.timers.set(Timer::Allocation(key, family), end)),
            }
        }
    }

    /// Installs or refreshes a permission (RFC 8656, section 9); returns its number.
    pub(super) fn permit(&mut self, now: Instant, key: AllocationKey, host: Host) -> Option<u32> {
        let index = match self.permissions.find(key, host) {
            Some(index) => index,
            None => self.add_permission(key, host)?,
        };
        let permission = self.permissions.slots.get_mut(index as usize)?;
        let end = now + PERMISSION_LIFETIME;
        if let Some(timer) = permission.timer {
            self.timers.reset(timer, end);
            return Some(index);
        }
        permission.timer = Some(self.timers.set(Timer::Permission(index), end));
        self.permissions.granted += 1;
        self.count(key, |permissions, _| *permissions += 1);
        self.for_channels_of(index, |tables, channel| {
            tables.channels.permit(channel, true);
            tables.raise_route(channel);
        });
        Some(index)
    }

    fn add_permission(&mut self, key: AllocationKey, host: Host) -> Option<u32> {
        let allocation = self.allocations.get_mut(key)?;
        let half = allocation.halves[host.family() as usize].as_mut()?;
        let index = self.permissions.insert(key, host);
        links::push(&mut self.permissions.slots, &mut half.permissions, index);
        Some(index)
    }

    /// Binds or refreshes a channel, and with it the permission (RFC 8656, section 12.2).
    pub(super) fn bind(&mut self, now: Instant, key: AllocationKey, new: NewChannel) -> Option<()> {
        let index = self.permit(now, key, new.peer.host())?;
        let allocation = self.allocations.get(key)?;
        let (client, user, end) = (allocation.client, allocation.user, now + CHANNEL_LIFETIME);
        if let Some(channel) = self.channels.find_by_client(client, new.number) {
            let timer = self.channels.bindings.get(channel as usize)?.timer?;
            self.timers.reset(timer, end);
            return Some(());
        }
        let channel = self.channels.insert(key, client, user, index, new);
        let permission = self.permissions.slots.get_mut(index as usize)?;
        links::push(&mut self.channels.bindings, &mut permission.channels, channel);
        let timer = self.timers.set(Timer::Channel(channel), end);
        self.channels.bindings.get_mut(channel as usize)?.timer = Some(timer);
        self.count(key, |_, channels| *channels += 1);
        self.raise_route(channel);
        Some(())
    }

    /// Has everything fetched that datagrams with these hashes will need.
    pub(super) fn expect(&mut self, direction: Direction, hashes: &[u64]) {
        let users = self.channels.expect(direction, hashes);
        black_box(users.fold(0, |sum, user| sum ^ self.users.touch(user)));
    }

    /// A channel's time is over.
    pub(super) fn expire_channel(&mut self, index: u32) {
        if let Some(binding) = self.channels.bindings.get_mut(index as usize) {
            binding.timer = None;
            let permission = binding.permission;
            self.remove_channel(index);
            self.drop_if_empty(permission);
        }
    }

    /// A permission's time is over; channels to its host stay, and carry data to the peer only.
    pub(super) fn expire_permission(&mut self, index: u32) {
        let Some(permission) = self.permissions.slots.get_mut(index as usize) else { return };
        permission.timer = None;
        let key = permission.key;
        self.permissions.granted -= 1;
        self.count(key, |permissions, _| *permissions -= 1);
        self.for_channels_of(index, |tables, channel| {
            tables.channels.permit(channel, false);
            tables.lower_route(channel);
        });
        self.drop_if_empty(index);
    }

    /// Ends one family of an allocation, with its permissions and channels and no others (RFC 8656,
    /// section 8.1); returns its port.
    pub(super) fn end_half(&mut self, key: AllocationKey, family: Family) -> Option<RelayPort> {
        let half = self.allocations.get(key)?.halves[family as usize].as_ref()?;
        let mut index = half.permissions;
        while let Some(permission) = self.permissions.slots.get(index as usize) {
            let next = permission.next();
            self.remove_permission(index);
            index = next;
        }
        let half = self.allocations.get_mut(key)?.halves[family as usize].take()?;
        if let Some(timer) = half.timer {
            self.timers.clear(timer);
        }
        Some(RelayPort { family, number: half.port })
    }

    /// Takes out an allocation whose halves have ended.
    pub(super) fn remove(&mut self, now: Instant, key: AllocationKey) -> Option<Allocation> {
        let allocation = self.allocations.remove(key)?;
        let id = allocation.user;
        let memory = self.users.memory();
        let user = self.users.get_mut(id)?;
        user.allocations -= 1;
        self.siblings.leave(user.name());
        if user.allocations == 0 && memory.is_zero() {
            self.users.forget(id);
        } else if user.allocations == 0 {
            match user.timer {
                Some(timer) => self.timers.reset(timer, now + memory),
                None => user.timer = Some(self.timers.set(Timer::User(id), now + memory)),
            }
        }
        Some(allocation)
    }

    /// A user has had no allocations for a while, or has new ones meanwhile.
    pub(super) fn expire_user(&mut self, id: UserId) {
        if let Some(user) = self.users.get_mut(id) {
            user.timer = None;
        }
        self.users.forget(id);
    }

    fn remove_permission(&mut self, index: u32) {
        self.for_channels_of(index, Self::remove_channel);
        let Some(permission) = self.permissions.slots.get_mut(index as usize) else { return };
        let key = permission.key;
        if let Some(timer) = permission.timer.take() {
            self.timers.clear(timer);
            self.permissions.granted -= 1;
            self.count(key, |permissions, _| *permissions -= 1);
        }
        self.drop_if_empty(index);
    }

    fn remove_channel(&mut self, index: u32) {
        self.lower_route(index);
        let Some(binding) = self.channels.bindings.get_mut(index as usize) else { return };
        let key = binding.key;
        if let Some(timer) = binding.timer.take() {
            self.timers.clear(timer);
        }
        if let Some(permission) = self.permissions.slots.get_mut(binding.permission as usize) {
            links::unlink(&mut self.channels.bindings, &mut permission.channels, index);
        }
        self.channels.remove(index);
        self.count(key, |_, channels| *channels -= 1);
    }

    /// Drops a permission that is not granted and holds no channel.
    fn drop_if_empty(&mut self, index: u32) {
        let Some(permission) = self.permissions.slots.get(index as usize) else { return };
        if permission.is_granted() || permission.channels != NONE {
            return;
        }
        let allocation = self.allocations.get_mut(permission.key);
        let family = permission.host.family();
        if let Some(half) = allocation.and_then(|allocation| allocation.halves[family as usize].as_mut()) {
            links::unlink(&mut self.permissions.slots, &mut half.permissions, index);
        }
        self.permissions.remove(index);
    }

    /// Changes the counts of permissions and channels of an allocation and its user.
    fn count(&mut self, key: AllocationKey, change: impl Fn(&mut usize, &mut usize)) {
        let Some(allocation) = self.allocations.get_mut(key) else { return };
        change(&mut allocation.permissions, &mut allocation.channels);
        if let Some(user) = self.users.get_mut(allocation.user) {
            change(&mut user.permissions, &mut user.channels);
        }
    }

    /// Does something with each channel of a permission, which may remove it.
    fn for_channels_of(&mut self, permission: u32, mut act: impl FnMut(&mut Self, u32)) {
        let first = self.permissions.slots.get(permission as usize);
        let mut channel = first.map_or(NONE, |permission| permission.channels);
        while let Some(next) = self.channels.next(channel) {
            act(self, channel);
            channel = next;
        }
    }
}
