//! Everything that a declaration may name, at one moment.

use adit_policy::{Resource, Site, SiteId};
use uuid::Uuid;

use super::resource::ResourceRow;
use super::{Actor, Change, Group, Policy, Store, StoreError, sql};

/// Everything that a declaration may name.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// People and service accounts.
    pub(crate) actors: Vec<Actor>,
    /// Sites.
    pub(crate) sites: Vec<Site>,
    /// Resources.
    pub(crate) resources: Vec<Resource>,
    /// Groups.
    pub(crate) groups: Vec<Group>,
    /// Groups and their members.
    pub(crate) memberships: Vec<(Uuid, Uuid)>,
    /// Policies.
    pub(crate) policies: Vec<Policy>,
}

impl Store {
    /// Everything as it is at this moment.
    pub(crate) async fn inventory(&self) -> Result<Inventory, StoreError> {
        let mut reader = self.reader.begin().await?;
        load(&mut reader, self.account.as_uuid()).await
    }
}

impl Change {
    /// Everything as it is, while no other change can happen.
    pub(crate) async fn inventory(&mut self) -> Result<Inventory, StoreError> {
        let account = self.account().as_uuid();
        load(self.sql(), account).await
    }
}

async fn load(tx: &mut sql::Transaction, account: Uuid) -> Result<Inventory, StoreError> {
    let actors = sql::query_as("SELECT * FROM actor WHERE account_id = $1 ORDER BY id")
        .bind(account)
        .fetch_all(&mut *tx)
        .await?;
    let sites: Vec<(Uuid, String)> =
        sql::query_as("SELECT id, name FROM site WHERE account_id = $1 ORDER BY id")
            .bind(account)
            .fetch_all(&mut *tx)
            .await?;
    let resources: Vec<ResourceRow> = sql::query_as(
        "SELECT resource.id AS resource_id, resource.name AS resource_name, address, filters,
                site.id AS site_id, site.name AS site_name
         FROM resource JOIN site ON site.id = resource.site_id
         WHERE resource.account_id = $1 ORDER BY resource.id",
    )
    .bind(account)
    .fetch_all(&mut *tx)
    .await?;
    let groups = sql::query_as("SELECT * FROM actor_group WHERE account_id = $1 ORDER BY id")
        .bind(account)
        .fetch_all(&mut *tx)
        .await?;
    let memberships = sql::query_as(
        "SELECT group_id, actor_id FROM membership
         JOIN actor_group ON actor_group.id = group_id WHERE account_id = $1 ORDER BY group_id, actor_id",
    )
    .bind(account)
    .fetch_all(&mut *tx)
    .await?;
    let policies = sql::query_as(
        "SELECT policy.id, group_id, actor_group.name AS group_name, resource_id,
                resource.name AS resource_name, enabled, conditions, policy.created_ms
         FROM policy
         JOIN actor_group ON actor_group.id = policy.group_id
         JOIN resource ON resource.id = policy.resource_id
         WHERE policy.account_id = $1 ORDER BY policy.id",
    )
    .bind(account)
    .fetch_all(&mut *tx)
    .await?;
    Ok(Inventory {
        actors,
        sites: sites.into_iter().map(|(id, name)| Site { id: SiteId::from_uuid(id), name }).collect(),
        resources: resources.into_iter().map(ResourceRow::into_resource).collect::<Result<_, _>>()?,
        groups,
        memberships,
        policies,
    })
}
