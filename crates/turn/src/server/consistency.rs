//! What must hold between the tables after every input; tests and fuzzers ask.

use super::Server;
use super::links::NONE;
use super::tables::Tables;
use crate::Family;

impl Server {
    /// Walks all tables and compares what they say of each other; for tests, since it takes time in
    /// proportion to everything there is.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    #[doc(hidden)]
    pub fn check_consistency(&self) -> Result<(), &'static str> {
        self.tables.check()?;
        let mut ports = 0;
        for (key, allocation) in self.tables.allocations.iter() {
            ensure(allocation.pending.is_some() != allocation.response.is_some(), "pending and answered")?;
            let waiting = allocation.pending.as_ref().map_or(0, |pending| pending.waiting());
            ports += waiting + allocation.ports().count();
            let holds = |port| self.ports.holder(port) == Some(key);
            ensure(allocation.ports().all(holds), "a port without its holder")?;
        }
        ensure(self.ports.taken() == ports, "a port is lost")
    }
}

impl Tables {
    fn check(&self) -> Result<(), &'static str> {
        let (mut permissions, mut granted, mut channels, mut timers) = (0, 0, 0, 0);
        for (key, allocation) in self.allocations.iter() {
            ensure(self.allocations.find(allocation.client) == Some(key), "an allocation is not found")?;
            timers += allocation.pending.as_ref().map_or(0, |pending| usize::from(pending.timer.is_some()));
            let before = (granted, channels);
            for family in [Family::V4, Family::V6] {
                let Some(half) = &allocation.halves[family as usize] else { continue };
                timers += usize::from(half.timer.is_some());
                ensure(half.timer.is_some() == allocation.response.is_some(), "a half without an end")?;
                let mut index = half.permissions;
                while index != NONE {
                    let permission = self.permissions.slots.get(index as usize).ok_or("a broken list")?;
                    ensure(permission.key == key, "somebody else's permission")?;
                    ensure(permission.host.family() == family, "a permission of the wrong family")?;
                    ensure(
                        self.permissions.find(key, permission.host) == Some(index),
                        "a permission is not found",
                    )?;
                    ensure(permission.is_granted() || permission.channels != NONE, "an empty permission")?;
                    permissions += 1;
                    granted += usize::from(permission.is_granted());
                    channels += self.check_channels(index)?;
                    index = permission.next();
                }
            }
            let counted = (granted - before.0, channels - before.1);
            ensure(counted == (allocation.permissions, allocation.channels), "an allocation counts wrongly")?;
        }
        ensure(permissions == self.permissions.slots.len(), "a permission is lost")?;
        ensure(granted == self.permissions.granted, "permissions are counted wrongly")?;
        ensure(channels == self.channels.len(), "a channel is lost")?;
        let of_users = self.check_users()?;
        ensure(timers + granted + channels + of_users == self.timers.len(), "a deadline is lost")
    }

    /// The channels of a permission.
    fn check_channels(&self, permission: u32) -> Result<usize, &'static str> {
        let owner = self.permissions.slots.get(permission as usize).ok_or("no permission")?;
        let client = self.allocations.get(owner.key).ok_or("no allocation")?.client;
        let mut count = 0;
        let mut index = owner.channels;
        while index != NONE {
            let binding = self.channels.bindings.get(index as usize).ok_or("a broken list")?;
            let line = self.channels.get(index).ok_or("a channel without its line")?;
            ensure(binding.key == owner.key && binding.permission == permission, "a stray channel")?;
            ensure(binding.timer.is_some(), "a channel without an end")?;
            ensure(line.is_permitted == owner.is_granted(), "a channel's permission differs")?;
            ensure(line.peer.host() == owner.host, "a channel to another host")?;
            let by_client = self.channels.find_by_client(client, line.number);
            let by_peer = self.channels.find_by_peer(line.port(), line.peer);
            ensure(by_client == Some(index) && by_peer == Some(index), "a channel is not found")?;
            let can_have_route = owner.is_granted() && self.announces_routes;
            ensure(can_have_route || binding.route.is_none(), "a route of no use")?;
            count += 1;
            index = self.channels.next(index).unwrap_or(NONE);
        }
        Ok(count)
    }

    /// How many users have deadlines.
    fn check_users(&self) -> Result<usize, &'static str> {
        let mut held = vec![[0; 3]; self.users.iter().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0)];
        for (_, allocation) in self.allocations.iter() {
            let sums = held.get_mut(allocation.user.0 as usize).ok_or("nobody's allocation")?;
            sums[0] += 1;
            sums[1] += allocation.permissions;
            sums[2] += allocation.channels;
        }
        let mut timers = 0;
        for (id, user) in self.users.iter() {
            let counted = [user.allocations, user.permissions, user.channels];
            ensure(held[id.0 as usize] == counted, "a user counts wrongly")?;
            ensure(user.allocations > 0 || user.timer.is_some(), "a user without reason")?;
            timers += usize::from(user.timer.is_some());
        }
        Ok(timers)
    }
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
