//! Sessions of people in a browser.

use adit_policy::ActorId;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Page, Store, StoreError, sql};
use crate::clock;

/// Sessions that one actor may have; the oldest ends when another one begins.
const MAX_SESSIONS: i64 = 20;

/// A session that is not used for 8 hours ends.
const IDLE_MS: i64 = 8 * 60 * 60 * 1000;

/// A session ends after a day, however much it is used.
pub(crate) const LONGEST_MS: i64 = 24 * 60 * 60 * 1000;

/// A session as it is stored.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct WebSession {
    /// Names it; part of the cookie.
    pub(crate) id: Uuid,
    /// Who is signed in.
    pub(crate) actor_id: Uuid,
    /// The keyed hash of the cookie's secret.
    #[serde(skip)]
    pub(crate) hash: Vec<u8>,
    /// Who authenticated the actor: `local`, or the name of a provider.
    pub(crate) provider: String,
    /// When it began.
    pub(crate) created_ms: i64,
    /// When the actor proved who they are.
    pub(crate) authenticated_ms: i64,
    /// When it was last used, to the minute.
    pub(crate) last_seen_ms: i64,
    /// When it ends at the latest.
    pub(crate) expires_ms: i64,
    /// Where it was begun from.
    pub(crate) address: String,
    /// What the browser says that it is; not to be relied on.
    pub(crate) user_agent: String,
}

impl WebSession {
    /// Whether its time is over, or has not come yet because the clock was set back.
    pub(crate) const fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms <= now_ms
            || self.last_seen_ms <= now_ms - IDLE_MS
            || clock::is_ahead(self.authenticated_ms, now_ms)
    }

    /// Who is signed in.
    pub(crate) const fn actor(&self) -> ActorId {
        ActorId::from_uuid(self.actor_id)
    }
}

/// A session with the name of its actor, for lists.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct WebSessionRow {
    /// The session.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub(crate) session: WebSession,
    /// What its actor is called.
    pub(crate) actor_name: String,
}

impl Store {
    /// One session, also an expired one.
    pub(crate) async fn web_session(&self, id: Uuid) -> Result<Option<WebSession>, StoreError> {
        Ok(sql::query_as("SELECT * FROM web_session WHERE account_id = $1 AND id = $2")
            .bind(self.account.as_uuid())
            .bind(id)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// The sessions of one actor that have not ended.
    pub(crate) async fn web_sessions_of(&self, actor: ActorId) -> Result<Vec<WebSession>, StoreError> {
        let now_ms = clock::now_ms();
        let all: Vec<WebSession> = sql::query_as("SELECT * FROM web_session WHERE actor_id = $1 ORDER BY id")
            .bind(actor.as_uuid())
            .fetch_all(&self.reader)
            .await?;
        Ok(all.into_iter().filter(|session| !session.is_over(now_ms)).collect())
    }

    /// Sessions that have not ended, in the order of their beginning.
    pub(crate) async fn web_sessions(&self, page: Page) -> Result<Vec<WebSessionRow>, StoreError> {
        let now_ms = clock::now_ms();
        Ok(sql::query_as(
            "SELECT web_session.*, actor.name AS actor_name
             FROM web_session JOIN actor ON actor.id = web_session.actor_id
             WHERE web_session.account_id = $1 AND web_session.id > $2
               AND web_session.expires_ms > $4 AND web_session.last_seen_ms > $5
               AND web_session.authenticated_ms <= $6
             ORDER BY web_session.id LIMIT $3",
        )
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .bind(now_ms)
        .bind(now_ms - IDLE_MS)
        .bind(now_ms + clock::TOLERANCE_MS)
        .fetch_all(&self.reader)
        .await?)
    }
}

impl Change {
    /// Begins a session; the actor's oldest ones end when there are too many, and those whose
    /// time is over are forgotten.
    pub(crate) async fn begin_web_session(&mut self, new: &WebSession) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        sql::query("DELETE FROM web_session WHERE expires_ms <= $1 OR last_seen_ms <= $2")
            .bind(at)
            .bind(at - IDLE_MS)
            .execute(self.sql())
            .await?;
        sql::query(
            "DELETE FROM web_session WHERE actor_id = $1 AND id NOT IN
                 (SELECT id FROM web_session WHERE actor_id = $1 ORDER BY id DESC LIMIT $2)",
        )
        .bind(new.actor_id)
        .bind(MAX_SESSIONS - 1)
        .execute(self.sql())
        .await?;
        sql::query(
            "INSERT INTO web_session (id, account_id, actor_id, hash, provider, created_ms, authenticated_ms,
                                      last_seen_ms, expires_ms, address, user_agent)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(new.id)
        .bind(account.as_uuid())
        .bind(new.actor_id)
        .bind(new.hash.as_slice())
        .bind(&new.provider)
        .bind(new.created_ms)
        .bind(new.authenticated_ms)
        .bind(new.last_seen_ms)
        .bind(new.expires_ms)
        .bind(&new.address)
        .bind(&new.user_agent)
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({ "provider": new.provider, "session": new.id });
        self.audit("web_session.begin", ("actor", Some(new.actor_id)), detail).await
    }

    /// Notes that a session is used.
    pub(crate) async fn touch_web_session(&mut self, id: Uuid) -> Result<(), StoreError> {
        let at = self.at_ms();
        sql::query("UPDATE web_session SET last_seen_ms = $1 WHERE id = $2")
            .bind(at)
            .bind(id)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Ends a session.
    pub(crate) async fn end_web_session(&mut self, id: Uuid) -> Result<(), StoreError> {
        let account = self.account();
        let actor: Option<Uuid> =
            sql::query_scalar("DELETE FROM web_session WHERE account_id = $1 AND id = $2 RETURNING actor_id")
                .bind(account.as_uuid())
                .bind(id)
                .fetch_optional(self.sql())
                .await?;
        let actor = actor.ok_or(StoreError::NotFound("session"))?;
        let detail = serde_json::json!({ "session": id });
        self.audit("web_session.end", ("actor", Some(actor)), detail).await
    }

    /// Ends every session of an actor.
    pub(crate) async fn end_web_sessions_of(&mut self, actor: ActorId) -> Result<(), StoreError> {
        sql::query("DELETE FROM web_session WHERE actor_id = $1")
            .bind(actor.as_uuid())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
