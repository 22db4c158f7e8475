//! Telling the caller which packets need no decision (see [`Route`]).
//!
//! A route is up while its channel is bound and its peer permitted. Channels last longer than
//! permissions (RFC 8656, sections 9 and 12), so one channel's route may come and go several times.

use super::allocations::AllocationKey;
use super::{Command, Route, Server, Transport};
use std::net::IpAddr;

impl Server {
    /// Announces the route of a channel that was bound or permitted just now, unless it is up.
    pub(super) fn raise_route(&mut self, key: AllocationKey, channel: u16) {
        if !self.config.announce_routes {
            return;
        }
        let Some(allocation) = self.allocations.get(key) else { return };
        let client = allocation.client;
        // A peer on this relay may have its port taken back at any time, and a connection's bytes must
        // stay in order: both are the machine's alone.
        let Some(peer_route) = self.allocations.peer_route(client, channel) else { return };
        let ours = peer_route.only_if_lent.is_some() || client.transport != Transport::Udp;
        if ours || allocation.routes.contains_key(&channel) {
            return;
        }
        let route = Route {
            generation: self.next_route,
            client: client.address,
            channel,
            port: peer_route.port,
            peer: peer_route.peer,
        };
        self.next_route += 1;
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.routes.insert(channel, route);
        }
        self.commands.push_back(Command::AddRoute { route });
    }

    /// Announces the routes of every channel to a peer that is permitted again.
    pub(super) fn raise_routes_to(&mut self, key: AllocationKey, peer: IpAddr) {
        for channel in self.channels_to(key, peer) {
            self.raise_route(key, channel);
        }
    }

    /// Takes back the route of a channel.
    pub(super) fn lower_route(&mut self, key: AllocationKey, channel: u16) {
        let allocation = self.allocations.get_mut(key);
        if let Some(route) = allocation.and_then(|allocation| allocation.routes.remove(&channel)) {
            self.commands.push_back(Command::RemoveRoute { route });
        }
    }

    /// Takes back the routes of every channel to a peer whose permission is over.
    pub(super) fn lower_routes_to(&mut self, key: AllocationKey, peer: IpAddr) {
        for channel in self.channels_to(key, peer) {
            self.lower_route(key, channel);
        }
    }

    fn channels_to(&self, key: AllocationKey, peer: IpAddr) -> Vec<u16> {
        if !self.config.announce_routes {
            return Vec::new();
        }
        let channels = self.allocations.get(key).into_iter().flat_map(|allocation| &allocation.channels);
        channels.filter(|(_, bound)| bound.ip() == peer).map(|(number, _)| *number).collect()
    }
}
