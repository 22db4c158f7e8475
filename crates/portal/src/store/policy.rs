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
        let facts = Facts::load(&mut reader, &[(*asker, resource)]).await?.pop().flatten();
        let facts = facts.ok_or(StoreError::NotFound("actor"))?;
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
    /// Which request, counted from one.
    place: i64,
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
    /// Those of each request, in their order; `None` when there is no such actor.
    async fn load(
        tx: &mut sql::Transaction,
        asked: &[(Asker, ResourceId)],
    ) -> Result<Vec<Option<Self>>, StoreError> {
        // One statement rather than three: it is a part of every request for access.
        const SELECT: sql::Statement = sql::listed!(
            asked ("$1" actor: uuid, "$2" resource: uuid),
            "SELECT place, actor.enabled AS actor_enabled, policy.id, policy.group_id, policy.enabled,
                    policy.conditions, membership.actor_id AS member
             FROM asked
             JOIN actor ON actor.id = asked.actor
             LEFT JOIN policy ON policy.resource_id = asked.resource
             LEFT JOIN membership ON membership.group_id = policy.group_id
                                 AND membership.actor_id = actor.id
             ORDER BY place, policy.id"
        );
        let rows: Vec<FactRow> = sql::query_as(SELECT)
            .bind(asked.iter().map(|(asker, _)| asker.actor.as_uuid()).collect::<Vec<_>>())
            .bind(asked.iter().map(|(_, resource)| resource.as_uuid()).collect::<Vec<_>>())
            .fetch_all(&mut *tx)
            .await?;
        let mut facts: Vec<Option<Self>> = asked.iter().map(|_| None).collect();
        for row in rows {
            let place = usize::try_from(row.place).ok().and_then(|place| place.checked_sub(1));
            if let Some((facts, (_, resource))) =
                place.and_then(|at| Some((facts.get_mut(at)?, asked.get(at)?)))
            {
                facts.get_or_insert_with(|| Self::new(row.actor_enabled)).add(row, *resource);
            }
        }
        Self::add_known(tx, asked, &mut facts).await?;
        Ok(facts)
    }

    fn new(is_enabled: bool) -> Self {
        Self { is_enabled, groups: Vec::new(), rules: Vec::new(), known: Known::default() }
    }

    fn add(&mut self, row: FactRow, resource: ResourceId) {
        self.groups.extend(row.group_of_member());
        self.rules.extend(row.into_rule(resource));
    }

    /// What is known of the clients, where conditions ask for it.
    async fn add_known(
        tx: &mut sql::Transaction,
        asked: &[(Asker, ResourceId)],
        facts: &mut [Option<Self>],
    ) -> Result<(), StoreError> {
        let conditional: Vec<(&mut Self, ClientId)> = facts
            .iter_mut()
            .zip(asked)
            .filter_map(|(facts, (asker, _))| facts.as_mut().zip(asker.client))
            .filter(|(facts, _)| facts.rules.iter().any(|rule| !rule.conditions.is_empty()))
            .collect();
        let clients: Vec<ClientId> = conditional.iter().map(|(_, client)| *client).collect();
        let known = condition::known(tx, &clients).await?;
        for (facts, client) in conditional {
            facts.known = known.get(&client).cloned().unwrap_or_default();
        }
        Ok(())
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

/// Loads what decisions need and decides, in the order of the requests.
pub(super) async fn decide(
    tx: &mut sql::Transaction,
    now_ms: i64,
    asked: &[(Asker, ResourceId)],
) -> Result<Vec<Decision>, StoreError> {
    let (now, facts) = (clock::seconds(now_ms), Facts::load(tx, asked).await?);
    let decide = |(facts, (asker, resource)): (Option<Facts>, &(Asker, ResourceId))| match facts {
        Some(facts) => facts.decide(now, asker, *resource),
        None => Decision::Refused(Refusal::ActorDisabled),
    };
    Ok(facts.into_iter().zip(asked).map(decide).collect())
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
