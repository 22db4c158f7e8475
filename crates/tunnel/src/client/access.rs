//! Where the client stands with each resource: asked for, granted, refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_dataplane::GrantId;
use adit_policy::{AuthorizationId, GatewayId, ResourceId};

use super::buffer::PacketQueue;

/// The first repetition of a request comes after this, each later one after twice as long.
pub(crate) const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No two repetitions are further apart.
pub(crate) const LAST_RETRY: Duration = Duration::from_secs(8);
/// How long a refusal stands before the portal is asked again.
pub(crate) const FORBIDDEN_FOR: Duration = Duration::from_secs(5);
/// How long "no gateway is online" stands before the portal is asked again.
pub(crate) const OFFLINE_FOR: Duration = Duration::from_secs(2);

/// Why the portal did not grant access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Policy says no, or there is no such resource.
    Forbidden,
    /// No gateway of the site is online.
    Offline,
}

/// A request that the portal has not answered.
#[derive(Debug)]
pub(crate) struct Request {
    /// Stays the same however often the request is repeated.
    pub(crate) id: u64,
    /// The time to the next repetition.
    pub(crate) interval: Duration,
}

/// Where the client stands with one resource.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Packets that wait for a way.
    pub(crate) queue: PacketQueue,
    /// Somebody wants the connection until then, packets or not.
    pub(crate) wanted_until: Option<Instant>,
    /// The portal was asked.
    pub(crate) request: Option<Request>,
    /// The portal said no, and that stands until then.
    pub(crate) refusal: Option<(Refusal, Instant)>,
    /// What new flows rest on.
    pub(crate) authorization: Option<AuthorizationId>,
}

impl Access {
    /// The refusal that stands at `now`.
    pub(crate) fn refusal_at(&self, now: Instant) -> Option<(Refusal, Instant)> {
        self.refusal.filter(|(_, until)| *until > now)
    }

    /// Whether somebody waits for an authorization.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        !self.queue.is_empty() || self.wanted_until.is_some_and(|until| until > now)
    }
}

/// An authorization that the client holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authorization {
    pub(crate) id: AuthorizationId,
    pub(crate) resource: ResourceId,
    pub(crate) gateway: GatewayId,
    /// What the flows rest on.
    pub(crate) grant: GrantId,
}

/// All that the client holds, asks for, or was refused.
#[derive(Debug, Default)]
pub(crate) struct Accesses {
    by_resource: BTreeMap<ResourceId, Access>,
    authorizations: BTreeMap<AuthorizationId, Authorization>,
}

impl Accesses {
    pub(crate) fn get(&self, resource: ResourceId) -> Option<&Access> {
        self.by_resource.get(&resource)
    }

    pub(crate) fn get_mut(&mut self, resource: ResourceId) -> Option<&mut Access> {
        self.by_resource.get_mut(&resource)
    }

    /// The entry of a resource that exists; the table is no larger than the list of resources.
    pub(crate) fn entry(&mut self, resource: ResourceId) -> &mut Access {
        self.by_resource.entry(resource).or_default()
    }

    pub(crate) fn remove(&mut self, resource: ResourceId) -> Option<Access> {
        self.by_resource.remove(&resource)
    }

    /// The authorization that new flows to `resource` rest on.
    pub(crate) fn current(&self, resource: ResourceId) -> Option<Authorization> {
        let id = self.by_resource.get(&resource)?.authorization?;
        self.authorizations.get(&id).copied()
    }

    pub(crate) fn authorization(&self, id: AuthorizationId) -> Option<Authorization> {
        self.authorizations.get(&id).copied()
    }

    /// Makes `authorization` the one that new flows rest on.
    pub(crate) fn grant(&mut self, authorization: Authorization) {
        self.authorizations.insert(authorization.id, authorization);
        self.entry(authorization.resource).authorization = Some(authorization.id);
    }

    /// Gives the flows of an authorization a new name; returns the old one.
    pub(crate) fn rename_grant(&mut self, id: AuthorizationId, grant: GrantId) -> Option<GrantId> {
        let authorization = self.authorizations.get_mut(&id)?;
        Some(std::mem::replace(&mut authorization.grant, grant))
    }

    /// Forgets an authorization.
    pub(crate) fn ungrant(&mut self, id: AuthorizationId) -> Option<Authorization> {
        let authorization = self.authorizations.remove(&id)?;
        if let Some(access) = self.by_resource.get_mut(&authorization.resource)
            && access.authorization == Some(id)
        {
            access.authorization = None;
        }
        Some(authorization)
    }

    /// The authorizations that meet a condition.
    pub(crate) fn authorizations_where(
        &self,
        condition: impl Fn(AuthorizationId, &Authorization) -> bool,
    ) -> Vec<AuthorizationId> {
        self.authorizations
            .iter()
            .filter(|(id, authorization)| condition(**id, authorization))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether anything is granted through a gateway.
    pub(crate) fn has_any_through(&self, gateway: GatewayId) -> bool {
        self.authorizations.values().any(|authorization| authorization.gateway == gateway)
    }

    /// Whether a resource is granted through a gateway.
    pub(crate) fn has_any_on(&self, resource: ResourceId, gateway: GatewayId) -> bool {
        self.authorizations.values().any(|one| (one.resource, one.gateway) == (resource, gateway))
    }

    /// Resources of which a request is open.
    pub(crate) fn requested(&self) -> Vec<ResourceId> {
        self.by_resource.iter().filter(|(_, access)| access.request.is_some()).map(|(id, _)| *id).collect()
    }

    /// Packets that wait, for whatever.
    pub(crate) fn waiting_count(&self) -> usize {
        self.by_resource.values().map(|access| access.queue.len()).sum()
    }

    pub(crate) fn authorization_count(&self) -> usize {
        self.authorizations.len()
    }
}
