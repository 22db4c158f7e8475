//! Lists of the admin pages: parts of a list that hold a text, and how long the whole list is.
//!
//! A text is found in any letter case (ASCII only on SQLite) and means itself: `%` and `_` are
//! no wildcards. Lists are cut by id, so that a page costs the same wherever it is.

use adit_policy::Resource;
use sqlx::FromRow;
use uuid::Uuid;

use super::authorization::select_authorization;
use super::policy::Policy;
use super::resource::ResourceRow;
use super::{Actor, AuditRow, AuthorizationRow, DeviceRow, Group, Store, StoreError, Token, sql};

/// Longest text that is searched for, in characters.
const LONGEST_TEXT: usize = 100;

/// Which part of which list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Find {
    /// Only what holds this text; everything when empty.
    pub(crate) text: String,
    /// The last id of the page before.
    pub(crate) after: Option<Uuid>,
    /// How many rows.
    pub(crate) limit: u32,
    /// Only what belongs to this: a resource's site, a policy's resource or group, a device's or token's actor.
    pub(crate) of: Option<Uuid>,
}

/// Who reaches what since when, for the overview.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct LatestAccess {
    /// Whose device it is.
    pub(crate) actor_name: String,
    /// Which device.
    pub(crate) client_name: String,
    /// To what.
    pub(crate) resource_id: Uuid,
    /// To what.
    pub(crate) resource_name: String,
    /// Since when.
    pub(crate) created_ms: i64,
}

impl Find {
    /// The first rows of everything.
    pub(crate) fn first(limit: u32) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The first rows of what belongs to one thing.
    pub(crate) fn of(id: Uuid, limit: u32) -> Self {
        Self { of: Some(id), limit, ..Self::default() }
    }

    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::from("%");
        for character in self.text.trim().chars().take(LONGEST_TEXT) {
            if matches!(character, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.extend(character.to_lowercase());
        }
        pattern.push('%');
        pattern
    }

    fn after(&self) -> Uuid {
        self.after.unwrap_or(Uuid::nil())
    }
}

/// A group and how much hangs on it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct GroupSummary {
    /// The group.
    #[sqlx(flatten)]
    pub(crate) group: Group,
    /// How many actors are in it.
    pub(crate) members: i64,
    /// How many policies name it.
    pub(crate) policies: i64,
}

/// A site and how much hangs on it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct SiteSummary {
    /// Names it.
    pub(crate) id: Uuid,
    /// Shown to people.
    pub(crate) name: String,
    /// How many resources it serves.
    pub(crate) resources: i64,
    /// How many gateways have signed in.
    pub(crate) gateways: i64,
}

/// How many of everything there are.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Totals {
    /// Sites.
    pub(crate) sites: i64,
    /// Resources.
    pub(crate) resources: i64,
    /// Enabled policies.
    pub(crate) policies: i64,
    /// Actors that are people.
    pub(crate) people: i64,
    /// Actors that are machines.
    pub(crate) service_accounts: i64,
    /// Clients.
    pub(crate) clients: i64,
    /// Gateways.
    pub(crate) gateways: i64,
    /// Relays.
    pub(crate) relays: i64,
    /// Live authorizations.
    pub(crate) authorizations: i64,
    /// Clients that no administrator vouches for.
    pub(crate) unverified: i64,
}

macro_rules! select_resource {
    ($condition:literal) => {
        concat!(
            "SELECT resource.id AS resource_id, resource.name AS resource_name, address, filters,
                    site.id AS site_id, site.name AS site_name
             FROM resource JOIN site ON site.id = resource.site_id
             WHERE resource.account_id = $1 AND ",
            $condition
        )
    };
}

impl Store {
    /// Resources whose name or address holds the text; `of` names a site.
    pub(crate) async fn find_resources(&self, find: &Find) -> Result<Vec<Resource>, StoreError> {
        let rows: Vec<ResourceRow> = sql::query_as(select_resource!(
            "resource.id > $2 AND site_id = coalesce($3, site_id)
             AND (lower(resource.name) LIKE $4 ESCAPE '\\' OR lower(address) LIKE $4 ESCAPE '\\')
             ORDER BY resource.id LIMIT $5"
        ))
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.of)
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(ResourceRow::into_resource).collect()
    }

    /// The resource of exactly this name.
    pub(crate) async fn resource_named(&self, name: &str) -> Result<Resource, StoreError> {
        let row: Option<ResourceRow> = sql::query_as(select_resource!("resource.name = $2"))
            .bind(self.account.as_uuid())
            .bind(name)
            .fetch_optional(&self.reader)
            .await?;
        row.ok_or(StoreError::NotFound("resource"))?.into_resource()
    }

    /// The actor of exactly this name.
    pub(crate) async fn actor_named(&self, name: &str) -> Result<Actor, StoreError> {
        sql::query_as("SELECT * FROM actor WHERE account_id = $1 AND name = $2")
            .bind(self.account.as_uuid())
            .bind(name)
            .fetch_optional(&self.reader)
            .await?
            .ok_or(StoreError::NotFound("person or service account"))
    }

    /// Actors whose name holds the text; `of` names a group.
    pub(crate) async fn find_actors(&self, find: &Find) -> Result<Vec<Actor>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM actor WHERE account_id = $1 AND id > $2 AND lower(name) LIKE $3 ESCAPE '\\'
             AND ($4 = $5 OR id IN (SELECT actor_id FROM membership WHERE group_id = $4))
             ORDER BY id LIMIT $6",
        )
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.pattern())
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Groups whose name holds the text; `of` names an actor who is in them.
    pub(crate) async fn find_groups(&self, find: &Find) -> Result<Vec<GroupSummary>, StoreError> {
        Ok(sql::query_as(
            "SELECT actor_group.*,
                    (SELECT count(*) FROM membership WHERE group_id = actor_group.id) AS members,
                    (SELECT count(*) FROM policy WHERE group_id = actor_group.id) AS policies
             FROM actor_group
             WHERE account_id = $1 AND id > $2 AND lower(name) LIKE $3 ESCAPE '\\'
             AND ($4 = $5 OR id IN (SELECT group_id FROM membership WHERE actor_id = $4))
             ORDER BY id LIMIT $6",
        )
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.pattern())
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Policies whose group or resource holds the text; `of` names a group, a resource or the policy itself.
    pub(crate) async fn find_policies(&self, find: &Find) -> Result<Vec<Policy>, StoreError> {
        Ok(sql::query_as(
            "SELECT policy.id, group_id, actor_group.name AS group_name, resource_id,
                    resource.name AS resource_name, enabled, conditions, policy.created_ms
             FROM policy
             JOIN actor_group ON actor_group.id = policy.group_id
             JOIN resource ON resource.id = policy.resource_id
             WHERE policy.account_id = $1 AND policy.id > $2
               AND ($3 = $4 OR group_id = $3 OR resource_id = $3 OR policy.id = $3)
               AND (lower(actor_group.name) LIKE $5 ESCAPE '\\' OR lower(resource.name) LIKE $5 ESCAPE '\\')
             ORDER BY policy.id LIMIT $6",
        )
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Devices of a kind whose name or address holds the text; `of` names an actor, a site or the device itself.
    pub(crate) async fn find_devices(&self, kind: &str, find: &Find) -> Result<Vec<DeviceRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM device WHERE account_id = $1 AND kind = $2 AND id > $3
             AND ($4 = $5 OR actor_id = $4 OR site_id = $4 OR id = $4)
             AND (lower(name) LIKE $6 ESCAPE '\\' OR remote_address LIKE $6 ESCAPE '\\')
             ORDER BY id LIMIT $7",
        )
        .bind(self.account.as_uuid())
        .bind(kind)
        .bind(find.after())
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Tokens whose name or kind holds the text, revoked ones last; `of` names an actor or a site.
    pub(crate) async fn find_tokens(&self, find: &Find) -> Result<Vec<Token>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM token WHERE account_id = $1 AND id > $2
             AND ($3 = $4 OR actor_id = $3 OR site_id = $3)
             AND (lower(name) LIKE $5 ESCAPE '\\' OR kind LIKE $5 ESCAPE '\\')
             ORDER BY id LIMIT $6",
        )
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Live authorizations in which any name holds the text; `of` names any end of them.
    pub(crate) async fn find_authorizations(
        &self,
        find: &Find,
        now_ms: i64,
    ) -> Result<Vec<AuthorizationRow>, StoreError> {
        Ok(sql::query_as(select_authorization!(
            "a.account_id = $1 AND a.id > $2 AND a.expires_ms > $3
               AND ($4 = $5 OR a.id = $4 OR c.actor_id = $4 OR a.gateway_id = $4 OR r.id = $4)
               AND (lower(actor.name) LIKE $6 ESCAPE '\\' OR lower(c.name) LIKE $6 ESCAPE '\\'
                    OR lower(r.name) LIKE $6 ESCAPE '\\' OR lower(g.name) LIKE $6 ESCAPE '\\')
             ORDER BY a.id LIMIT $7"
        ))
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(now_ms)
        .bind(find.of.unwrap_or(Uuid::nil()))
        .bind(Uuid::nil())
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// The newest live authorizations, newest first; nothing of what flowed, which would have to be added up.
    pub(crate) async fn latest_access(
        &self,
        limit: u32,
        now_ms: i64,
    ) -> Result<Vec<LatestAccess>, StoreError> {
        Ok(sql::query_as(
            "SELECT actor.name AS actor_name, device.name AS client_name, resource.id AS resource_id,
                    resource.name AS resource_name, lease.created_ms
             FROM lease
             JOIN device ON device.id = lease.client_id
             JOIN actor ON actor.id = device.actor_id
             JOIN resource ON resource.id = lease.resource_id
             WHERE lease.account_id = $1 AND lease.expires_ms > $2 ORDER BY lease.id DESC LIMIT $3",
        )
        .bind(self.account.as_uuid())
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Entries of the audit log that hold the text, newest first.
    pub(crate) async fn find_audit(&self, find: &Find) -> Result<Vec<AuditRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM audit WHERE account_id = $1
             AND ($2 IS NULL OR seq < (SELECT seq FROM audit WHERE account_id = $1 AND id = $2))
             AND (lower(who) LIKE $3 ESCAPE '\\' OR lower(action) LIKE $3 ESCAPE '\\'
                  OR address LIKE $3 ESCAPE '\\' OR lower(detail) LIKE $3 ESCAPE '\\'
                  OR lower(before) LIKE $3 ESCAPE '\\' OR lower(after) LIKE $3 ESCAPE '\\')
             ORDER BY seq DESC LIMIT $4",
        )
        .bind(self.account.as_uuid())
        .bind(find.after)
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// Sites whose name holds the text.
    pub(crate) async fn find_sites(&self, find: &Find) -> Result<Vec<SiteSummary>, StoreError> {
        Ok(sql::query_as(
            "SELECT id, name, (SELECT count(*) FROM resource WHERE site_id = site.id) AS resources,
                    (SELECT count(*) FROM device WHERE site_id = site.id) AS gateways
             FROM site WHERE account_id = $1 AND id > $2 AND lower(name) LIKE $3 ESCAPE '\\'
             ORDER BY id LIMIT $4",
        )
        .bind(self.account.as_uuid())
        .bind(find.after())
        .bind(find.pattern())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }

    /// How many of everything there are.
    pub(crate) async fn totals(&self, now_ms: i64) -> Result<Totals, StoreError> {
        Ok(sql::query_as(
            "SELECT (SELECT count(*) FROM site WHERE account_id = $1) AS sites,
                    (SELECT count(*) FROM resource WHERE account_id = $1) AS resources,
                    (SELECT count(*) FROM policy WHERE account_id = $1 AND enabled) AS policies,
                    (SELECT count(*) FROM actor WHERE account_id = $1 AND kind = 'user') AS people,
                    (SELECT count(*) FROM actor WHERE account_id = $1 AND kind <> 'user') AS service_accounts,
                    (SELECT count(*) FROM device WHERE account_id = $1 AND kind = 'client') AS clients,
                    (SELECT count(*) FROM device WHERE account_id = $1 AND kind = 'gateway') AS gateways,
                    (SELECT count(*) FROM relay WHERE account_id = $1) AS relays,
                    (SELECT count(*) FROM lease WHERE account_id = $1 AND expires_ms > $2) AS authorizations,
                    (SELECT count(*) FROM device
                     WHERE account_id = $1 AND kind = 'client' AND verified_ms IS NULL) AS unverified",
        )
        .bind(self.account.as_uuid())
        .bind(now_ms)
        .fetch_one(&self.reader)
        .await?)
    }
}
