//! Actors: people and service accounts.

use adit_policy::ActorId;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Revoke, Store, StoreError, sql};

/// What an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, FromRow)]
pub(crate) struct Actor {
    /// Names it.
    pub(crate) id: Uuid,
    /// `user` or `service_account`.
    pub(crate) kind: String,
    /// Shown to people; unique.
    pub(crate) name: String,
    /// Whether it may administer the portal.
    pub(crate) admin: bool,
    /// A disabled actor is granted nothing and cannot sign in.
    pub(crate) enabled: bool,
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
    pub(crate) async fn actor_named(&self, name: &str) -> Result<Option<Actor>, StoreError> {
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
        admin: bool,
    ) -> Result<Actor, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO actor (id, account_id, kind, name, admin, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(account.as_uuid())
        .bind(kind.name())
        .bind(name)
        .bind(admin)
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
        let detail = serde_json::json!({ "name": name, "kind": kind.name(), "admin": admin });
        self.audit("actor.create", ("actor", Some(id)), detail).await?;
        let (kind, name) = (kind.name().to_owned(), name.to_owned());
        Ok(Actor { id, kind, name, admin, enabled: true, created_ms: at })
    }

    /// Enables or disables an actor.
    ///
    /// Disabling revokes its tokens too: whoever was let go signs in again when let in again.
    pub(crate) async fn set_actor_enabled(&mut self, id: ActorId, enabled: bool) -> Result<(), StoreError> {
        let account = self.account();
        let changed = sql::query("UPDATE actor SET enabled = $1 WHERE account_id = $2 AND id = $3")
            .bind(enabled)
            .bind(account.as_uuid())
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        if changed == 0 {
            return Err(StoreError::NotFound("actor"));
        }
        if !enabled {
            self.revoke(Revoke::Actor(id)).await?;
            self.revoke_actor_tokens(id).await?;
            self.end_web_sessions_of(id).await?;
        }
        self.tell(&Event::VisibilityChanged { actors: vec![id] }).await?;
        let action = if enabled { "actor.enable" } else { "actor.disable" };
        self.audit(action, ("actor", Some(id.as_uuid())), serde_json::json!({})).await
    }

    /// Deletes an actor with its tokens and devices.
    pub(crate) async fn delete_actor(&mut self, id: ActorId) -> Result<(), StoreError> {
        self.revoke(Revoke::Actor(id)).await?;
        self.revoke_actor_tokens(id).await?;
        let account = self.account();
        let name: Option<String> =
            sql::query_scalar("DELETE FROM actor WHERE account_id = $1 AND id = $2 RETURNING name")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let name = name.ok_or(StoreError::NotFound("actor"))?;
        self.audit("actor.delete", ("actor", Some(id.as_uuid())), serde_json::json!({ "name": name })).await
    }
}
