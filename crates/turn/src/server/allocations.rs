//! Allocations and their routes.
//!
//! Allocations live in a slab; a key names a slot and its generation, so that a stale key finds
//! nothing instead of somebody else's allocation. Two route tables answer the data path: client and
//! channel number to peer, relayed port and peer to client.

use super::hashing::{SecretMap, SecretState};
use super::{Client, RelayPort, Route};
use crate::Family;
use crate::stun::TransactionId;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Names an allocation for all time.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub(super) struct AllocationKey {
    slot: u32,
    generation: u32,
}

/// What one client holds.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: Client,
    /// Whom the credentials belong to; stays the same when they are renewed.
    pub(super) user: String,
    pub(super) ports: Vec<RelayPort>,
    pub(super) channels: BTreeMap<u16, SocketAddr>,
    pub(super) permissions: BTreeSet<IpAddr>,
    /// Routes that the caller was told of, by channel.
    pub(super) routes: BTreeMap<u16, Route>,
    pub(super) request: TransactionId,
    /// The answer to `request`; none as long as ports are being bound.
    pub(super) response: Option<Vec<u8>>,
}

impl Allocation {
    /// The port lent for a family.
    pub(super) fn port(&self, family: Family) -> Option<RelayPort> {
        self.ports.iter().copied().find(|port| port.family == family)
    }
}

/// Where ChannelData from a client goes.
#[derive(Copy, Clone, Debug)]
pub(super) struct PeerRoute {
    pub(super) port: RelayPort,
    pub(super) peer: SocketAddr,
    /// Set if the peer is a relayed address of this relay: it must be lent at the moment of sending.
    pub(super) only_if_lent: Option<RelayPort>,
}

/// What was removed with one half of a dual allocation.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) port: RelayPort,
    pub(super) channels: Vec<u16>,
    pub(super) permissions: Vec<IpAddr>,
}

/// All allocations.
#[derive(Debug)]
pub(super) struct Allocations {
    slots: Slab<(u32, Allocation)>,
    next_generation: u32,
    by_client: SecretMap<Client, AllocationKey>,
    by_user: SecretMap<String, usize>,
    to_peers: SecretMap<(Client, u16), PeerRoute>,
    to_clients: SecretMap<(RelayPort, SocketAddr), u16>,
    permissions: SecretMap<(AllocationKey, IpAddr), ()>,
}

impl Allocations {
    pub(super) fn new(secret: (u64, u64)) -> Self {
        let state = SecretState::new(secret);
        Self {
            slots: Slab::new(),
            next_generation: 0,
            by_client: SecretMap::with_hasher(state),
            by_user: SecretMap::with_hasher(state),
            to_peers: SecretMap::with_hasher(state),
            to_clients: SecretMap::with_hasher(state),
            permissions: SecretMap::with_hasher(state),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn channels(&self) -> usize {
        self.to_peers.len()
    }

    pub(super) fn permissions(&self) -> usize {
        self.permissions.len()
    }

    pub(super) fn of_user(&self, user: &str) -> usize {
        self.by_user.get(user).copied().unwrap_or(0)
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationKey {
        *self.by_user.entry(allocation.user.clone()).or_default() += 1;
        let client = allocation.client;
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.slots.insert((generation, allocation)) as u32;
        let key = AllocationKey { slot, generation };
        self.by_client.insert(client, key);
        key
    }

    pub(super) fn key_of(&self, client: Client) -> Option<AllocationKey> {
        self.by_client.get(&client).copied()
    }

    pub(super) fn get(&self, key: AllocationKey) -> Option<&Allocation> {
        let (generation, allocation) = self.slots.get(key.slot as usize)?;
        (*generation == key.generation).then_some(allocation)
    }

    pub(super) fn get_mut(&mut self, key: AllocationKey) -> Option<&mut Allocation> {
        let (generation, allocation) = self.slots.get_mut(key.slot as usize)?;
        (*generation == key.generation).then_some(allocation)
    }

    /// Takes an allocation out, with every route.
    pub(super) fn remove(&mut self, key: AllocationKey) -> Option<Allocation> {
        self.get(key)?;
        let (_, allocation) = self.slots.try_remove(key.slot as usize)?;
        self.by_client.remove(&allocation.client);
        if let Some(count) = self.by_user.get_mut(&allocation.user) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(&allocation.user);
            }
        }
        for (&number, &peer) in &allocation.channels {
            self.to_peers.remove(&(allocation.client, number));
            if let Some(port) = allocation.port(Family::of(peer.ip())) {
                self.to_clients.remove(&(port, peer));
            }
        }
        for &peer in &allocation.permissions {
            self.permissions.remove(&(key, peer));
        }
        Some(allocation)
    }

    /// Takes one family out of an allocation, with its routes.
    pub(super) fn remove_family(&mut self, key: AllocationKey, family: Family) -> Option<Half> {
        let allocation = self.get_mut(key)?;
        let port = allocation.port(family)?;
        allocation.ports.retain(|other| *other != port);
        let of_family = |peer: &IpAddr| Family::of(*peer) == family;
        let channels = allocation.channels.iter();
        let channels = channels.filter(|(_, peer)| of_family(&peer.ip()));
        let channels: Vec<u16> = channels.map(|(number, _)| *number).collect();
        let permissions = allocation.permissions.iter().copied().filter(of_family);
        let permissions: Vec<IpAddr> = permissions.collect();
        for &number in &channels {
            self.remove_channel(key, number);
        }
        for &peer in &permissions {
            self.remove_permission(key, peer);
        }
        Some(Half { port, channels, permissions })
    }

    /// Adds or keeps a permission.
    pub(super) fn add_permission(&mut self, key: AllocationKey, peer: IpAddr) {
        if let Some(allocation) = self.get_mut(key) {
            allocation.permissions.insert(peer);
            self.permissions.insert((key, peer), ());
        }
    }

    pub(super) fn remove_permission(&mut self, key: AllocationKey, peer: IpAddr) {
        if let Some(allocation) = self.get_mut(key) {
            allocation.permissions.remove(&peer);
        }
        self.permissions.remove(&(key, peer));
    }

    pub(super) fn has_permission(&self, key: AllocationKey, peer: IpAddr) -> bool {
        self.permissions.contains_key(&(key, peer))
    }

    /// Adds or keeps a channel.
    pub(super) fn add_channel(&mut self, key: AllocationKey, number: u16, route: PeerRoute) {
        if let Some(allocation) = self.get_mut(key) {
            allocation.channels.insert(number, route.peer);
            let client = allocation.client;
            self.to_peers.insert((client, number), route);
            self.to_clients.insert((route.port, route.peer), number);
        }
    }

    pub(super) fn remove_channel(&mut self, key: AllocationKey, number: u16) {
        let Some(allocation) = self.get_mut(key) else {
            return;
        };
        allocation.channels.remove(&number);
        let client = allocation.client;
        if let Some(route) = self.to_peers.remove(&(client, number)) {
            self.to_clients.remove(&(route.port, route.peer));
        }
    }

    /// Where data on a client's channel goes.
    pub(super) fn peer_route(&self, client: Client, number: u16) -> Option<&PeerRoute> {
        self.to_peers.get(&(client, number))
    }

    /// The channel for data of this peer at this port.
    pub(super) fn channel_of(&self, port: RelayPort, peer: SocketAddr) -> Option<u16> {
        self.to_clients.get(&(port, peer)).copied()
    }
}
