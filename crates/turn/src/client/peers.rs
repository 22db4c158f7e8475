//! Which peers the caller wants, and what the relay has granted.

use crate::channel_data::NUMBERS;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A channel binding lasts this long after its last refresh (RFC 8656, section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// For this long after it ended, neither number nor peer may be bound otherwise.
const CHANNEL_COOLDOWN: Duration = Duration::from_secs(300);
/// Channel refresh also refreshes the permission, which lasts 300 s: leave time for lost requests.
pub(super) const REFRESH: Duration = Duration::from_secs(240);
/// Permissions without channel that a client may hold.
const MAX_PERMISSIONS: usize = 4096;

#[derive(Debug)]
struct Channel {
    number: u16,
    bound: bool,
    /// Until when the relay may remember the pair of number and peer.
    reserved_until: Instant,
}

/// Channels and permissions, wanted and granted.
#[derive(Debug, Default)]
pub(super) struct Peers {
    channels: BTreeMap<SocketAddr, Channel>,
    by_number: BTreeMap<u16, SocketAddr>,
    /// Released channels whose number the relay still ties to the peer.
    retired: BTreeMap<SocketAddr, (u16, Instant)>,
    retired_numbers: BTreeSet<u16>,
    next_number: u16,
    /// Wanted permissions; true once granted.
    permissions: BTreeMap<IpAddr, bool>,
    /// How many bound channels each address has: a channel brings a permission along.
    bound_addresses: BTreeMap<IpAddr, usize>,
}

impl Peers {
    /// Adds a channel; false if it was wanted before. Without a free number nothing is added.
    pub(super) fn want_channel(&mut self, now: Instant, peer: SocketAddr) -> bool {
        if self.channels.contains_key(&peer) {
            return false;
        }
        if let Some(number) = self.take_number(now, peer) {
            let channel = Channel { number, bound: false, reserved_until: now };
            self.channels.insert(peer, channel);
            self.by_number.insert(number, peer);
        }
        true
    }

    pub(super) fn has_channel_entry(&self, peer: SocketAddr) -> bool {
        self.channels.contains_key(&peer)
    }

    /// The number the relay already ties to this peer, or one that is free.
    fn take_number(&mut self, now: Instant, peer: SocketAddr) -> Option<u16> {
        self.retired.retain(|_, (number, until)| {
            let keep = *until > now;
            if !keep {
                self.retired_numbers.remove(number);
            }
            keep
        });
        if let Some((number, _)) = self.retired.remove(&peer) {
            self.retired_numbers.remove(&number);
            return Some(number);
        }
        let count = NUMBERS.end() - NUMBERS.start() + 1;
        for _ in 0..count {
            let number = NUMBERS.start() + self.next_number;
            self.next_number = (self.next_number + 1) % count;
            if !self.by_number.contains_key(&number) && !self.retired_numbers.contains(&number) {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn release_channel(&mut self, peer: SocketAddr) {
        let Some(channel) = self.channels.remove(&peer) else {
            return;
        };
        self.by_number.remove(&channel.number);
        if channel.bound {
            self.forget_bound_address(peer.ip());
        }
        self.retired.insert(peer, (channel.number, channel.reserved_until));
        self.retired_numbers.insert(channel.number);
    }

    /// A ChannelBind was sent: from now on the relay may know the binding.
    pub(super) fn reserve(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.reserved_until = now + CHANNEL_LIFETIME + CHANNEL_COOLDOWN;
        }
    }

    /// The relay granted the channel; true if that is news.
    pub(super) fn mark_bound(&mut self, now: Instant, peer: SocketAddr, number: u16) -> bool {
        self.reserve(now, peer);
        let Some(channel) = self.channels.get_mut(&peer) else {
            return false;
        };
        if channel.number != number || std::mem::replace(&mut channel.bound, true) {
            return false;
        }
        *self.bound_addresses.entry(peer.ip()).or_default() += 1;
        true
    }

    pub(super) fn number_of(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.get(&peer).map(|channel| channel.number)
    }

    pub(super) fn bound_channel(&self, peer: SocketAddr) -> Option<u16> {
        let channel = self.channels.get(&peer)?;
        channel.bound.then_some(channel.number)
    }

    pub(super) fn peer_of(&self, number: u16) -> Option<SocketAddr> {
        self.by_number.get(&number).copied()
    }

    /// Adds a permission; false if it was wanted before or there are too many.
    pub(super) fn want_permission(&mut self, peer: IpAddr) -> bool {
        if self.permissions.contains_key(&peer) || self.permissions.len() >= MAX_PERMISSIONS {
            return false;
        }
        self.permissions.insert(peer, false);
        true
    }

    pub(super) fn wants_permission(&self, peer: IpAddr) -> bool {
        self.permissions.contains_key(&peer)
    }

    pub(super) fn release_permission(&mut self, peer: IpAddr) {
        self.permissions.remove(&peer);
    }

    pub(super) fn mark_permitted(&mut self, peer: IpAddr) {
        if let Some(granted) = self.permissions.get_mut(&peer) {
            *granted = true;
        }
    }

    /// True if the relay lets this address through, by permission or by channel.
    pub(super) fn is_permitted(&self, peer: IpAddr) -> bool {
        self.permissions.get(&peer) == Some(&true) || self.bound_addresses.contains_key(&peer)
    }

    /// All grants are gone with the allocation; the wishes stay.
    pub(super) fn forget_grants(&mut self) {
        self.retired.clear();
        self.retired_numbers.clear();
        self.bound_addresses.clear();
        for channel in self.channels.values_mut() {
            channel.bound = false;
        }
        for granted in self.permissions.values_mut() {
            *granted = false;
        }
    }

    /// Every wanted channel.
    pub(super) fn channels(&self) -> Vec<SocketAddr> {
        self.channels.keys().copied().collect()
    }

    /// Every wanted permission.
    pub(super) fn permissions(&self) -> Vec<IpAddr> {
        self.permissions.keys().copied().collect()
    }

    fn forget_bound_address(&mut self, address: IpAddr) {
        if let Some(count) = self.bound_addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.bound_addresses.remove(&address);
            }
        }
    }
}
