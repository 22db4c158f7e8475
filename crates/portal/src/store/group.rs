//! Groups and who is in them.

use adit_policy::{ActorId, GroupId};
use serde::Serialize;
use serde_json::Value as Json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Actor, Change, Event, Page, Revoke, Store, StoreError, sql};

/// A group of actors.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct Group {
    /// Names it.
    pub(crate) id: Uuid,
    /// Shown to people; unique.
    pub(crate) name: String,
    /// Every actor is a member, always.
    pub(crate) everyone: bool,
    /// Who decides who is a member, if not the administrators: `scim`, or `oidc` for the provider's claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) managed_by: Option<String>,
    /// When it was created.
    pub(crate) created_ms: i64,
}

impl Group {
    /// Whether a directory decides who is a member.
    pub(crate) const fn is_managed(&self) -> bool {
        self.managed_by.is_some()
    }
}

impl Store {
    /// Groups in the order of their creation.
    pub(crate) async fn groups(&self, page: Page) -> Result<Vec<Group>, StoreError> {
        Ok(sql::query_as("SELECT * FROM actor_group WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(self.account.as_uuid())
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.reader)
            .await?)
    }

    /// One group.
    pub(crate) async fn group(&self, id: GroupId) -> Result<Group, StoreError> {
        sql::query_as("SELECT * FROM actor_group WHERE account_id = $1 AND id = $2")
            .bind(self.account.as_uuid())
            .bind(id.as_uuid())
            .fetch_optional(&self.reader)
            .await?
            .ok_or(StoreError::NotFound("group"))
    }

    /// Members of a group in the order of their creation.
    pub(crate) async fn members(&self, group: GroupId, page: Page) -> Result<Vec<Actor>, StoreError> {
        Ok(sql::query_as(
            "SELECT actor.* FROM actor JOIN membership ON membership.actor_id = actor.id
             WHERE actor.account_id = $1 AND membership.group_id = $2 AND actor.id > $3 ORDER BY actor.id LIMIT $4",
        )
        .bind(self.account.as_uuid())
        .bind(group.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }
}

impl Change {
    /// Creates a group; one with `everyone` takes all actors in at once.
    pub(crate) async fn create_group(&mut self, name: &str, everyone: bool) -> Result<Group, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO actor_group (id, account_id, name, everyone, created_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(name)
        .bind(everyone)
        .bind(at)
        .execute(self.sql())
        .await?;
        if everyone {
            sql::query(
                "INSERT INTO membership (group_id, actor_id, created_ms)
                 SELECT $1, id, $2 FROM actor WHERE account_id = $3",
            )
            .bind(id)
            .bind(at)
            .bind(account.as_uuid())
            .execute(self.sql())
            .await?;
        }
        let after = serde_json::json!({ "name": name, "everyone": everyone });
        self.audit_change("group.create", ("group", id), Json::Null, after).await?;
        Ok(Group { id, name: name.to_owned(), everyone, managed_by: None, created_ms: at })
    }

    /// Gives a group another name.
    pub(crate) async fn rename_group(&mut self, id: GroupId, name: &str) -> Result<(), StoreError> {
        self.expect_group(id).await?;
        self.refuse_managed(id).await?;
        sql::query("UPDATE actor_group SET name = $1 WHERE id = $2")
            .bind(name)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        let detail = serde_json::json!({ "name": name });
        self.audit("group.rename", ("group", Some(id.as_uuid())), detail).await
    }

    /// Deletes a group with its policies.
    pub(crate) async fn delete_group(&mut self, id: GroupId) -> Result<(), StoreError> {
        self.refuse_everyone(id, "cannot be deleted").await?;
        let members = self.members_of(id).await?;
        self.revoke(Revoke::Group(id)).await?;
        let name: Option<String> = sql::query_scalar("DELETE FROM actor_group WHERE id = $1 RETURNING name")
            .bind(id.as_uuid())
            .fetch_optional(self.sql())
            .await?;
        let before = serde_json::json!({ "name": name, "members": members });
        self.tell_visibility(members)?;
        self.audit_change("group.delete", ("group", id.as_uuid()), before, Json::Null).await
    }

    /// Makes an actor a member; doing it twice is no error.
    pub(crate) async fn add_member(&mut self, group: GroupId, actor: ActorId) -> Result<(), StoreError> {
        self.expect_group(group).await?;
        self.refuse_managed(group).await?;
        // Its existence, in this account.
        self.actor_role(actor).await?;
        let at = self.at_ms();
        sql::query(
            "INSERT INTO membership (group_id, actor_id, created_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(group.as_uuid())
        .bind(actor.as_uuid())
        .bind(at)
        .execute(self.sql())
        .await?;
        self.tell(&Event::VisibilityChanged { actors: vec![actor] })?;
        let detail = serde_json::json!({ "actor": actor });
        self.audit_change("membership.add", ("group", group.as_uuid()), Json::Null, detail).await
    }

    /// Takes an actor out of a group.
    pub(crate) async fn remove_member(&mut self, group: GroupId, actor: ActorId) -> Result<(), StoreError> {
        self.refuse_everyone(group, "always holds every actor").await?;
        self.refuse_managed(group).await?;
        let removed = sql::query("DELETE FROM membership WHERE group_id = $1 AND actor_id = $2")
            .bind(group.as_uuid())
            .bind(actor.as_uuid())
            .execute(self.sql())
            .await?;
        if removed == 0 {
            return Err(StoreError::NotFound("membership"));
        }
        self.revoke(Revoke::Membership { group, actor }).await?;
        self.tell(&Event::VisibilityChanged { actors: vec![actor] })?;
        let detail = serde_json::json!({ "actor": actor });
        self.audit_change("membership.remove", ("group", group.as_uuid()), detail, Json::Null).await
    }

    /// Actors in a group.
    pub(super) async fn members_of(&mut self, group: GroupId) -> Result<Vec<ActorId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar("SELECT actor_id FROM membership WHERE group_id = $1")
            .bind(group.as_uuid())
            .fetch_all(self.sql())
            .await?;
        Ok(ids.into_iter().map(ActorId::from_uuid).collect())
    }

    /// Announces that these actors may see more or less now; nobody is told of nothing.
    pub(super) fn tell_visibility(&mut self, actors: Vec<ActorId>) -> Result<(), StoreError> {
        if actors.is_empty() {
            return Ok(());
        }
        self.tell(&Event::VisibilityChanged { actors })
    }

    /// Whether the group holds everyone; an error when there is no such group.
    pub(super) async fn expect_group(&mut self, id: GroupId) -> Result<bool, StoreError> {
        let account = self.account();
        sql::query_scalar("SELECT everyone FROM actor_group WHERE account_id = $1 AND id = $2")
            .bind(account.as_uuid())
            .bind(id.as_uuid())
            .fetch_optional(self.sql())
            .await?
            .ok_or(StoreError::NotFound("group"))
    }

    async fn refuse_managed(&mut self, id: GroupId) -> Result<(), StoreError> {
        let account = self.account();
        let managed_by: Option<String> = sql::query_scalar(
            "SELECT managed_by FROM actor_group WHERE account_id = $1 AND id = $2 AND managed_by IS NOT NULL",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let whose = match managed_by.as_deref() {
            None => return Ok(()),
            Some("scim") => "SCIM",
            Some(_) => "An identity provider",
        };
        Err(StoreError::Conflict(format!("{whose} manages the name and the members of this group")))
    }

    async fn refuse_everyone(&mut self, id: GroupId, why: &str) -> Result<(), StoreError> {
        if self.expect_group(id).await? {
            return Err(StoreError::Conflict(format!("the group of everyone {why}")));
        }
        Ok(())
    }
}
