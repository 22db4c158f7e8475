//! Asking the portal for access, as long as somebody waits for it.

use std::time::{Duration, Instant};

use adit_policy::{AuthorizationId, GatewayId, ResourceId};
use adit_protocol::ClientToPortal;
use adit_protocol::client::{AuthorizationCreated, AuthorizationFailed, FailureReason, RequestAuthorization};
use adit_protocol::peer::GoodbyeReason;

use super::access::{Authorization, FIRST_RETRY, FORBIDDEN_FOR, LAST_RETRY, OFFLINE_FOR, Refusal, Request};
use super::gateways::Gateway;
use super::{Client, Timer};
use crate::drops::DropReason;

/// After the last authorization through a gateway, its goodbye comes within this time or not at all.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// A lease that ends sooner than this is not renewed any more.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);

/// The portal may ask for patience, but not for more than this.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Asks for access to `resource`, unless the portal was asked already.
    pub(super) fn request(&mut self, now: Instant, resource: ResourceId) {
        let access = self.accesses.entry(resource);
        if access.request.is_some() {
            return;
        }
        access.request = Some(Request { id: self.next_request, interval: FIRST_RETRY });
        self.next_request += 1;
        self.send_request(now, resource);
    }

    /// Sends the open request once more if somebody still waits, else forgets it.
    pub(super) fn repeat_request(&mut self, now: Instant, resource: ResourceId) {
        let Some(access) = self.accesses.get_mut(resource) else { return };
        if access.is_wanted(now) {
            self.send_request(now, resource);
        } else {
            access.request = None;
        }
    }

    fn send_request(&mut self, now: Instant, resource: ResourceId) {
        let access = self.accesses.entry(resource);
        let Some(request) = &mut access.request else { return };
        let request_id = request.id;
        self.timers.set(Timer::Request(resource), now + request.interval);
        request.interval = (request.interval * 2).min(LAST_RETRY);
        let prefer_gateway = self.accesses.current(resource).map(|authorization| authorization.gateway);
        let stays = |id: &GatewayId| self.gateways.get(*id).is_some_and(|gateway| !gateway.is_draining);
        let prefer_gateway = prefer_gateway.filter(stays);
        if !self.is_portal_online {
            // Everything open is sent when the portal is back.
            return;
        }
        self.portal_messages.push_back(ClientToPortal::RequestAuthorization(RequestAuthorization {
            request_id,
            resource,
            connected_gateways: self.gateways.connected(),
            avoid_gateways: self.gateways.avoided(now),
            prefer_gateway,
        }));
    }

    /// The portal is back: it may never have heard what is still open.
    pub(super) fn resend_requests(&mut self, now: Instant) {
        for resource in self.accesses.requested() {
            if let Some(request) = self.accesses.get_mut(resource).and_then(|access| access.request.as_mut())
            {
                request.interval = FIRST_RETRY;
            }
            self.repeat_request(now, resource);
        }
    }

    pub(super) fn authorization_failed(&mut self, now: Instant, failed: AuthorizationFailed) {
        let resource = failed.resource;
        let open = self.accesses.get(resource).and_then(|access| access.request.as_ref());
        if open.map(|request| request.id) != Some(failed.request_id) {
            return self.link.drops.count(DropReason::StaleMessage);
        }
        let patience = failed.retry_after_ms.map(|ms| Duration::from_millis(ms).min(MAX_PATIENCE));
        let (refusal, default) = match failed.reason {
            FailureReason::NotFound | FailureReason::Forbidden => (Refusal::Forbidden, FORBIDDEN_FOR),
            FailureReason::Offline => (Refusal::Offline, OFFLINE_FOR),
            FailureReason::Unavailable => {
                // The portal could not say: packets wait, and the timer asks again.
                if let Some(patience) = patience {
                    self.timers.set(Timer::Request(resource), now + patience);
                }
                return;
            }
        };
        self.timers.clear(Timer::Request(resource));
        let until = now + patience.unwrap_or(default);
        let access = self.accesses.entry(resource);
        access.request = None;
        access.wanted_until = None;
        if access.authorization.is_some() {
            // We asked for a second gateway; the first one still serves.
            return;
        }
        access.refusal = Some((refusal, until));
        self.deny_waiting(now, resource, refusal, until);
    }

    pub(super) fn authorization_created(&mut self, now: Instant, created: AuthorizationCreated) {
        let expires = self.clock.instant_of(created.expires_at_ms);
        if self.resources.get(created.resource).is_none() || expires <= now {
            return self.link.drops.count(DropReason::StaleMessage);
        }
        if !self.use_gateway(now, &created) {
            return self.link.drops.count(DropReason::StaleMessage);
        }
        let (resource, gateway) = (created.resource, created.gateway.id);
        if let Some(present) = self.accesses.authorization(created.id) {
            if (present.resource, present.gateway) != (resource, gateway) {
                return self.link.drops.count(DropReason::StaleMessage);
            }
        } else {
            let grant = self.link.next_grant();
            if let Some(older) = self.accesses.current(resource).filter(|older| older.gateway == gateway) {
                self.link.move_grant(older.grant, grant);
                self.timers.clear(Timer::Renewal(older.id));
            }
            self.accesses.grant(Authorization { id: created.id, resource, gateway, grant });
            let renewal = now + renewal_after(created.id, expires.saturating_duration_since(now));
            self.timers.set(Timer::Renewal(created.id), renewal);
        }
        self.timers.set(Timer::Lease(created.id), expires);
        self.timers.clear(Timer::Request(resource));
        let access = self.accesses.entry(resource);
        access.request = None;
        access.refusal = None;
        self.flush(now, resource);
    }

    /// Opens the connection that an authorization names, or finds it open; false for an outdated one.
    fn use_gateway(&mut self, now: Instant, created: &AuthorizationCreated) -> bool {
        let Some(own_address) = self.configuration.as_ref().map(|configuration| configuration.ipv6) else {
            return false;
        };
        let introduced = &created.gateway;
        if let Some(open) = self.gateways.get(introduced.id) {
            if introduced.epoch < open.epoch() {
                return false;
            }
            if introduced.epoch == open.epoch() {
                let connection = open.connection;
                self.link.node_mut().add_remote_candidates(now, connection, &introduced.candidates);
                return true;
            }
            // The gateway knows the newer connection only.
            self.drop_gateway(now, introduced.id);
        }
        match self.link.open(now, own_address, introduced) {
            Ok(connection) => {
                let gateway = Gateway {
                    connection,
                    site: created.site,
                    introduction: introduced.clone(),
                    path: None,
                    is_draining: false,
                    is_held: false,
                };
                self.gateways.insert(introduced.id, gateway);
                true
            }
            Err(error) => {
                tracing::warn!(gateway = %introduced.id, %error, "cannot open a connection");
                false
            }
        }
    }

    /// Asks for another lease before this one ends, if its connection is in use; looks again later if it is not.
    pub(super) fn renew(&mut self, now: Instant, id: AuthorizationId) {
        let Some(authorization) = self.accesses.authorization(id) else { return };
        let Some(ends) = self.timers.deadline(Timer::Lease(id)) else { return };
        let left = ends.saturating_duration_since(now);
        if left < SHORTEST_RENEWAL {
            return;
        }
        self.timers.set(Timer::Renewal(id), now + left / 2);
        let gateway = self.gateways.get(authorization.gateway);
        let is_in_use = gateway.is_some_and(|gateway| self.link.node().is_active(gateway.connection));
        if is_in_use {
            self.request(now, authorization.resource);
        }
    }

    /// A connection that is still being made and that nothing needs any more is forgotten: there is no tunnel in
    /// which the gateway could say goodbye. One that stands gets a moment to hear it.
    fn note_unused(&mut self, now: Instant, id: GatewayId) {
        let Some(gateway) = self.gateways.get(id) else { return };
        if self.accesses.has_any_through(id) {
            return;
        }
        if gateway.path.is_none() {
            return self.leave_gateway(now, id, None);
        }
        self.timers.set(Timer::Unused(id), now + GOODBYE_TIME);
    }

    /// The gateway's goodbye did not come.
    pub(super) fn leave_unused(&mut self, now: Instant, id: GatewayId) {
        if !self.accesses.has_any_through(id) {
            self.leave_gateway(now, id, Some(GoodbyeReason::NoResources));
        }
    }

    /// An authorization is over: its flows end at once.
    pub(super) fn end_authorization(&mut self, now: Instant, id: AuthorizationId, why: &'static str) {
        let Some(ended) = self.accesses.ungrant(id) else { return };
        tracing::info!(authorization = %id, resource = %ended.resource, why, "authorization ended");
        self.timers.clear(Timer::Lease(id));
        self.timers.clear(Timer::Renewal(id));
        self.link.revoke(ended.grant);
        // A newer lease on the same may be there already.
        if !self.accesses.has_any_on(ended.resource, ended.gateway) {
            self.domains
                .remove_where(|domain| domain.gateway == ended.gateway && domain.resource == ended.resource);
        }
        self.note_unused(now, ended.gateway);
        // Packets that wait for a connection or a name now wait for an authorization.
        self.flush(now, ended.resource);
    }
}

/// When a lease that is good for `lifetime` is renewed: after seventy to eighty percent of it, so that leases that
/// were granted together are not renewed together.
fn renewal_after(id: AuthorizationId, lifetime: Duration) -> Duration {
    let [.., last] = id.as_uuid().into_bytes();
    lifetime * (700 + u32::from(last) * 100 / 255) / 1000
}
