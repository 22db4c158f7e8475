//! Authorizations: leases of one client on one resource through one gateway.

use adit_policy::{
    ActorId, AuthorizationId, ClientId, Decision, GatewayId, GroupId, PolicyId, Resource, ResourceId, SiteId,
    TokenId,
};
use adit_protocol::client::ValidAuthorization;
use serde::Serialize;
use sqlx::{FromRow, SqliteConnection};
use uuid::Uuid;

use super::resource::ResourceRow;
use super::{Change, Connection, Event, Page, Store, StoreError, policy, resource};
use crate::clock;

/// An authorization as the API shows it.
#[derive(Debug, Clone, Serialize, FromRow)]
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
}

/// One end of a lease.
#[derive(Debug, Clone)]
pub(crate) struct LeaseEnd {
    /// A client id or a gateway id.
    pub(crate) id: Uuid,
    /// Shown to people.
    pub(crate) name: String,
    /// Its WireGuard key.
    pub(crate) public_key: [u8; 32],
    /// Which tunnel addresses it has.
    pub(crate) address_index: u32,
}

/// Everything that introduces the two ends of an authorization.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The authorization.
    pub(crate) id: AuthorizationId,
    /// Until when.
    pub(crate) expires_ms: i64,
    /// Who.
    pub(crate) client: LeaseEnd,
    /// Through whom.
    pub(crate) gateway: LeaseEnd,
    /// What.
    pub(crate) resource: Resource,
    /// The epoch that carries it.
    pub(crate) connection: Connection,
}

#[derive(FromRow)]
struct LeaseRow {
    id: Uuid,
    expires_ms: i64,
    client_id: Uuid,
    client_name: String,
    client_key: Vec<u8>,
    client_index: i64,
    gateway_id: Uuid,
    gateway_name: String,
    gateway_key: Vec<u8>,
    gateway_index: i64,
    #[sqlx(flatten)]
    resource: ResourceRow,
    #[sqlx(flatten)]
    connection: Connection,
}

impl LeaseRow {
    fn into_lease(self) -> Result<Lease, StoreError> {
        let end = |id, name, key: Vec<u8>, index| {
            let damaged = || StoreError::Invalid(format!("device {id} is damaged"));
            Ok::<_, StoreError>(LeaseEnd {
                id,
                name,
                public_key: key.try_into().map_err(|_| damaged())?,
                address_index: u32::try_from(index).map_err(|_| damaged())?,
            })
        };
        Ok(Lease {
            id: AuthorizationId::from_uuid(self.id),
            expires_ms: self.expires_ms,
            client: end(self.client_id, self.client_name, self.client_key, self.client_index)?,
            gateway: end(self.gateway_id, self.gateway_name, self.gateway_key, self.gateway_index)?,
            resource: self.resource.into_resource()?,
            connection: self.connection,
        })
    }
}

/// The columns of [`LeaseRow`]; live leases on open connections only.
macro_rules! select_lease {
    ($condition:literal) => {
        concat!(
            "SELECT a.id, a.expires_ms,
                    c.id AS client_id, c.name AS client_name, c.public_key AS client_key,
                    c.address_index AS client_index,
                    g.id AS gateway_id, g.name AS gateway_name, g.public_key AS gateway_key,
                    g.address_index AS gateway_index,
                    r.id AS resource_id, r.name AS resource_name, r.address, r.filters,
                    s.id AS site_id, s.name AS site_name,
                    k.epoch, k.client_ufrag, k.client_password, k.gateway_ufrag, k.gateway_password
             FROM authorization a
             JOIN device c ON c.id = a.client_id
             JOIN device g ON g.id = a.gateway_id
             JOIN resource r ON r.id = a.resource_id
             JOIN site s ON s.id = r.site_id
             JOIN connection k ON k.client_id = a.client_id AND k.gateway_id = a.gateway_id AND k.is_open
             WHERE a.expires_ms > ? AND ",
            $condition
        )
    };
}

/// The state of the store at one moment, and the last event that it includes.
#[derive(Debug)]
pub(crate) struct ClientSnapshot {
    /// Events up to here are included.
    pub(crate) seq: i64,
    /// What the actor may ask for.
    pub(crate) resources: Vec<Resource>,
    /// What the client holds already.
    pub(crate) authorizations: Vec<ValidAuthorization>,
}

/// The state of the store at one moment, and the last event that it includes.
#[derive(Debug)]
pub(crate) struct GatewaySnapshot {
    /// Events up to here are included.
    pub(crate) seq: i64,
    /// Every live lease.
    pub(crate) leases: Vec<Lease>,
}

impl Store {
    /// What a client must know when it connects.
    pub(crate) async fn client_snapshot(
        &self,
        client: ClientId,
        actor: ActorId,
        now_ms: i64,
    ) -> Result<ClientSnapshot, StoreError> {
        let mut tx = self.reader.begin().await?;
        let seq = last_event(&mut tx).await?;
        let resources = resource::visible(&mut tx, actor).await?;
        let rows: Vec<(Uuid, Uuid, Uuid, i64)> = sqlx::query_as(
            "SELECT id, resource_id, gateway_id, expires_ms FROM authorization
             WHERE client_id = ? AND expires_ms > ? ORDER BY id",
        )
        .bind(client.as_uuid())
        .bind(now_ms)
        .fetch_all(&mut *tx)
        .await?;
        let authorizations = rows
            .into_iter()
            .map(|(id, resource, gateway, expires_ms)| ValidAuthorization {
                id: AuthorizationId::from_uuid(id),
                resource: ResourceId::from_uuid(resource),
                gateway: GatewayId::from_uuid(gateway),
                expires_at_ms: clock::wire_ms(expires_ms),
            })
            .collect();
        Ok(ClientSnapshot { seq, resources, authorizations })
    }

    /// What a gateway must know when it connects.
    pub(crate) async fn gateway_snapshot(
        &self,
        gateway: GatewayId,
        now_ms: i64,
    ) -> Result<GatewaySnapshot, StoreError> {
        let mut tx = self.reader.begin().await?;
        let seq = last_event(&mut tx).await?;
        let rows: Vec<LeaseRow> = sqlx::query_as(select_lease!("a.gateway_id = ? ORDER BY a.id"))
            .bind(now_ms)
            .bind(gateway.as_uuid())
            .fetch_all(&mut *tx)
            .await?;
        let leases = rows.into_iter().map(LeaseRow::into_lease).collect::<Result<_, _>>()?;
        Ok(GatewaySnapshot { seq, leases })
    }

    /// One live lease.
    pub(crate) async fn lease(&self, id: AuthorizationId, now_ms: i64) -> Result<Option<Lease>, StoreError> {
        let row: Option<LeaseRow> = sqlx::query_as(select_lease!("a.id = ?"))
            .bind(now_ms)
            .bind(id.as_uuid())
            .fetch_optional(&self.reader)
            .await?;
        row.map(LeaseRow::into_lease).transpose()
    }

    /// Gateways that enforce a live lease on a resource.
    pub(crate) async fn gateways_for(
        &self,
        resource: ResourceId,
        now_ms: i64,
    ) -> Result<Vec<GatewayId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT DISTINCT gateway_id FROM authorization WHERE resource_id = ? AND expires_ms > ?",
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
        Ok(sqlx::query_as(
            "SELECT a.id, actor.name AS actor_name, c.id AS client_id, c.name AS client_name,
                    g.id AS gateway_id, g.name AS gateway_name, r.id AS resource_id,
                    r.name AS resource_name, a.policy_id, a.created_ms, a.expires_ms
             FROM authorization a
             JOIN device c ON c.id = a.client_id
             JOIN actor ON actor.id = c.actor_id
             JOIN device g ON g.id = a.gateway_id
             JOIN resource r ON r.id = a.resource_id
             WHERE a.account_id = ? AND a.id > ? AND a.expires_ms > ? ORDER BY a.id LIMIT ?",
        )
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(now_ms)
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// When the next lease ends.
    pub(crate) async fn next_expiry(&self) -> Result<Option<i64>, StoreError> {
        Ok(sqlx::query_scalar("SELECT min(expires_ms) FROM authorization").fetch_one(&self.reader).await?)
    }
}

async fn last_event(sql: &mut SqliteConnection) -> Result<i64, StoreError> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
        .fetch_optional(sql)
        .await?;
    Ok(seq.unwrap_or(0))
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
                    "DELETE FROM authorization WHERE ",
                    $condition,
                    " AND ?2 IS NOT NULL RETURNING id, client_id, gateway_id, resource_id, expires_ms"
                )
            };
        }
        let none = Uuid::nil();
        match self {
            Self::One(id) => (delete!("id = ?1"), id.as_uuid(), none),
            Self::Policy(id) => (delete!("policy_id = ?1"), id.as_uuid(), none),
            Self::Membership { group, actor } => (
                delete!(
                    "policy_id IN (SELECT id FROM policy WHERE group_id = ?1)
                     AND client_id IN (SELECT id FROM device WHERE actor_id = ?2)"
                ),
                group.as_uuid(),
                actor.as_uuid(),
            ),
            Self::Group(id) => {
                (delete!("policy_id IN (SELECT id FROM policy WHERE group_id = ?1)"), id.as_uuid(), none)
            }
            Self::Actor(id) => {
                (delete!("client_id IN (SELECT id FROM device WHERE actor_id = ?1)"), id.as_uuid(), none)
            }
            Self::Resource(id) => (delete!("resource_id = ?1"), id.as_uuid(), none),
            Self::Site(id) => (
                delete!(
                    "(resource_id IN (SELECT id FROM resource WHERE site_id = ?1) OR gateway_id IN (SELECT id FROM device WHERE site_id = ?1))"
                ),
                id.as_uuid(),
                none,
            ),
            Self::Client(id) => (delete!("client_id = ?1"), id.as_uuid(), none),
            Self::Gateway(id) => (delete!("gateway_id = ?1"), id.as_uuid(), none),
            Self::Token(id) => (
                delete!("(token_id = ?1 OR gateway_id IN (SELECT id FROM device WHERE token_id = ?1))"),
                id.as_uuid(),
                none,
            ),
            Self::Pair { client, gateway } => {
                (delete!("client_id = ?1 AND gateway_id = ?2"), client.as_uuid(), gateway.as_uuid())
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

/// A live authorization of a client.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct HeldAuthorization {
    pub(crate) id: Uuid,
    pub(crate) gateway_id: Uuid,
    pub(crate) policy_id: Uuid,
    pub(crate) request_id: i64,
    pub(crate) expires_ms: i64,
}

impl Change {
    /// Ends authorizations and announces the end of those that were still live.
    pub(crate) async fn revoke(&mut self, what: Revoke) -> Result<usize, StoreError> {
        let (statement, first, second) = what.statement();
        let rows: Vec<(Uuid, Uuid, Uuid, Uuid, i64)> =
            sqlx::query_as(statement).bind(first).bind(second).fetch_all(self.sql()).await?;
        let at = self.at_ms();
        let mut ended = 0;
        for (id, client, gateway, resource, _) in rows.into_iter().filter(|row| row.4 > at) {
            self.tell(&Event::AuthorizationRevoked {
                id: AuthorizationId::from_uuid(id),
                client: ClientId::from_uuid(client),
                gateway: GatewayId::from_uuid(gateway),
                resource: ResourceId::from_uuid(resource),
            })
            .await?;
            ended += 1;
        }
        Ok(ended)
    }

    /// Ends one authorization on an administrator's word.
    pub(crate) async fn revoke_authorization(&mut self, id: AuthorizationId) -> Result<(), StoreError> {
        if self.revoke(Revoke::One(id)).await? == 0 {
            return Err(StoreError::NotFound("authorization"));
        }
        let subject = ("authorization", Some(id.as_uuid()));
        self.audit("authorization.revoke", subject, serde_json::json!({})).await
    }

    /// Forgets leases whose time is over; their holders have timers of their own.
    pub(crate) async fn delete_expired(&mut self) -> Result<u64, StoreError> {
        let at = self.at_ms();
        let deleted = sqlx::query("DELETE FROM authorization WHERE expires_ms <= ?")
            .bind(at)
            .execute(self.sql())
            .await?;
        Ok(deleted.rows_affected())
    }

    /// The decision on which the next insert rests, inside the same transaction.
    pub(crate) async fn decide(
        &mut self,
        actor: ActorId,
        resource: ResourceId,
        session_expires_ms: Option<i64>,
    ) -> Result<Decision, StoreError> {
        let at = self.at_ms();
        policy::decide(self.sql(), at, actor, resource, session_expires_ms).await
    }

    /// The site of a resource; `None` when there is no such resource.
    pub(crate) async fn resource_site(&mut self, resource: ResourceId) -> Result<Option<SiteId>, StoreError> {
        let account = self.account();
        let id: Option<Uuid> =
            sqlx::query_scalar("SELECT site_id FROM resource WHERE account_id = ? AND id = ?")
                .bind(account.as_uuid())
                .bind(resource.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        Ok(id.map(SiteId::from_uuid))
    }

    /// What a client holds on a resource now.
    pub(crate) async fn held(
        &mut self,
        client: ClientId,
        resource: ResourceId,
    ) -> Result<Vec<HeldAuthorization>, StoreError> {
        let at = self.at_ms();
        Ok(sqlx::query_as(
            "SELECT id, gateway_id, policy_id, request_id, expires_ms FROM authorization
             WHERE client_id = ? AND resource_id = ? AND expires_ms > ? ORDER BY id",
        )
        .bind(client.as_uuid())
        .bind(resource.as_uuid())
        .bind(at)
        .fetch_all(self.sql())
        .await?)
    }

    /// How many live leases a client holds.
    pub(crate) async fn held_count(&mut self, client: ClientId) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM authorization WHERE client_id = ?")
            .bind(client.as_uuid())
            .fetch_one(self.sql())
            .await?)
    }

    /// How many clients each gateway serves; gateways without any are left out.
    pub(crate) async fn gateway_loads(&mut self, site: SiteId) -> Result<Vec<(GatewayId, i64)>, StoreError> {
        let at = self.at_ms();
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT gateway_id, count(DISTINCT client_id) FROM authorization
             JOIN device ON device.id = gateway_id
             WHERE device.site_id = ? AND expires_ms > ? GROUP BY gateway_id",
        )
        .bind(site.as_uuid())
        .bind(at)
        .fetch_all(self.sql())
        .await?;
        Ok(rows.into_iter().map(|(id, count)| (GatewayId::from_uuid(id), count)).collect())
    }

    /// Stores a lease and has both ends introduced.
    pub(crate) async fn authorize(&mut self, new: &NewAuthorization) -> Result<AuthorizationId, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sqlx::query(
            "INSERT INTO authorization (id, account_id, client_id, gateway_id, resource_id, policy_id,
                                        token_id, request_id, created_ms, expires_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(new.client.as_uuid())
        .bind(new.gateway.as_uuid())
        .bind(new.resource.as_uuid())
        .bind(new.policy.as_uuid())
        .bind(new.token.as_uuid())
        .bind(new.request_id.cast_signed())
        .bind(at)
        .bind(new.expires_ms)
        .execute(self.sql())
        .await?;
        let id = AuthorizationId::from_uuid(id);
        self.tell(&Event::AuthorizationCreated { id, request_id: new.request_id }).await?;
        Ok(id)
    }
}
