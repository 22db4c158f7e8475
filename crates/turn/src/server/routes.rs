//! Telling the caller which packets need no decision (see [`Route`]).
//!
//! A route is up while its channel is bound and its peer permitted. Channels last longer than
//! permissions (RFC 8656, sections 9 and 12), so one channel's route may come and go several times.

use super::tables::Tables;
use super::{Command, Route};

impl Tables {
    /// Announces the route of a channel that was bound or permitted just now, unless it is up.
    pub(super) fn raise_route(&mut self, channel: u32) {
        let Some(binding) = self.channels.bindings.get_mut(channel as usize) else { return };
        if self.announces_routes && binding.route.is_none() {
            binding.route = Some(self.next_route);
            match self.route(channel) {
                Some(route) => {
                    self.next_route += 1;
                    self.commands.push_back(Command::AddRoute { route });
                }
                None => self.forget_route(channel),
            }
        }
    }

    /// Takes back the route of a channel.
    pub(super) fn lower_route(&mut self, channel: u32) {
        if let Some(route) = self.route(channel) {
            self.forget_route(channel);
            self.commands.push_back(Command::RemoveRoute { route });
        }
    }

    fn forget_route(&mut self, channel: u32) {
        if let Some(binding) = self.channels.bindings.get_mut(channel as usize) {
            binding.route = None;
        }
    }

    /// The route that is, or is about to be, up. A connection's bytes must stay in order: its channels
    /// are the machine's alone.
    fn route(&self, channel: u32) -> Option<Route> {
        let generation = self.channels.bindings.get(channel as usize)?.route?;
        let line = self.channels.get(channel)?;
        (!line.is_stream()).then(|| Route {
            generation,
            client: line.client().address,
            channel: line.number,
            port: line.port(),
            peer: line.peer.into(),
            is_within_relay: line.only_if_lent,
        })
    }
}
