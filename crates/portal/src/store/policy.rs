//! Policies: members of a group may reach a resource.

use adit_policy::{
    ActorId, Circumstances, Conditions, Decision, GroupId, PolicyId, PolicyRule, Refusal, ResourceId, Subject,
};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Page, Revoke, Store, StoreError, sql};

/// A policy with the names of what it joins.
#[derive(Debug, Clone, Serialize, FromRow)]
pub(crate) struct Policy {
    /// Names it.
    pub(crate) id: Uuid,
    /// Whose members it is for.
    pub(crate) group_id: Uuid,
    /// Whose members it is for.
    pub(crate) group_name: String,
    /// What they may reach.
    pub(crate) resource_id: Uuid,
    /// What they may reach.
    pub(crate) resource_name: String,
    /// A disabled policy grants nothing.
    pub(crate) enabled: bool,
    /// When it was created.
    pub(crate) created_ms: i64,
}

impl Store {
    /// Policies in the order of their creation.
    pub(crate) async fn policies(&self, page: Page) -> Result<Vec<Policy>, StoreError> {
        Ok(sql::query_as(
            "SELECT policy.id, group_id, actor_group.name AS group_name, resource_id,
                    resource.name AS resource_name, enabled, policy.created_ms
             FROM policy
             JOIN actor_group ON actor_group.id = policy.group_id
             JOIN resource ON resource.id = policy.resource_id
             WHERE policy.account_id = $1 AND policy.id > $2 ORDER BY policy.id LIMIT $3",
        )
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// The decision of this moment, for an administrator who asks why.
    pub(crate) async fn explain(
        &self,
        now_ms: i64,
        actor: ActorId,
        resource: ResourceId,
    ) -> Result<Decision, StoreError> {
        let mut reader = self.reader.begin().await?;
        decide(&mut reader, now_ms, actor, resource, None).await
    }
}

/// Loads what the decision needs and decides.
pub(super) async fn decide(
    tx: &mut sql::Transaction,
    now_ms: i64,
    actor: ActorId,
    resource: ResourceId,
    session_expires_ms: Option<i64>,
) -> Result<Decision, StoreError> {
    let enabled: Option<bool> = sql::query_scalar("SELECT enabled FROM actor WHERE id = $1")
        .bind(actor.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(enabled) = enabled else {
        return Ok(Decision::Refused(Refusal::ActorDisabled));
    };
    let groups: Vec<Uuid> = sql::query_scalar("SELECT group_id FROM membership WHERE actor_id = $1")
        .bind(actor.as_uuid())
        .fetch_all(&mut *tx)
        .await?;
    let groups: Vec<GroupId> = groups.into_iter().map(GroupId::from_uuid).collect();
    let rules: Vec<(Uuid, Uuid, bool)> =
        sql::query_as("SELECT id, group_id, enabled FROM policy WHERE resource_id = $1")
            .bind(resource.as_uuid())
            .fetch_all(tx)
            .await?;
    let rules: Vec<PolicyRule> = rules
        .into_iter()
        .map(|(id, group, enabled)| PolicyRule {
            id: PolicyId::from_uuid(id),
            group: GroupId::from_uuid(group),
            resource,
            enabled,
            conditions: Conditions::default(),
        })
        .collect();
    let seconds = |ms: i64| u64::try_from(ms / 1000).unwrap_or(0);
    let session_expires_at = session_expires_ms.map(seconds);
    let circumstances = Circumstances::default();
    let subject = Subject { actor, enabled, groups: &groups, session_expires_at, circumstances };
    Ok(adit_policy::decide(seconds(now_ms), &subject, resource, &rules))
}

impl Change {
    /// Creates an enabled policy.
    pub(crate) async fn create_policy(
        &mut self,
        group: GroupId,
        resource: ResourceId,
    ) -> Result<PolicyId, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO policy (id, account_id, group_id, resource_id, created_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(group.as_uuid())
        .bind(resource.as_uuid())
        .bind(at)
        .execute(self.sql())
        .await?;
        let members = self.members_of(group).await?;
        self.tell_visibility(members).await?;
        let detail = serde_json::json!({ "group": group, "resource": resource });
        self.audit("policy.create", ("policy", Some(id)), detail).await?;
        Ok(PolicyId::from_uuid(id))
    }

    /// Enables or disables a policy; disabling ends what it granted.
    pub(crate) async fn set_policy_enabled(&mut self, id: PolicyId, enabled: bool) -> Result<(), StoreError> {
        let account = self.account();
        let group: Option<Uuid> = sql::query_scalar(
            "UPDATE policy SET enabled = $1 WHERE account_id = $2 AND id = $3 RETURNING group_id",
        )
        .bind(enabled)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let group = GroupId::from_uuid(group.ok_or(StoreError::NotFound("policy"))?);
        if !enabled {
            self.revoke(Revoke::Policy(id)).await?;
        }
        let members = self.members_of(group).await?;
        self.tell_visibility(members).await?;
        let action = if enabled { "policy.enable" } else { "policy.disable" };
        self.audit(action, ("policy", Some(id.as_uuid())), serde_json::json!({})).await
    }

    /// Deletes a policy and ends what it granted.
    pub(crate) async fn delete_policy(&mut self, id: PolicyId) -> Result<(), StoreError> {
        self.revoke(Revoke::Policy(id)).await?;
        let account = self.account();
        let row: Option<(Uuid, Uuid)> = sql::query_as(
            "DELETE FROM policy WHERE account_id = $1 AND id = $2 RETURNING group_id, resource_id",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let (group, resource) = row.ok_or(StoreError::NotFound("policy"))?;
        let members = self.members_of(GroupId::from_uuid(group)).await?;
        self.tell_visibility(members).await?;
        let detail = serde_json::json!({ "group": group, "resource": resource });
        self.audit("policy.delete", ("policy", Some(id.as_uuid())), detail).await
    }
}
