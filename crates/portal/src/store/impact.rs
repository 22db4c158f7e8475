//! What a destructive change would take away, and from whom, before anybody makes it.
//!
//! A person loses a resource when no other enabled policy lets them have it. Conditions are not
//! judged here: whoever is let in by a condition sometimes loses it too.

use adit_policy::{ActorId, ClientId, GroupId, ResourceId, SiteId};
use uuid::Uuid;

use super::{Change, Store, StoreError, sql};

/// A live authorization that would end: actor, client, resource, end.
pub(crate) type EndingLease = (String, String, String, i64);

/// What a destructive change would take away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Impact {
    /// Who loses access to what: names of an actor and a resource; at most [`MOST_LOSSES`].
    pub(crate) losses: Vec<(String, String)>,
    /// Live authorizations that end; at most [`MOST_LOSSES`].
    pub(crate) leases: Vec<EndingLease>,
}

/// Losses and leases that are listed at most; a list as long as this may be longer.
pub(crate) const MOST_LOSSES: usize = 200;

/// What is to be taken away.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Removal {
    /// A policy is disabled or deleted.
    Policy(Uuid),
    /// A group is deleted.
    Group(GroupId),
    /// An actor leaves a group.
    Membership(GroupId, ActorId),
    /// An actor is disabled or deleted.
    Actor(ActorId),
    /// A resource is deleted.
    Resource(ResourceId),
    /// A site is deleted.
    Site(SiteId),
    /// A client or gateway is deleted.
    Device(Uuid),
    /// A token is revoked.
    Token(Uuid),
    /// One authorization is revoked.
    Authorization(Uuid),
    /// A provider is disabled: whoever signed in with it is signed out.
    SignIns(Uuid),
    /// A provider is deleted: its groups are emptied besides.
    Provider(Uuid),
}

macro_rules! select_losses {
    ($lost:literal, $other:literal) => {
        concat!(
            "SELECT DISTINCT actor.name, resource.name
             FROM policy
             JOIN membership ON membership.group_id = policy.group_id
             JOIN actor ON actor.id = membership.actor_id AND actor.enabled
             JOIN resource ON resource.id = policy.resource_id
             WHERE policy.enabled AND $2 IS NOT NULL AND ",
            $lost,
            " AND NOT EXISTS (
                 SELECT 1 FROM policy AS other
                 JOIN membership AS also ON also.group_id = other.group_id
                 WHERE other.enabled AND other.resource_id = policy.resource_id
                   AND also.actor_id = membership.actor_id AND ",
            $other,
            ") ORDER BY 1, 2 LIMIT $3"
        )
    };
}

macro_rules! select_ends {
    ($condition:literal) => {
        concat!(
            "SELECT actor.name, device.name, resource.name, lease.expires_ms
             FROM lease
             JOIN device ON device.id = lease.client_id
             JOIN actor ON actor.id = device.actor_id
             JOIN resource ON resource.id = lease.resource_id
             JOIN policy ON policy.id = lease.policy_id
             WHERE $2 IS NOT NULL AND lease.expires_ms > $3 AND ",
            $condition,
            " ORDER BY 1, 2, 3 LIMIT $4"
        )
    };
}

impl Removal {
    fn ids(self) -> (Uuid, Uuid) {
        match self {
            Self::Policy(id)
            | Self::Device(id)
            | Self::Token(id)
            | Self::Authorization(id)
            | Self::SignIns(id)
            | Self::Provider(id) => (id, Uuid::nil()),
            Self::Group(id) => (id.as_uuid(), Uuid::nil()),
            Self::Membership(group, actor) => (group.as_uuid(), actor.as_uuid()),
            Self::Actor(id) => (id.as_uuid(), Uuid::nil()),
            Self::Resource(id) => (id.as_uuid(), Uuid::nil()),
            Self::Site(id) => (id.as_uuid(), Uuid::nil()),
        }
    }

    /// Devices, tokens, sign-ins and single authorizations take nothing from a policy.
    const fn losses(self) -> Option<&'static str> {
        Some(match self {
            Self::Policy(_) => select_losses!("policy.id = $1", "other.id <> $1"),
            Self::Group(_) => select_losses!("policy.group_id = $1", "other.group_id <> $1"),
            Self::Membership(..) => {
                select_losses!("policy.group_id = $1 AND actor.id = $2", "other.group_id <> $1")
            }
            Self::Actor(_) => select_losses!("actor.id = $1", "FALSE"),
            Self::Resource(_) => select_losses!("resource.id = $1", "FALSE"),
            Self::Site(_) => select_losses!("resource.site_id = $1", "FALSE"),
            Self::Provider(_) => select_losses!(
                "policy.group_id IN (SELECT id FROM actor_group WHERE provider_id = $1)",
                "other.group_id NOT IN (SELECT id FROM actor_group WHERE provider_id = $1)"
            ),
            Self::Device(_) | Self::Token(_) | Self::Authorization(_) | Self::SignIns(_) => return None,
        })
    }

    /// The same leases as [`super::Revoke`] ends.
    const fn ends(self) -> &'static str {
        match self {
            Self::Policy(_) => select_ends!("lease.policy_id = $1"),
            Self::Group(_) => select_ends!("policy.group_id = $1"),
            Self::Membership(..) => select_ends!("policy.group_id = $1 AND device.actor_id = $2"),
            Self::Actor(_) => select_ends!("device.actor_id = $1"),
            Self::Resource(_) => select_ends!("lease.resource_id = $1"),
            Self::Site(_) => select_ends!(
                "(resource.site_id = $1 OR lease.gateway_id IN (SELECT id FROM device WHERE site_id = $1))"
            ),
            Self::Device(_) => select_ends!("(lease.client_id = $1 OR lease.gateway_id = $1)"),
            Self::Token(_) => select_ends!(
                "(lease.token_id = $1 OR lease.gateway_id IN (SELECT id FROM device WHERE token_id = $1))"
            ),
            Self::Authorization(_) => select_ends!("lease.id = $1"),
            Self::SignIns(_) => select_ends!(
                "lease.token_id IN (SELECT token.id FROM token
                                    JOIN auth_provider ON auth_provider.account_id = token.account_id
                                         AND auth_provider.name = token.provider
                                    WHERE auth_provider.id = $1)"
            ),
            Self::Provider(_) => select_ends!(
                "(policy.group_id IN (SELECT id FROM actor_group WHERE provider_id = $1)
                  OR lease.token_id IN (SELECT token.id FROM token
                                        JOIN auth_provider ON auth_provider.account_id = token.account_id
                                             AND auth_provider.name = token.provider
                                        WHERE auth_provider.id = $1))"
            ),
        }
    }
}

impl Store {
    /// What a removal would take away now, and from whom.
    pub(crate) async fn impact(&self, removal: Removal, now_ms: i64) -> Result<Impact, StoreError> {
        let (first, second) = removal.ids();
        let most = MOST_LOSSES as i64;
        let mut tx = self.reader.begin().await?;
        let losses = match removal.losses() {
            Some(statement) => {
                let query = sql::query_as(statement).bind(first).bind(second).bind(most);
                query.fetch_all(&mut tx).await?
            }
            None => Vec::new(),
        };
        let query = sql::query_as(removal.ends()).bind(first).bind(second).bind(now_ms).bind(most);
        Ok(Impact { losses, leases: query.fetch_all(&mut tx).await? })
    }

    /// What ends when nobody vouches for a client any more: leases by policies that ask for it.
    pub(crate) async fn impact_of_unverifying(
        &self,
        client: ClientId,
        now_ms: i64,
    ) -> Result<Impact, StoreError> {
        let query = sql::query_as(select_ends!(
            "lease.client_id = $1 AND policy.conditions LIKE '%\"verified_device\":true%'"
        ));
        let query = query.bind(client.as_uuid()).bind(Uuid::nil()).bind(now_ms).bind(MOST_LOSSES as i64);
        Ok(Impact { losses: Vec::new(), leases: query.fetch_all(&self.reader).await? })
    }
}

impl Change {
    /// Live authorizations that a removal would end, in this change. What a change ends is the difference between
    /// before and after, once it has been rehearsed and before it is undone.
    pub(crate) async fn live_leases(&mut self, removal: Removal) -> Result<Vec<EndingLease>, StoreError> {
        let ((first, second), at) = (removal.ids(), self.at_ms());
        let query = sql::query_as(removal.ends()).bind(first).bind(second).bind(at).bind(i64::MAX);
        Ok(query.fetch_all(self.sql()).await?)
    }
}
