//! Names that clients announce: checked, resolved, answered.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_policy::ClientId;
use adit_protocol::peer::{DomainState, PeerMessage};

use super::domains::{MAX_PROXIES, NextStep, usable};
use super::held::{Announcement, HOLD, Item};
use super::{Gateway, GatewayEvent, LookupId, ResolveFailure, Timer};
use crate::address::TunnelRanges;
use crate::drops::DropReason;

/// A resolver that takes longer has failed.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// The most questions to the resolver at once.
const MAX_RESOLVING: usize = 1024;
/// The most of them for one client, so that names which take long cannot keep others waiting.
const MAX_RESOLVING_OF_ONE: usize = 64;

impl Gateway {
    /// Takes the addresses of a name that [`GatewayEvent::Resolve`] asked for.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        id: LookupId,
        resolved: Result<Vec<IpAddr>, ResolveFailure>,
    ) {
        self.resolver_answered(now, id, resolved);
        self.settle(now);
    }

    /// Takes a name that a client announced.
    pub(super) fn announce(&mut self, now: Instant, id: ClientId, announcement: Announcement) {
        self.judge_announcement(now, id, announcement, now + HOLD);
    }

    /// Resolves the name, refuses it, or holds it until then because its grant may be on its way.
    pub(super) fn judge_announcement(
        &mut self,
        now: Instant,
        id: ClientId,
        announcement: Announcement,
        until: Instant,
    ) {
        let (Some(client), Some((_, ranges))) = (self.clients.get_mut(&id), &self.configuration) else {
            return;
        };
        if !has_proxies(ranges, &announcement.proxies) {
            return self.link.drops.count(DropReason::InvalidControl);
        }
        match client.leases.allows_name(announcement.resource, &announcement.name) {
            Some(true) => match client.domains.announce(now, &announcement) {
                NextStep::Answer(state) => self.answer(now, id, announcement, state),
                NextStep::Resolve => self.resolve(now, id, announcement.name),
                NextStep::Wait => {}
            },
            None if until > now => {
                if client.held.push(until, Item::Announcement(announcement)).is_err() {
                    return self.link.drops.count(DropReason::QueueFull);
                }
                self.timers.set_at_latest(Timer::Held(id), until);
            }
            _ => {
                self.link.drops.count(DropReason::Unauthorized);
                self.answer(now, id, announcement, DomainState::Forbidden);
            }
        }
    }

    fn answer(&mut self, now: Instant, client: ClientId, announcement: Announcement, state: DomainState) {
        let Announcement { message_id, resource, name, .. } = announcement;
        self.send_status(now, client, message_id, PeerMessage::DomainStatus { resource, name, state });
    }

    fn resolve(&mut self, now: Instant, client: ClientId, name: String) {
        let own = self.resolving.values().filter(|(asker, _)| *asker == client).count();
        if self.resolving.len() >= MAX_RESOLVING || own >= MAX_RESOLVING_OF_ONE {
            // The client repeats its announcement; there may be room then.
            return self.link.drops.count(DropReason::QueueFull);
        }
        self.last_resolve += 1;
        let id = LookupId(self.last_resolve);
        if let Some(client) = self.clients.get_mut(&client) {
            client.domains.set_resolving(&name, id);
        }
        self.resolving.insert(id, (client, name.clone()));
        self.timers.set(Timer::Resolve(id), now + RESOLVE_WITHIN);
        self.events.push_back(GatewayEvent::Resolve { id, name });
    }

    pub(super) fn resolver_answered(
        &mut self,
        now: Instant,
        id: LookupId,
        resolved: Result<Vec<IpAddr>, ResolveFailure>,
    ) {
        self.timers.clear(Timer::Resolve(id));
        let Some((client_id, name)) = self.resolving.remove(&id) else {
            return self.link.drops.count(DropReason::UnknownQuery);
        };
        let (Some(client), Some((_, ranges))) = (self.clients.get_mut(&client_id), &self.configuration)
        else {
            return;
        };
        let addresses = match resolved {
            Ok(addresses) => Some(usable(ranges, addresses)),
            Err(ResolveFailure::NotFound) => Some(Vec::new()),
            Err(ResolveFailure::ResolverFailed) => None,
        };
        if let Some((resource, message_id, state)) = client.domains.resolved(now, &name, id, addresses) {
            self.send_status(now, client_id, message_id, PeerMessage::DomainStatus { resource, name, state });
        }
        self.release(now, client_id);
    }

    fn send_status(&mut self, now: Instant, client: ClientId, message_id: u32, status: PeerMessage) {
        let Some(connection) = self.clients.get(&client).map(|client| client.connection) else { return };
        if self.link.node_mut().send_control_with_id(now, connection, message_id, &status).is_err() {
            self.link.drops.count(DropReason::NotConnected);
        }
    }
}

/// Whether these can be the proxy addresses of one name.
fn has_proxies(ranges: &TunnelRanges, proxies: &[IpAddr]) -> bool {
    let all_fit = proxies.iter().all(|address| ranges.is_proxy(*address));
    all_fit && (1..=MAX_PROXIES).contains(&proxies.len())
}
