//! From a packet of the TUN device to a flow, a queue, or a refusal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_dataplane::{Flow, Origin};
use adit_packet::{IcmpError, PacketView};
use adit_peering::ConnectionId;
use adit_policy::ResourceId;
use adit_protocol::peer::{self, DomainState};

use super::access::{Authorization, Refusal};
use super::buffer::Waiting;
use super::domains::Lookup;
use super::recent_flows::Basis;
use super::resources::NoResource;
use super::{Client, Timer};
use crate::drops::DropReason;
use crate::flow_log::{FarEnd, Subject};
use crate::link::peer_of;
use crate::traffic::FirstPacket;

/// How long a worker drops the packets of a flow that was refused for good reasons that may change.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// Where a packet is meant to go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// To a resource; `name` is set for a proxy address.
    Resource { id: ResourceId, name: Option<(String, Vec<IpAddr>)> },
    /// Nowhere.
    Nowhere(Denial),
}

/// Why a packet goes nowhere, and what its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) reason: DropReason,
    pub(super) answer: IcmpError,
    /// How long the workers may drop the flow's packets by themselves.
    pub(super) until: Option<Instant>,
}

impl Denial {
    fn refused(refusal: Refusal, until: Instant) -> Self {
        let (reason, answer) = match refusal {
            Refusal::Forbidden => (DropReason::Refused, IcmpError::AdministrativelyProhibited),
            Refusal::Offline => (DropReason::Offline, IcmpError::HostUnreachable),
        };
        Self { reason, answer, until: Some(until) }
    }

    fn unresolved(state: DomainState, until: Instant) -> Self {
        let answer = match state {
            DomainState::Forbidden => IcmpError::AdministrativelyProhibited,
            _ => IcmpError::HostUnreachable,
        };
        Self { reason: DropReason::NameUnresolved, answer, until: Some(until) }
    }
}

impl Client {
    pub(super) fn route_tun_packet(&mut self, now: Instant, packet: &mut [u8]) {
        let Ok(view) = PacketView::parse(packet) else {
            return self.link.drops.count(DropReason::Malformed);
        };
        let Some(configuration) = &self.configuration else {
            return self.link.drops.count(DropReason::NotConfigured);
        };
        if peer::is_control(packet) {
            return self.link.drops.count(DropReason::ControlLookalike);
        }
        if ![IpAddr::V4(configuration.ipv4), IpAddr::V6(configuration.ipv6)].contains(&view.source()) {
            return self.link.drops.count(DropReason::WrongSource);
        }
        if self.names.is_resolver(view.destination()) {
            return self.handle_resolver_packet(now, packet, &view);
        }
        let Some(first) = FirstPacket::of(&view) else {
            return self.link.drops.count(DropReason::NotAFlow);
        };
        match self.target(now, &first) {
            Target::Resource { id, name } => self.forward(now, id, name, Waiting::new(now, packet, &view)),
            Target::Nowhere(denial) => self.deny(now, denial, packet),
        }
    }

    /// Proxy addresses first, then networks, then the Internet.
    fn target(&mut self, now: Instant, first: &FirstPacket) -> Target {
        let destination = first.destination();
        let filtered = Denial {
            reason: DropReason::Filtered,
            answer: IcmpError::AdministrativelyProhibited,
            until: Some(now + REFUSED_FOR),
        };
        if self.names.is_proxy(destination) {
            let owner = self.names.owner(now, destination).filter(|owner| !owner.resources.is_empty());
            let Some(owner) = owner else {
                return Target::Nowhere(Denial {
                    reason: DropReason::UnknownProxyAddress,
                    answer: IcmpError::HostUnreachable,
                    until: None,
                });
            };
            let permitting = owner.resources.iter().find(|id| self.resources.permits(**id, first.traffic));
            return match permitting {
                Some(id) => Target::Resource { id: *id, name: Some((owner.name, owner.addresses)) },
                None => Target::Nowhere(filtered),
            };
        }
        match self.resources.route(destination, first.traffic) {
            Ok(id) => Target::Resource { id, name: None },
            Err(NoResource::Filtered(_)) => Target::Nowhere(filtered),
            Err(NoResource::NotCovered) => Target::Nowhere(Denial {
                reason: DropReason::NoRoute,
                answer: IcmpError::NetworkUnreachable,
                until: None,
            }),
        }
    }

    /// Sends the packet if all is in place, refuses it if that is known, else lets it wait.
    fn forward(
        &mut self,
        now: Instant,
        resource: ResourceId,
        name: Option<(String, Vec<IpAddr>)>,
        waiting: Waiting,
    ) {
        if let Some((refusal, until)) = self.accesses.entry(resource).refusal_at(now) {
            return self.deny(now, Denial::refused(refusal, until), &waiting.packet);
        }
        let Some(authorization) = self.accesses.current(resource) else {
            self.enqueue(now, resource, waiting);
            return self.request(now, resource);
        };
        let Some(gateway) = self.gateways.get(authorization.gateway) else { return };
        if gateway.path.is_none() {
            return self.enqueue(now, resource, waiting);
        }
        if gateway.is_draining {
            self.request(now, resource);
        }
        match self.look_up_name(now, authorization, name.as_ref()) {
            Lookup::Active => self.send(now, authorization, name.map(|(name, _)| name), &waiting.packet),
            Lookup::Wait => self.enqueue(now, resource, waiting),
            Lookup::Failed(state, until) => self.deny(now, Denial::unresolved(state, until), &waiting.packet),
        }
    }

    fn look_up_name(
        &mut self,
        now: Instant,
        authorization: Authorization,
        name: Option<&(String, Vec<IpAddr>)>,
    ) -> Lookup {
        let Some((name, addresses)) = name else { return Lookup::Active };
        let Authorization { gateway, resource, .. } = authorization;
        let (lookup, announce) = self.domains.look_up(now, gateway, resource, name, addresses);
        if let Some(key) = announce {
            self.repeat_announcement(now, key);
        }
        lookup
    }

    fn send(&mut self, now: Instant, authorization: Authorization, name: Option<String>, packet: &[u8]) {
        let Some(gateway) = self.gateways.get(authorization.gateway) else { return };
        let connection = gateway.connection;
        let first = PacketView::parse(packet).ok().and_then(|view| FirstPacket::of(&view));
        let Some(first) = first else { return self.link.drops.count(DropReason::Malformed) };
        let peer = peer_of(connection);
        let key = first.key(Origin::Local);
        let usage = self.link.install(Flow::untranslated(key, Origin::Peer(peer), authorization.grant));
        let subject = Subject {
            authorization: authorization.id,
            far_end: FarEnd::Gateway(authorization.gateway),
            peer,
            resource: authorization.resource,
            beyond: first.tuple,
            name: name.map(Arc::from),
        };
        let first_packet = [1, packet.len() as u64];
        self.flows.opened(now, self.clock.unix_ms_at(now), key, &usage, subject, first_packet);
        let basis = Basis { connection, authorization: authorization.id };
        self.recent_flows.insert(now, first.tuple, basis);
        self.link.send(now, connection, packet);
    }

    /// Takes a packet of a gateway that no worker had a flow for: the flow may be too new.
    ///
    /// All else is dropped. Gateways start nothing.
    pub(super) fn take_early_answer(&mut self, now: Instant, connection: ConnectionId, packet: &[u8]) {
        let Ok(view) = PacketView::parse(packet) else {
            return self.link.drops.count(DropReason::Malformed);
        };
        let basis = self.recent_flows.answered_by(now, packet, &view);
        let is_answer = basis.is_some_and(|basis| {
            basis.connection == connection && self.accesses.authorization(basis.authorization).is_some()
        });
        if !is_answer {
            return self.link.drops.count(DropReason::Unsolicited);
        }
        self.link.write_tun(packet[..view.total_length()].to_vec());
    }

    /// Tells the sender, and the workers if the denial stands for a while.
    pub(super) fn deny(&mut self, now: Instant, denial: Denial, packet: &[u8]) {
        self.link.drops.count(denial.reason);
        let Ok(view) = PacketView::parse(packet) else { return };
        if let Some(until) = denial.until
            && let Some(first) = FirstPacket::of(&view)
        {
            self.link.refuse(first.key(Origin::Local), denial.reason, until);
        }
        // The resolver's address speaks: the kernel would not believe its own.
        if let Some(error) = self.answers.answer(now, denial.answer, self.names.resolver(), packet, &view) {
            self.link.write_tun(error);
        }
    }

    fn enqueue(&mut self, now: Instant, resource: ResourceId, waiting: Waiting) {
        let access = self.accesses.entry(resource);
        let dropped = access.queue.push(waiting);
        let expiry = access.queue.next_expiry().unwrap_or(now);
        self.link.drops.add(DropReason::QueueFull, dropped);
        self.timers.set(Timer::Queue(resource), expiry);
    }

    /// Takes all that waits for `resource` through routing again.
    ///
    /// Routing starts over, because the resource may have changed meanwhile.
    pub(super) fn flush(&mut self, now: Instant, resource: ResourceId) {
        self.timers.clear(Timer::Queue(resource));
        let Some(access) = self.accesses.get_mut(resource) else { return };
        for waiting in access.queue.take_all() {
            let first = PacketView::parse(&waiting.packet).ok().and_then(|view| FirstPacket::of(&view));
            let Some(first) = first else { continue };
            match self.target(now, &first) {
                Target::Resource { id, name } => self.forward(now, id, name, waiting),
                Target::Nowhere(denial) => self.deny(now, denial, &waiting.packet),
            }
        }
    }

    /// Refuses all that waits for `resource`.
    pub(super) fn deny_waiting(
        &mut self,
        now: Instant,
        resource: ResourceId,
        refusal: Refusal,
        until: Instant,
    ) {
        self.timers.clear(Timer::Queue(resource));
        let Some(access) = self.accesses.get_mut(resource) else { return };
        for waiting in access.queue.take_all() {
            self.deny(now, Denial::refused(refusal, until), &waiting.packet);
        }
    }

    /// Drops what waited too long; its sender learns that the destination is unreachable.
    pub(super) fn expire_waiting(&mut self, now: Instant, resource: ResourceId) {
        let denial =
            Denial { reason: DropReason::WaitedTooLong, answer: IcmpError::HostUnreachable, until: None };
        while let Some(expired) =
            self.accesses.get_mut(resource).and_then(|access| access.queue.pop_expired(now))
        {
            self.deny(now, denial, &expired.packet);
        }
        if let Some(next) = self.accesses.get(resource).and_then(|access| access.queue.next_expiry()) {
            self.timers.set(Timer::Queue(resource), next);
        }
    }
}
