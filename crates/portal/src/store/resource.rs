//! Resources: what can be reached, and who may see it.

use std::collections::BTreeMap;

use adit_policy::{
    ActorId, Circumstances, ClientId, ConditionKind, Conditions, Filter, Resource, ResourceAddress,
    ResourceId, Site, SiteId,
};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Revoke, Store, StoreError, condition, sql};
use crate::clock;

/// How far ahead changes that time brings are looked for, in seconds.
const LONGEST_LOOK: u64 = 60 * 60;

/// A resource as it is stored, with the name of its site.
#[derive(Debug, Clone, FromRow)]
pub(super) struct ResourceRow {
    resource_id: Uuid,
    resource_name: String,
    address: String,
    filters: String,
    site_id: Uuid,
    site_name: String,
}

impl ResourceRow {
    pub(super) fn into_resource(self) -> Result<Resource, StoreError> {
        let damaged = |error: serde_json::Error| {
            StoreError::Invalid(format!("resource {} is damaged: {error}", self.resource_id))
        };
        Ok(Resource {
            id: ResourceId::from_uuid(self.resource_id),
            address: serde_json::from_str(&self.address).map_err(damaged)?,
            filters: serde_json::from_str(&self.filters).map_err(damaged)?,
            name: self.resource_name,
            site: Site { id: SiteId::from_uuid(self.site_id), name: self.site_name },
        })
    }
}

/// What an administrator wants a resource to be.
#[derive(Debug, Clone)]
pub(crate) struct ResourceSpec {
    /// Shown to people; unique.
    pub(crate) name: String,
    /// Where it is; checked already.
    pub(crate) address: ResourceAddress,
    /// The site whose gateways reach it.
    pub(crate) site: SiteId,
    /// The traffic that is let through.
    pub(crate) filters: Vec<Filter>,
}

impl ResourceSpec {
    fn columns(&self) -> Result<(String, String), StoreError> {
        let text = |result: Result<String, serde_json::Error>| {
            result.map_err(|error| StoreError::Invalid(error.to_string()))
        };
        Ok((text(serde_json::to_string(&self.address))?, text(serde_json::to_string(&self.filters))?))
    }

    fn detail(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "address": self.address, "site": self.site, "filters": self.filters,
        })
    }
}

impl Store {
    /// Resources in the order of their creation.
    pub(crate) async fn resources(&self, page: Page) -> Result<Vec<Resource>, StoreError> {
        let rows: Vec<ResourceRow> = sql::query_as(
            "SELECT resource.id AS resource_id, resource.name AS resource_name, address, filters,
                    site.id AS site_id, site.name AS site_name
             FROM resource JOIN site ON site.id = resource.site_id
             WHERE resource.account_id = $1 AND resource.id > $2 ORDER BY resource.id LIMIT $3",
        )
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(ResourceRow::into_resource).collect()
    }

    /// One resource.
    pub(crate) async fn resource(&self, id: ResourceId) -> Result<Resource, StoreError> {
        let row: Option<ResourceRow> = sql::query_as(
            "SELECT resource.id AS resource_id, resource.name AS resource_name, address, filters,
                    site.id AS site_id, site.name AS site_name
             FROM resource JOIN site ON site.id = resource.site_id
             WHERE resource.account_id = $1 AND resource.id = $2",
        )
        .bind(self.account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&self.reader)
        .await?;
        row.ok_or(StoreError::NotFound("resource"))?.into_resource()
    }

    /// The resources that an actor may ask for on a client.
    pub(crate) async fn visible_resources(
        &self,
        actor: ActorId,
        client: ClientId,
        now_ms: i64,
    ) -> Result<Visible, StoreError> {
        let mut reader = self.reader.begin().await?;
        visible(&mut reader, actor, client, now_ms).await
    }
}

/// What an actor may ask for on a client at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visible {
    /// In the order of their creation.
    pub(crate) resources: Vec<Resource>,
    /// Whether something is hidden only because the sign-in is too old for it.
    pub(crate) is_too_old: bool,
    /// When time alone may have changed it.
    pub(crate) look_again_ms: Option<i64>,
}

/// A resource by a policy with conditions.
#[derive(FromRow)]
struct ConditionalRow {
    policy_id: Uuid,
    conditions: String,
    #[sqlx(flatten)]
    resource: ResourceRow,
}

macro_rules! select_visible {
    ($columns:literal, $condition:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " resource.id AS resource_id, resource.name AS resource_name, address, filters,
              site.id AS site_id, site.name AS site_name
             FROM membership
             JOIN actor ON actor.id = membership.actor_id AND actor.enabled
             JOIN policy ON policy.group_id = membership.group_id AND policy.enabled
             JOIN resource ON resource.id = policy.resource_id
             JOIN site ON site.id = resource.site_id
             WHERE membership.actor_id = $1 AND policy.conditions ",
            $condition
        )
    };
}

/// A resource is visible when an enabled policy whose conditions are met names one of the actor's groups. What cannot
/// be had is not shown: traffic to it goes where it would go without Adit.
pub(super) async fn visible(
    tx: &mut sql::Transaction,
    actor: ActorId,
    client: ClientId,
    now_ms: i64,
) -> Result<Visible, StoreError> {
    let rows: Vec<ResourceRow> = sql::query_as(select_visible!("DISTINCT", "= '{}'"))
        .bind(actor.as_uuid())
        .fetch_all(&mut *tx)
        .await?;
    let conditional: Vec<ConditionalRow> =
        sql::query_as(select_visible!("policy.id AS policy_id, policy.conditions,", "<> '{}'"))
            .bind(actor.as_uuid())
            .fetch_all(&mut *tx)
            .await?;
    let mut visible: BTreeMap<Uuid, ResourceRow> =
        rows.into_iter().map(|row| (row.resource_id, row)).collect();
    let mut look_again = None;
    let mut hidden_by_age = Vec::new();
    if !conditional.is_empty() {
        let known = condition::known(tx, &[client]).await?.remove(&client).unwrap_or_default();
        let now = clock::seconds(now_ms);
        let circumstances = known.circumstances(now);
        for row in conditional {
            let Some(conditions) = condition::read(row.policy_id, &row.conditions) else { continue };
            look_again = look_again.into_iter().chain(next_look(now, &conditions, &circumstances)).min();
            let unmet = conditions.unmet(now, &circumstances);
            if unmet.is_empty() {
                visible.entry(row.resource.resource_id).or_insert(row.resource);
            } else if matches!(&*unmet, [only] if only.condition == ConditionKind::AuthenticationAge) {
                hidden_by_age.push(row.resource.resource_id);
            }
        }
    }
    let is_too_old = hidden_by_age.iter().any(|id| !visible.contains_key(id));
    let resources = visible.into_values().map(ResourceRow::into_resource).collect::<Result<_, _>>()?;
    let look_again_ms = look_again.map(|at| i64::try_from(at.saturating_mul(1000)).unwrap_or(i64::MAX));
    Ok(Visible { resources, is_too_old, look_again_ms })
}

/// When to judge conditions again, in Unix seconds; never when time has nothing to do with them.
fn next_look(now: u64, conditions: &Conditions, circumstances: &Circumstances<'_>) -> Option<u64> {
    let depends_on_time = conditions.time.is_some() || conditions.authentication_age.is_some();
    let turn = || conditions.turns(now, LONGEST_LOOK, circumstances).unwrap_or(now + LONGEST_LOOK);
    depends_on_time.then(turn)
}

impl Change {
    /// An error when there is no such resource.
    pub(super) async fn expect_resource(&mut self, id: ResourceId) -> Result<(), StoreError> {
        let account = self.account();
        let known: bool =
            sql::query_scalar("SELECT EXISTS (SELECT 1 FROM resource WHERE account_id = $1 AND id = $2)")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_one(self.sql())
                .await?;
        if known { Ok(()) } else { Err(StoreError::NotFound("resource")) }
    }

    /// Creates a resource; nobody sees it before a policy names it.
    pub(crate) async fn create_resource(&mut self, spec: &ResourceSpec) -> Result<ResourceId, StoreError> {
        self.expect_site(spec.site).await?;
        let id = Uuid::now_v7();
        let (address, filters) = spec.columns()?;
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO resource (id, account_id, site_id, name, address, filters, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(spec.site.as_uuid())
        .bind(&spec.name)
        .bind(address)
        .bind(filters)
        .bind(at)
        .execute(self.sql())
        .await?;
        self.audit_change("resource.create", ("resource", id), serde_json::Value::Null, spec.detail())
            .await?;
        Ok(ResourceId::from_uuid(id))
    }

    /// Changes a resource from `before` to `spec`.
    ///
    /// Another address or site ends its authorizations; a new name or other filters reach the
    /// peers in place.
    pub(crate) async fn update_resource(
        &mut self,
        before: &Resource,
        spec: &ResourceSpec,
    ) -> Result<(), StoreError> {
        self.expect_site(spec.site).await?;
        let viewers = self.viewers_of_resource(before.id).await?;
        let (address, filters) = spec.columns()?;
        let account = self.account();
        let updated = sql::query(
            "UPDATE resource SET name = $1, address = $2, filters = $3, site_id = $4
             WHERE account_id = $5 AND id = $6",
        )
        .bind(&spec.name)
        .bind(address)
        .bind(filters)
        .bind(spec.site.as_uuid())
        .bind(account.as_uuid())
        .bind(before.id.as_uuid())
        .execute(self.sql())
        .await?;
        if updated == 0 {
            return Err(StoreError::NotFound("resource"));
        }
        if before.address != spec.address || before.site.id != spec.site {
            self.revoke(Revoke::Resource(before.id)).await?;
        } else {
            self.tell(&Event::ResourceChanged { id: before.id })?;
        }
        self.tell_visibility(viewers)?;
        let was = ResourceSpec {
            name: before.name.clone(),
            address: before.address.clone(),
            site: before.site.id,
            filters: before.filters.clone(),
        };
        let subject = ("resource", before.id.as_uuid());
        self.audit_change("resource.update", subject, was.detail(), spec.detail()).await
    }

    /// Deletes a resource with its policies.
    pub(crate) async fn delete_resource(&mut self, id: ResourceId) -> Result<(), StoreError> {
        let viewers = self.viewers_of_resource(id).await?;
        self.revoke(Revoke::Resource(id)).await?;
        let account = self.account();
        let name: Option<String> =
            sql::query_scalar("DELETE FROM resource WHERE account_id = $1 AND id = $2 RETURNING name")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let name = name.ok_or(StoreError::NotFound("resource"))?;
        self.tell_visibility(viewers)?;
        let before = serde_json::json!({ "name": name });
        let subject = ("resource", id.as_uuid());
        self.audit_change("resource.delete", subject, before, serde_json::Value::Null).await
    }

    /// Actors that see a resource through an enabled policy.
    async fn viewers_of_resource(&mut self, id: ResourceId) -> Result<Vec<ActorId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar(
            "SELECT DISTINCT actor_id FROM membership
             JOIN policy ON policy.group_id = membership.group_id AND policy.enabled
             WHERE policy.resource_id = $1",
        )
        .bind(id.as_uuid())
        .fetch_all(self.sql())
        .await?;
        Ok(ids.into_iter().map(ActorId::from_uuid).collect())
    }

    /// Actors that see a resource of a site through an enabled policy.
    pub(super) async fn viewers_of_site(&mut self, id: SiteId) -> Result<Vec<ActorId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar(
            "SELECT DISTINCT actor_id FROM membership
             JOIN policy ON policy.group_id = membership.group_id AND policy.enabled
             JOIN resource ON resource.id = policy.resource_id
             WHERE resource.site_id = $1",
        )
        .bind(id.as_uuid())
        .fetch_all(self.sql())
        .await?;
        Ok(ids.into_iter().map(ActorId::from_uuid).collect())
    }
}
