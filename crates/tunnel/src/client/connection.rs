//! What becomes of connections to gateways.

use std::time::{Duration, Instant};

use adit_peering::{CloseReason, ConnectionId, PathInfo};
use adit_policy::{GatewayId, SiteId};
use adit_protocol::ClientToPortal;
use adit_protocol::client::ConnectionClosed;
use adit_protocol::peer::{GoodbyeReason, PeerMessage};

use super::domains::DomainKey;
use super::gateways::Gateway;
use super::{Client, ClientEvent, Timer};
use crate::drops::DropReason;
use crate::link::peer_of;

/// A gateway that stopped or failed is not chosen again for this long.
pub(super) const AVOID_FOR: Duration = Duration::from_secs(5);
/// No goodbye may ask for more.
const MAX_AVOID: Duration = Duration::from_secs(300);

impl Client {
    pub(super) fn connected(&mut self, now: Instant, connection: ConnectionId, path: PathInfo) {
        let Some(id) = self.gateways.at(connection) else { return };
        self.timers.clear(Timer::Hold(id));
        if let Some(gateway) = self.gateways.get_mut(id) {
            gateway.is_held = false;
        }
        self.path_changed(connection, path);
        let waiting = self.accesses.authorizations_where(|_, authorization| authorization.gateway == id);
        for authorization in waiting {
            if let Some(authorization) = self.accesses.authorization(authorization) {
                self.flush(now, authorization.resource);
            }
        }
    }

    pub(super) fn path_changed(&mut self, connection: ConnectionId, path: PathInfo) {
        let Some(id) = self.gateways.at(connection) else { return };
        if let Some(gateway) = self.gateways.get_mut(id) {
            tracing::info!(gateway = %id, path = ?path.kind, "path changed");
            gateway.path = Some(path);
            self.flows.note_path(peer_of(connection), path.kind);
        }
        self.announce_connection(id);
    }

    /// The connection failed or the gateway said goodbye: both mean the same.
    pub(super) fn closed(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        let Some(id) = self.gateways.at(connection) else { return };
        if let CloseReason::Goodbye { reason: GoodbyeReason::ShuttingDown, retry_after: Some(back_within) } =
            reason
            && self.hold(now, id, back_within.min(MAX_AVOID))
        {
            return;
        }
        tracing::info!(gateway = %id, reason = reason.name(), "connection closed");
        if let Some(avoid) = avoid_for(reason) {
            self.gateways.avoid(now, id, now + avoid);
        }
        self.remove_gateway(now, id);
    }

    /// Leaves a gateway, with a goodbye or without a word.
    pub(super) fn leave_gateway(&mut self, now: Instant, id: GatewayId, goodbye: Option<GoodbyeReason>) {
        let Some(gateway) = self.gateways.get(id) else { return };
        let connection = gateway.connection;
        tracing::info!(gateway = %id, reason = goodbye.map(GoodbyeReason::name), "leaving a gateway");
        match goodbye {
            Some(reason) => self.link.node_mut().close(now, connection, reason, None),
            None => self.link.node_mut().forget(now, connection),
        }
        self.remove_gateway(now, id);
    }

    /// Forgets a gateway whose connection the portal replaced.
    pub(super) fn drop_gateway(&mut self, now: Instant, id: GatewayId) {
        let Some(gateway) = self.gateways.remove(id) else { return };
        self.link.node_mut().forget(now, gateway.connection);
        self.forget_gateway(now, id, &gateway);
    }

    /// Forgets a gateway and tells the portal.
    fn remove_gateway(&mut self, now: Instant, id: GatewayId) {
        let Some(gateway) = self.gateways.remove(id) else { return };
        let closed = ConnectionClosed { gateway: id, epoch: gateway.epoch() };
        self.portal_messages.push_back(ClientToPortal::ConnectionClosed(closed));
        self.forget_gateway(now, id, &gateway);
        self.events.push_back(ClientEvent::ConnectionChanged { gateway: id, status: None });
    }

    /// Nothing that rested on the connection remains; what waits asks again.
    fn forget_gateway(&mut self, now: Instant, id: GatewayId, gateway: &Gateway) {
        self.timers.clear(Timer::Hold(id));
        self.timers.clear(Timer::Unused(id));
        self.link.forget_flows(gateway.connection);
        self.flows.note_gone(peer_of(gateway.connection));
        for key in self.domains.remove_where(|domain| domain.gateway == id) {
            self.timers.clear(Timer::Domain(key));
        }
        for authorization in
            self.accesses.authorizations_where(|_, authorization| authorization.gateway == id)
        {
            self.end_authorization(now, authorization, "connection closed");
        }
    }

    /// Says goodbye to every gateway of a site that has no resource left.
    pub(super) fn leave_lost_sites(&mut self, now: Instant) {
        let lost: Vec<GatewayId> = self
            .gateways
            .iter()
            .filter(|(_, gateway)| !self.has_resources_at(gateway.site))
            .map(|(id, _)| id)
            .collect();
        for id in lost {
            self.leave_gateway(now, id, Some(GoodbyeReason::NoResources));
        }
    }

    fn has_resources_at(&self, site: SiteId) -> bool {
        self.resources.has_site(site)
    }

    pub(super) fn control(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        message_id: u32,
        message: PeerMessage,
    ) {
        let Some(id) = self.gateways.at(connection) else { return };
        match message {
            PeerMessage::DomainStatus { resource, name, state } => {
                match self.domains.answer(now, id, message_id, resource, &name, state) {
                    Some(key) => {
                        self.timers.clear(Timer::Domain(key));
                        self.flush(now, resource);
                    }
                    None => self.link.drops.count(DropReason::StaleMessage),
                }
            }
            PeerMessage::Draining { deadline_ms } => {
                let deadline = Duration::from_millis(deadline_ms.into()).min(MAX_AVOID);
                self.gateways.avoid(now, id, now + deadline);
                if let Some(gateway) = self.gateways.get_mut(id) {
                    gateway.is_draining = true;
                }
            }
            _ => self.link.drops.count(DropReason::InvalidControl),
        }
    }

    /// Announces a name, for the first time or again.
    pub(super) fn repeat_announcement(&mut self, now: Instant, key: DomainKey) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        let (gateway, resource, message, message_id) =
            (domain.gateway, domain.resource, domain.message(), domain.message_id);
        let Some(next) = domain.next_repeat(now) else {
            self.domains.give_up(now, key);
            return self.flush(now, resource);
        };
        self.timers.set(Timer::Domain(key), next);
        let Some(gateway) = self.gateways.get(gateway) else { return };
        let node = self.link.node_mut();
        // Not being able to send is like losing the message: the timer repeats it.
        match message_id {
            Some(id) => drop(node.send_control_with_id(now, gateway.connection, id, &message)),
            None => {
                if let (Ok(id), Some(domain)) =
                    (node.send_control(now, gateway.connection, &message), self.domains.get_mut(key))
                {
                    domain.message_id = Some(id);
                }
            }
        }
    }

    pub(super) fn announce_connection(&mut self, id: GatewayId) {
        let status = self.connection_status(id);
        self.events.push_back(ClientEvent::ConnectionChanged { gateway: id, status });
    }
}

/// How long the portal should choose another gateway.
fn avoid_for(reason: CloseReason) -> Option<Duration> {
    match reason {
        CloseReason::Goodbye { retry_after: Some(retry_after), .. } => Some(retry_after.min(MAX_AVOID)),
        CloseReason::Goodbye {
            reason: GoodbyeReason::ShuttingDown | GoodbyeReason::InternalError, ..
        } => Some(AVOID_FOR),
        CloseReason::IceFailed | CloseReason::WireGuardExpired | CloseReason::Liveness => Some(AVOID_FOR),
        CloseReason::Goodbye { .. } | CloseReason::Reset | CloseReason::Replaced | CloseReason::Local => None,
    }
}
