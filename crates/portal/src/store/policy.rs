//! Policies: members of a group may reach a resource.

use adit_policy::{
    ActorId, ClientId, Conditions, Decision, GroupId, PolicyId, PolicyRule, Refusal, ResourceId, Subject,
    Verdict,
};
use serde::Serialize;
use serde_json::Value as Json;
use sqlx::FromRow;
use uuid::Uuid;

use super::condition::{self, Known, Review, Written};
use super::{Change, Page, Revoke, Store, StoreError, sql};
use crate::clock;

/// A policy with the names of what it joins.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
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
    /// What it asks for besides.
    #[sqlx(try_from = "String")]
    #[schema(value_type = Conditions)]
    pub(crate) conditions: Written,
    /// When it was created.
    pub(crate) created_ms: i64,
}

impl Store {
    /// Policies in the order of their creation.
    pub(crate) async fn policies(&self, page: Page) -> Result<Vec<Policy>, StoreError> {
        Ok(sql::query_as(
            "SELECT policy.id, group_id, actor_group.name AS group_name, resource_id,
                    resource.name AS resource_name, enabled, conditions, policy.created_ms
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

    /// One policy.
    pub(crate) async fn policy(&self, id: PolicyId) -> Result<Policy, StoreError> {
        sql::query_as(
            "SELECT policy.id, group_id, actor_group.name AS group_name, resource_id,
                    resource.name AS resource_name, enabled, conditions, policy.created_ms
             FROM policy
             JOIN actor_group ON actor_group.id = policy.group_id
             JOIN resource ON resource.id = policy.resource_id
             WHERE policy.account_id = $1 AND policy.id = $2",
        )
        .bind(self.account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&self.reader)
        .await?
        .ok_or(StoreError::NotFound("policy"))
    }

    /// The decision of this moment and what each policy has to do with it, for an administrator who asks why.
    pub(crate) async fn explain(
        &self,
        now_ms: i64,
        asker: &Asker,
        resource: ResourceId,
    ) -> Result<Explained, StoreError> {
        let mut reader = self.reader.begin().await?;
        let Some(facts) = Facts::load(&mut reader, asker, resource).await? else {
            return Err(StoreError::NotFound("actor"));
        };
        let now = clock::seconds(now_ms);
        let verdicts = adit_policy::explain(now, &facts.subject(now, asker), resource, &facts.rules);
        Ok(Explained { decision: facts.decide(now, asker, resource), verdicts })
    }
}

/// Who asks for access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    /// The person or service account.
    pub(crate) actor: ActorId,
    /// On which client; without one nothing is known that conditions could be judged by.
    pub(crate) client: Option<ClientId>,
    /// When the session ends.
    pub(crate) session_expires_ms: Option<i64>,
}

/// A decision with what each policy has to do with it.
#[derive(Debug, Clone)]
pub(crate) struct Explained {
    /// The decision.
    pub(crate) decision: Decision,
    /// Every policy that names the resource.
    pub(crate) verdicts: Vec<(PolicyId, Verdict)>,
}

/// A policy of a resource beside the one who asks; no policy at all is one row without any.
#[derive(FromRow)]
struct FactRow {
    actor_enabled: bool,
    id: Option<Uuid>,
    group_id: Option<Uuid>,
    enabled: Option<bool>,
    conditions: Option<String>,
    /// The asker, who is in the policy's group.
    member: Option<Uuid>,
}

impl FactRow {
    fn group_of_member(&self) -> Option<GroupId> {
        self.member.and(self.group_id).map(GroupId::from_uuid)
    }

    fn into_rule(self, resource: ResourceId) -> Option<PolicyRule> {
        let (id, group) = (self.id?, self.group_id?);
        Some(PolicyRule {
            id: PolicyId::from_uuid(id),
            group: GroupId::from_uuid(group),
            resource,
            enabled: self.enabled?,
            conditions: condition::read(id, &self.conditions?)?,
        })
    }
}

/// What a decision rests on.
struct Facts {
    is_enabled: bool,
    /// Those that a policy of the resource names.
    groups: Vec<GroupId>,
    rules: Vec<PolicyRule>,
    known: Known,
}

impl Facts {
    /// `None` when there is no such actor.
    async fn load(
        tx: &mut sql::Transaction,
        asker: &Asker,
        resource: ResourceId,
    ) -> Result<Option<Self>, StoreError> {
        // One statement rather than three: it is a part of every request for access.
        let rows: Vec<FactRow> = sql::query_as(
            "SELECT actor.enabled AS actor_enabled, policy.id, policy.group_id, policy.enabled,
                    policy.conditions, membership.actor_id AS member
             FROM actor
             LEFT JOIN policy ON policy.resource_id = $2
             LEFT JOIN membership ON membership.group_id = policy.group_id
                                 AND membership.actor_id = actor.id
             WHERE actor.id = $1 ORDER BY policy.id",
        )
        .bind(asker.actor.as_uuid())
        .bind(resource.as_uuid())
        .fetch_all(&mut *tx)
        .await?;
        let Some(is_enabled) = rows.first().map(|row| row.actor_enabled) else { return Ok(None) };
        let groups: Vec<GroupId> = rows.iter().filter_map(FactRow::group_of_member).collect();
        let rules: Vec<PolicyRule> = rows.into_iter().filter_map(|row| row.into_rule(resource)).collect();
        let is_conditional = rules.iter().any(|rule| !rule.conditions.is_empty());
        let client = asker.client.filter(|_| is_conditional);
        Ok(Some(Self { is_enabled, groups, rules, known: condition::known(tx, client).await? }))
    }

    fn subject(&self, now: u64, asker: &Asker) -> Subject<'_> {
        Subject {
            actor: asker.actor,
            enabled: self.is_enabled,
            groups: &self.groups,
            session_expires_at: asker.session_expires_ms.map(clock::seconds),
            circumstances: self.known.circumstances(now),
        }
    }

    fn decide(&self, now: u64, asker: &Asker, resource: ResourceId) -> Decision {
        adit_policy::decide(now, &self.subject(now, asker), resource, &self.rules)
    }
}

/// Loads what the decision needs and decides.
pub(super) async fn decide(
    tx: &mut sql::Transaction,
    now_ms: i64,
    asker: &Asker,
    resource: ResourceId,
) -> Result<Decision, StoreError> {
    Ok(match Facts::load(tx, asker, resource).await? {
        Some(facts) => facts.decide(clock::seconds(now_ms), asker, resource),
        None => Decision::Refused(Refusal::ActorDisabled),
    })
}

impl Change {
    /// Creates an enabled policy.
    pub(crate) async fn create_policy(
        &mut self,
        group: GroupId,
        resource: ResourceId,
        conditions: &Conditions,
    ) -> Result<PolicyId, StoreError> {
        self.expect_group(group).await?;
        self.expect_resource(resource).await?;
        self.expect_providers(conditions).await?;
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO policy (id, account_id, group_id, resource_id, conditions, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(group.as_uuid())
        .bind(resource.as_uuid())
        .bind(condition::write(conditions)?)
        .bind(at)
        .execute(self.sql())
        .await?;
        let members = self.members_of(group).await?;
        self.tell_visibility(members)?;
        let detail = serde_json::json!({ "group": group, "resource": resource, "conditions": conditions });
        self.audit_change("policy.create", ("policy", id), Json::Null, detail).await?;
        Ok(PolicyId::from_uuid(id))
    }

    /// Enables or disables a policy; disabling ends what it granted.
    pub(crate) async fn set_policy_enabled(&mut self, id: PolicyId, enabled: bool) -> Result<(), StoreError> {
        let account = self.account();
        let was: Option<(Uuid, bool)> =
            sql::query_as("SELECT group_id, enabled FROM policy WHERE account_id = $1 AND id = $2")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let (group, was_enabled) = was.ok_or(StoreError::NotFound("policy"))?;
        let group = GroupId::from_uuid(group);
        sql::query("UPDATE policy SET enabled = $1 WHERE id = $2")
            .bind(enabled)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        if !enabled {
            self.revoke(Revoke::Policy(id)).await?;
        }
        let members = self.members_of(group).await?;
        self.tell_visibility(members)?;
        let action = if enabled { "policy.enable" } else { "policy.disable" };
        let state = |enabled: bool| serde_json::json!({ "enabled": enabled });
        self.audit_change(action, ("policy", id.as_uuid()), state(was_enabled), state(enabled)).await
    }

    /// Gives a policy other conditions; what it would not grant under these ends.
    pub(crate) async fn set_policy_conditions(
        &mut self,
        id: PolicyId,
        conditions: &Conditions,
    ) -> Result<(), StoreError> {
        self.expect_providers(conditions).await?;
        let account = self.account();
        let before: Option<(Uuid, String)> =
            sql::query_as("SELECT group_id, conditions FROM policy WHERE account_id = $1 AND id = $2")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let (group, before) = before.ok_or(StoreError::NotFound("policy"))?;
        sql::query("UPDATE policy SET conditions = $1 WHERE id = $2")
            .bind(condition::write(conditions)?)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        self.review(Review::Policy(id)).await?;
        let members = self.members_of(GroupId::from_uuid(group)).await?;
        self.tell_visibility(members)?;
        let before = serde_json::json!({ "conditions": Written::from(before) });
        let after = serde_json::json!({ "conditions": conditions });
        self.audit_change("policy.conditions", ("policy", id.as_uuid()), before, after).await
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
        self.tell_visibility(members)?;
        let detail = serde_json::json!({ "group": group, "resource": resource });
        self.audit_change("policy.delete", ("policy", id.as_uuid()), detail, Json::Null).await
    }
}
