//! Actors: people and service accounts.

use adit_policy::ActorId;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Revoke, Role, Store, StoreError, sql};

/// What an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActorKind {
    /// A person.
    User,
    /// A machine that signs in with a static token.
    ServiceAccount,
}

impl ActorKind {
    /// The stored name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// A person or service account.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct Actor {
    /// Names it.
    pub(crate) id: Uuid,
    /// `user` or `service_account`.
    pub(crate) kind: String,
    /// Shown to people; unique.
    pub(crate) name: String,
    /// What it may do with the portal itself.
    #[sqlx(try_from = "String")]
    pub(crate) role: Role,
    /// A disabled actor is granted nothing and cannot sign in.
    pub(crate) enabled: bool,
    /// Where its name and state come from, if not from the administrators: `scim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) managed_by: Option<String>,
    /// When it was created.
    pub(crate) created_ms: i64,
}

impl Store {
    /// Actors in the order of their creation.
    pub(crate) async fn actors(&self, page: Page) -> Result<Vec<Actor>, StoreError> {
        Ok(sql::query_as("SELECT * FROM actor WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(self.account.as_uuid())
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.reader)
            .await?)
    }

    /// The person of this name.
    pub(crate) async fn person_named(&self, name: &str) -> Result<Option<Actor>, StoreError> {
        Ok(sql::query_as("SELECT * FROM actor WHERE account_id = $1 AND name = $2 AND kind = 'user'")
            .bind(self.account.as_uuid())
            .bind(name)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// One actor.
    pub(crate) async fn actor(&self, id: ActorId) -> Result<Actor, StoreError> {
        sql::query_as("SELECT * FROM actor WHERE account_id = $1 AND id = $2")
            .bind(self.account.as_uuid())
            .bind(id.as_uuid())
            .fetch_optional(&self.reader)
            .await?
            .ok_or(StoreError::NotFound("actor"))
    }
}

impl Change {
    /// Creates an actor, which becomes a member of every `everyone` group.
    pub(crate) async fn create_actor(
        &mut self,
        kind: ActorKind,
        name: &str,
        role: Role,
    ) -> Result<Actor, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO actor (id, account_id, kind, name, role, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(kind.name())
        .bind(name)
        .bind(role.name())
        .bind(at)
        .execute(self.sql())
        .await?;
        sql::query(
            "INSERT INTO membership (group_id, actor_id, created_ms)
             SELECT id, $1, $2 FROM actor_group WHERE account_id = $3 AND everyone",
        )
        .bind(id)
        .bind(at)
        .bind(account.as_uuid())
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({ "name": name, "kind": kind.name(), "role": role });
        self.audit_change("actor.create", ("actor", id), Json::Null, detail).await?;
        let (kind, name) = (kind.name().to_owned(), name.to_owned());
        Ok(Actor { id, kind, name, role, enabled: true, managed_by: None, created_ms: at })
    }

    /// Enables or disables an actor.
    ///
    /// Disabling revokes its tokens too: whoever was let go signs in again when let in again.
    pub(crate) async fn set_actor_enabled(&mut self, id: ActorId, enabled: bool) -> Result<(), StoreError> {
        let account = self.account();
        let was: Option<(bool, String)> =
            sql::query_as("SELECT enabled, role FROM actor WHERE account_id = $1 AND id = $2")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let (was, role) = was.ok_or(StoreError::NotFound("actor"))?;
        let role: Role = role.try_into()?;
        sql::query("UPDATE actor SET enabled = $1 WHERE id = $2")
            .bind(enabled)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        if !enabled {
            self.keep_an_owner(role).await?;
            self.revoke(Revoke::Actor(id)).await?;
            self.revoke_actor_tokens(id).await?;
            self.end_web_sessions_of(id).await?;
        }
        self.tell(&Event::VisibilityChanged { actors: vec![id] })?;
        let action = if enabled { "actor.enable" } else { "actor.disable" };
        let state = |enabled: bool| serde_json::json!({ "enabled": enabled });
        self.audit_change(action, ("actor", id.as_uuid()), state(was), state(enabled)).await
    }

    /// Gives an actor another role. Its API tokens stay and allow at once what the new role allows.
    pub(crate) async fn set_actor_role(&mut self, id: ActorId, role: Role) -> Result<(), StoreError> {
        let before = self.actor_role(id).await?;
        sql::query("UPDATE actor SET role = $1 WHERE id = $2")
            .bind(role.name())
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        self.keep_an_owner(before).await?;
        let detail = serde_json::json!({ "before": before, "role": role });
        self.audit("actor.role", ("actor", Some(id.as_uuid())), detail).await
    }

    /// The role of an actor, while no other change can happen.
    pub(crate) async fn actor_role(&mut self, id: ActorId) -> Result<Role, StoreError> {
        let account = self.account();
        let role: Option<String> =
            sql::query_scalar("SELECT role FROM actor WHERE account_id = $1 AND id = $2")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        role.ok_or(StoreError::NotFound("actor"))?.try_into()
    }

    /// Deletes an actor with its tokens and devices.
    pub(crate) async fn delete_actor(&mut self, id: ActorId) -> Result<(), StoreError> {
        self.revoke(Revoke::Actor(id)).await?;
        self.revoke_actor_tokens(id).await?;
        let account = self.account();
        let gone: Option<(String, String, String, bool)> = sql::query_as(
            "DELETE FROM actor WHERE account_id = $1 AND id = $2 RETURNING name, kind, role, enabled",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let (name, kind, role, enabled) = gone.ok_or(StoreError::NotFound("actor"))?;
        let before = serde_json::json!({ "name": name, "kind": kind, "role": role, "enabled": enabled });
        self.keep_an_owner(role.try_into()?).await?;
        self.audit_change("actor.delete", ("actor", id.as_uuid()), before, Json::Null).await
    }
}
