//! Asking the portal for access, as long as somebody waits for it.

use std::time::{Duration, Instant};

use adit_policy::{AuthorizationId, ResourceId};
use adit_protocol::ClientToPortal;
use adit_protocol::client::{AuthorizationCreated, AuthorizationFailed, FailureReason, RequestAuthorization};

use super::access::{Authorization, FIRST_RETRY, FORBIDDEN_FOR, LAST_RETRY, OFFLINE_FOR, Refusal, Request};
use super::gateways::Gateway;
use super::{Client, Timer};
use crate::drops::DropReason;

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
        if !self.is_portal_online {
            // Everything open is sent when the portal is back.
            return;
        }
        self.portal_messages.push_back(ClientToPortal::RequestAuthorization(RequestAuthorization {
            request_id,
            resource,
            connected_gateways: self.gateways.connected(),
            avoid_gateways: self.gateways.avoided(now),
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
            self.accesses.grant(Authorization { id: created.id, resource, gateway, grant });
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

    /// An authorization is over: its flows end at once.
    pub(super) fn end_authorization(&mut self, now: Instant, id: AuthorizationId, why: &'static str) {
        let Some(ended) = self.accesses.ungrant(id) else { return };
        tracing::info!(authorization = %id, resource = %ended.resource, why, "authorization ended");
        self.timers.clear(Timer::Lease(id));
        self.link.revoke(ended.grant);
        self.domains
            .remove_where(|domain| domain.gateway == ended.gateway && domain.resource == ended.resource);
        // Packets that wait for a connection or a name now wait for an authorization.
        self.flush(now, ended.resource);
    }
}
