//! Authorizations: leases of one client on one resource through one gateway.

use adit_policy::{
    ActorId, AuthorizationId, ClientId, GatewayId, GroupId, PolicyId, ResourceId, SiteId, TokenId,
};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Store, StoreError, sql};
use crate::clock;

/// An authorization as the API shows it.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct AuthorizationRow {
    /// Names it.
    pub(crate) id: Uuid,
    /// Whose client it is.
    pub(crate) actor_name: String,
    /// Which client.
    pub(crate) client_id: Uuid,
    /// Which client.
    pub(crate) client_name: String,
    /// Through which gateway.
    pub(crate) gateway_id: Uuid,
    /// Through which gateway.
    pub(crate) gateway_name: String,
    /// To what.
    pub(crate) resource_id: Uuid,
    /// To what.
    pub(crate) resource_name: String,
    /// By which policy.
    pub(crate) policy_id: Uuid,
    /// Since when.
    pub(crate) created_ms: i64,
    /// Until when.
    pub(crate) expires_ms: i64,
    /// `direct` or `relayed`: how the tunnel runs, by the gateway's last report of a flow; absent without one, or without
    /// a flow log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Bytes from the device, of flows that the gateway has reported since it was granted.
    pub(crate) sent_bytes: i64,
    /// Bytes to the device.
    pub(crate) received_bytes: i64,
}

/// Live authorizations with the names of both ends and the resource, under a condition that ends with order and limit, by
/// their ids; and what gateways have reported since each was granted. A renewed one counts anew, but flows that go on
/// count as a whole. The flow log is asked once for the whole page.
macro_rules! select_authorization {
    ($condition:literal) => {
        concat!(
            "WITH page AS (
                 SELECT a.id, actor.name AS actor_name, c.id AS client_id, c.name AS client_name,
                        g.id AS gateway_id, g.name AS gateway_name, r.id AS resource_id,
                        r.name AS resource_name, a.policy_id, a.created_ms, a.expires_ms, a.account_id
                 FROM lease a
                 JOIN device c ON c.id = a.client_id
                 JOIN actor ON actor.id = c.actor_id
                 JOIN device g ON g.id = a.gateway_id
                 JOIN resource r ON r.id = a.resource_id
                 WHERE ",
            $condition,
            "), reported AS (
                 SELECT page.id, sum(f.sent_bytes) AS sent_bytes, sum(f.received_bytes) AS received_bytes,
                        max(f.seq) AS last_seq
                 FROM page CROSS JOIN flow_log f
                 WHERE f.client_id = page.client_id AND f.resource_id = page.resource_id
                   AND f.at_ms >= page.created_ms AND f.gateway_id = page.gateway_id
                   AND f.reported_by = 'gateway'
                 GROUP BY page.id)
             SELECT page.id, page.actor_name, page.client_id, page.client_name, page.gateway_id,
                    page.gateway_name, page.resource_id, page.resource_name, page.policy_id,
                    page.created_ms, page.expires_ms, last.path,
                    CAST(coalesce(reported.sent_bytes, 0) AS BIGINT) AS sent_bytes,
                    CAST(coalesce(reported.received_bytes, 0) AS BIGINT) AS received_bytes
             FROM page
             LEFT JOIN reported ON reported.id = page.id
             LEFT JOIN flow_log last ON last.account_id = page.account_id AND last.seq = reported.last_seq
             ORDER BY page.id"
        )
    };
}
pub(super) use select_authorization;

impl Store {
    /// Gateways that enforce a live lease on a resource.
    pub(crate) async fn gateways_for(
        &self,
        resource: ResourceId,
        now_ms: i64,
    ) -> Result<Vec<GatewayId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar(
            "SELECT DISTINCT gateway_id FROM lease WHERE resource_id = $1 AND expires_ms > $2",
        )
        .bind(resource.as_uuid())
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await?;
        Ok(ids.into_iter().map(GatewayId::from_uuid).collect())
    }

    /// Live authorizations in the order of their creation.
    pub(crate) async fn authorizations(
        &self,
        page: Page,
        now_ms: i64,
    ) -> Result<Vec<AuthorizationRow>, StoreError> {
        Ok(sql::query_as(select_authorization!(
            "a.account_id = $1 AND a.id > $2 AND a.expires_ms > $3 ORDER BY a.id LIMIT $4"
        ))
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(now_ms)
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// When the next lease ends, and the last.
    pub(crate) async fn lease_ends(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let text = "SELECT min(expires_ms), max(expires_ms) FROM lease";
        let (next, last): (Option<i64>, Option<i64>) = sql::query_as(text).fetch_one(&self.reader).await?;
        Ok(next.zip(last))
    }
}

/// A lease that is over is forgotten well within this time, if nobody sets the clock.
const LATE_MS: i64 = 2 * 60 * 1000;

/// How long a lease is at most.
const LONGEST_LEASE_MS: i64 = 8 * 60 * 60 * 1000;

/// The latest moment at which a lease ends that could be granted now.
pub(crate) const fn latest_end(now_ms: i64) -> i64 {
    now_ms.saturating_add(LONGEST_LEASE_MS + clock::TOLERANCE_MS)
}

/// A lease that was taken out of the database.
#[derive(Debug, FromRow)]
struct Ended {
    id: Uuid,
    client_id: Uuid,
    gateway_id: Uuid,
    resource_id: Uuid,
    expires_ms: i64,
}

/// Which authorizations end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Revoke {
    /// This one.
    One(AuthorizationId),
    /// What a policy granted.
    Policy(PolicyId),
    /// What policies of a group granted to an actor.
    Membership {
        /// The group.
        group: GroupId,
        /// The actor.
        actor: ActorId,
    },
    /// What policies of a group granted.
    Group(GroupId),
    /// What an actor's clients hold.
    Actor(ActorId),
    /// Leases on a resource.
    Resource(ResourceId),
    /// Leases on the resources of a site.
    Site(SiteId),
    /// What a client holds.
    Client(ClientId),
    /// What a gateway enforces.
    Gateway(GatewayId),
    /// What was granted to, or is enforced under, a token.
    Token(TokenId),
    /// What a client holds through a gateway.
    Pair {
        /// The client.
        client: ClientId,
        /// The gateway.
        gateway: GatewayId,
    },
}

impl Revoke {
    const fn statement(self) -> (&'static str, Uuid, Uuid) {
        macro_rules! delete {
            ($condition:literal) => {
                concat!(
                    "DELETE FROM lease WHERE ",
                    $condition,
                    " AND $2 IS NOT NULL RETURNING id, client_id, gateway_id, resource_id, expires_ms"
                )
            };
        }
        let none = Uuid::nil();
        match self {
            Self::One(id) => (delete!("id = $1"), id.as_uuid(), none),
            Self::Policy(id) => (delete!("policy_id = $1"), id.as_uuid(), none),
            Self::Membership { group, actor } => (
                delete!(
                    "policy_id IN (SELECT id FROM policy WHERE group_id = $1)
                     AND client_id IN (SELECT id FROM device WHERE actor_id = $2)"
                ),
                group.as_uuid(),
                actor.as_uuid(),
            ),
            Self::Group(id) => {
                (delete!("policy_id IN (SELECT id FROM policy WHERE group_id = $1)"), id.as_uuid(), none)
            }
            Self::Actor(id) => {
                (delete!("client_id IN (SELECT id FROM device WHERE actor_id = $1)"), id.as_uuid(), none)
            }
            Self::Resource(id) => (delete!("resource_id = $1"), id.as_uuid(), none),
            Self::Site(id) => (
                delete!(
                    "(resource_id IN (SELECT id FROM resource WHERE site_id = $1) OR gateway_id IN (SELECT id FROM device WHERE site_id = $1))"
                ),
                id.as_uuid(),
                none,
            ),
            Self::Client(id) => (delete!("client_id = $1"), id.as_uuid(), none),
            Self::Gateway(id) => (delete!("gateway_id = $1"), id.as_uuid(), none),
            Self::Token(id) => (
                delete!("(token_id = $1 OR gateway_id IN (SELECT id FROM device WHERE token_id = $1))"),
                id.as_uuid(),
                none,
            ),
            Self::Pair { client, gateway } => {
                (delete!("client_id = $1 AND (gateway_id = $2) IS TRUE"), client.as_uuid(), gateway.as_uuid())
            }
        }
    }
}

/// A lease to be stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewAuthorization {
    /// Who.
    pub(crate) client: ClientId,
    /// Through whom.
    pub(crate) gateway: GatewayId,
    /// To what.
    pub(crate) resource: ResourceId,
    /// By which policy.
    pub(crate) policy: PolicyId,
    /// Under which token.
    pub(crate) token: TokenId,
    /// The request that it answers.
    pub(crate) request_id: u64,
    /// Until when.
    pub(crate) expires_ms: i64,
}

impl Change {
    /// Ends authorizations and announces the end of those that were still live.
    pub(crate) async fn revoke(&mut self, what: Revoke) -> Result<usize, StoreError> {
        let (statement, first, second) = what.statement();
        let rows: Vec<Ended> =
            sql::query_as(statement).bind(first).bind(second).fetch_all(self.sql()).await?;
        let at = self.at_ms();
        // Also of those that are over by this clock: it may have jumped, and their holders have clocks of their own.
        self.announce(&rows)?;
        Ok(rows.into_iter().filter(|row| row.expires_ms > at).count())
    }

    /// Ends what clients hold through gateways, each pair's. They are found by the client, which holds few leases.
    pub(super) async fn revoke_pairs(&mut self, pairs: &[(ClientId, GatewayId)]) -> Result<(), StoreError> {
        const DELETE: sql::Statement = sql::listed!(
            pair ("$1" client: uuid, "$2" gateway: uuid),
            "DELETE FROM lease WHERE id IN (
                 SELECT lease.id FROM pair CROSS JOIN lease
                 WHERE lease.client_id = pair.client AND (lease.gateway_id = pair.gateway) IS TRUE)
             RETURNING id, client_id, gateway_id, resource_id, expires_ms"
        );
        let rows: Vec<Ended> = sql::query_as(DELETE)
            .bind(pairs.iter().map(|(client, _)| client.as_uuid()).collect::<Vec<_>>())
            .bind(pairs.iter().map(|(_, gateway)| gateway.as_uuid()).collect::<Vec<_>>())
            .fetch_all(self.sql())
            .await?;
        self.announce(&rows)
    }

    fn announce(&mut self, ended: &[Ended]) -> Result<(), StoreError> {
        for lease in ended {
            self.tell(&Event::AuthorizationRevoked {
                id: AuthorizationId::from_uuid(lease.id),
                client: ClientId::from_uuid(lease.client_id),
                gateway: GatewayId::from_uuid(lease.gateway_id),
                resource: ResourceId::from_uuid(lease.resource_id),
            })?;
        }
        Ok(())
    }

    /// Ends one authorization on an administrator's word.
    pub(crate) async fn revoke_authorization(&mut self, id: AuthorizationId) -> Result<(), StoreError> {
        let lease: Option<(Uuid, Uuid, Uuid, Uuid, i64)> = sql::query_as(
            "SELECT client_id, gateway_id, resource_id, policy_id, expires_ms FROM lease WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let (client, gateway, resource, policy, expires_ms) =
            lease.ok_or(StoreError::NotFound("authorization"))?;
        if self.revoke(Revoke::One(id)).await? == 0 {
            return Err(StoreError::NotFound("authorization"));
        }
        let before = serde_json::json!({
            "client": client, "gateway": gateway, "resource": resource, "policy": policy,
            "expires_ms": expires_ms,
        });
        let subject = ("authorization", id.as_uuid());
        self.audit_change("authorization.revoke", subject, before, serde_json::Value::Null).await
    }

    /// Forgets leases whose time is over, or that end later than any lease could that is granted now.
    ///
    /// Their holders have timers of their own, and are told only where a clock that was set makes these wrong: when
    /// the end came all at once, or lies too far ahead.
    pub(crate) async fn delete_expired(&mut self) -> Result<usize, StoreError> {
        let at = self.at_ms();
        let mut ended: Vec<Ended> = sql::query_as(
            "DELETE FROM lease WHERE expires_ms <= $1 OR expires_ms > $2
             RETURNING id, client_id, gateway_id, resource_id, expires_ms",
        )
        .bind(at)
        .bind(latest_end(at))
        .fetch_all(self.sql())
        .await?;
        let count = ended.len();
        ended.retain(|lease| lease.expires_ms <= at - LATE_MS || lease.expires_ms > at);
        self.announce(&ended)?;
        Ok(count)
    }

    /// How many clients each gateway serves; gateways without any are left out.
    pub(crate) async fn gateway_loads(&mut self, site: SiteId) -> Result<Vec<(GatewayId, i64)>, StoreError> {
        let at = self.at_ms();
        let rows: Vec<(Uuid, i64)> = sql::query_as(
            "SELECT gateway_id, count(DISTINCT client_id) FROM lease
             JOIN device ON device.id = gateway_id
             WHERE device.site_id = $1 AND expires_ms > $2 GROUP BY gateway_id",
        )
        .bind(site.as_uuid())
        .bind(at)
        .fetch_all(self.sql())
        .await?;
        Ok(rows.into_iter().map(|(id, count)| (GatewayId::from_uuid(id), count)).collect())
    }

    /// Stores leases and has both ends of each introduced; their ids, in the same order.
    pub(crate) async fn authorize(
        &mut self,
        leases: &[NewAuthorization],
    ) -> Result<Vec<AuthorizationId>, StoreError> {
        const INSERT: sql::Statement = sql::listed!(
            new ("$1" id: uuid, "$2" client: uuid, "$3" gateway: uuid, "$4" resource: uuid, "$5" policy: uuid,
                 "$6" token: uuid, "$7" request: integer, "$8" expires: integer),
            "INSERT INTO lease (id, account_id, client_id, gateway_id, resource_id, policy_id, token_id,
                                request_id, created_ms, expires_ms)
             SELECT id, $9, client, gateway, resource, policy, token, request, $10, expires FROM new"
        );
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let uuids = |of: fn(&NewAuthorization) -> Uuid| leases.iter().map(of).collect::<Vec<_>>();
        let integers = |of: fn(&NewAuthorization) -> i64| leases.iter().map(of).collect::<Vec<_>>();
        let ids: Vec<Uuid> = leases.iter().map(|_| Uuid::now_v7()).collect();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(INSERT)
            .bind(ids.clone())
            .bind(uuids(|new| new.client.as_uuid()))
            .bind(uuids(|new| new.gateway.as_uuid()))
            .bind(uuids(|new| new.resource.as_uuid()))
            .bind(uuids(|new| new.policy.as_uuid()))
            .bind(uuids(|new| new.token.as_uuid()))
            .bind(integers(|new| new.request_id.cast_signed()))
            .bind(integers(|new| new.expires_ms))
            .bind(account.as_uuid())
            .bind(at)
            .execute(self.sql())
            .await?;
        let ids: Vec<_> = ids.into_iter().map(AuthorizationId::from_uuid).collect();
        for (id, new) in ids.iter().zip(leases) {
            self.tell(&Event::AuthorizationCreated { id: *id, request_id: new.request_id })?;
        }
        Ok(ids)
    }
}
