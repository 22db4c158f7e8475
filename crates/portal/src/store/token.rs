//! Tokens: what clients, gateways, relays and API users present.
//!
//! Only a keyed hash of the secret is stored, see [`crate::credential`].

use std::str::FromStr;

use adit_policy::{ActorId, SiteId, TokenId};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Revoke, Store, StoreError, sql};
use crate::clock;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenKind {
    /// The client session of an actor.
    Client,
    /// Gateway sessions of a site.
    Gateway,
    /// Relay sessions.
    Relay,
    /// The JSON API, as an actor.
    Api,
    /// Provisioning by a directory.
    Scim,
}

impl TokenKind {
    /// The name inside the token and in the database.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Api => "api",
            Self::Scim => "scim",
        }
    }
}

impl FromStr for TokenKind {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "client" => Ok(Self::Client),
            "gateway" => Ok(Self::Gateway),
            "relay" => Ok(Self::Relay),
            "api" => Ok(Self::Api),
            "scim" => Ok(Self::Scim),
            _ => Err(StoreError::Invalid("there is no such kind of token".to_owned())),
        }
    }
}

/// A token as it is stored.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct Token {
    /// Names it; part of the token's text.
    pub(crate) id: Uuid,
    /// See [`TokenKind`].
    pub(crate) kind: String,
    /// Shown to people.
    pub(crate) name: String,
    /// The keyed hash of its secret.
    #[serde(skip)]
    pub(crate) hash: Vec<u8>,
    /// Whose it is (client, API).
    pub(crate) actor_id: Option<Uuid>,
    /// Which site it is for (gateway).
    pub(crate) site_id: Option<Uuid>,
    /// When it was created.
    pub(crate) created_ms: i64,
    /// When it ends; never when absent.
    pub(crate) expires_ms: Option<i64>,
    /// When it was revoked.
    pub(crate) revoked_ms: Option<i64>,
    /// When it was last presented, to the minute.
    pub(crate) last_used_ms: Option<i64>,
    /// What it may be used for, separated by spaces; everything that its actor may do when absent (API).
    pub(crate) scopes: Option<String>,
    /// Who vouched for the actor when a device signed in: `local`, or the name of a provider.
    /// Absent when an administrator made the token.
    pub(crate) provider: Option<String>,
    /// When the actor last proved who they are; absent when an administrator made the token.
    pub(crate) authenticated_ms: Option<i64>,
}

impl Token {
    /// Whether it ends some time and begins later than now, because the clock was set back: it would last for longer
    /// than it was meant to.
    pub(crate) fn is_ahead(&self, now_ms: i64) -> bool {
        let began_ms = self.authenticated_ms.unwrap_or(self.created_ms);
        self.expires_ms.is_some() && clock::is_ahead(began_ms, now_ms)
    }

    /// Whether only owners touch it, unless it is their own: tokens that change the portal itself.
    pub(crate) fn is_for_administration(&self) -> bool {
        [TokenKind::Api.name(), TokenKind::Scim.name()].contains(&self.kind.as_str())
    }

    /// Its id.
    pub(crate) const fn token_id(&self) -> TokenId {
        TokenId::from_uuid(self.id)
    }
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    /// Its id.
    pub(crate) id: TokenId,
    /// What it may be used for.
    pub(crate) kind: TokenKind,
    /// Shown to people.
    pub(crate) name: String,
    /// The keyed hash of its secret.
    pub(crate) hash: [u8; 32],
    /// Whose it is (client, API).
    pub(crate) actor: Option<ActorId>,
    /// Which site it is for (gateway).
    pub(crate) site: Option<SiteId>,
    /// When it ends; never when absent.
    pub(crate) expires_ms: Option<i64>,
}

impl Store {
    /// Tokens in the order of their creation.
    pub(crate) async fn tokens(&self, page: Page) -> Result<Vec<Token>, StoreError> {
        Ok(sql::query_as("SELECT * FROM token WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(self.account.as_uuid())
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.reader)
            .await?)
    }

    /// One token, also a revoked or expired one.
    pub(crate) async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        Ok(sql::query_as("SELECT * FROM token WHERE account_id = $1 AND id = $2")
            .bind(self.account.as_uuid())
            .bind(id.as_uuid())
            .fetch_optional(&self.reader)
            .await?)
    }
}

impl Change {
    /// Stores a new token.
    pub(crate) async fn create_token(&mut self, new: &NewToken) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        sql::query(
            "INSERT INTO token (id, account_id, kind, name, hash, actor_id, site_id, created_ms, expires_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(new.id.as_uuid())
        .bind(account.as_uuid())
        .bind(new.kind.name())
        .bind(&new.name)
        .bind(new.hash.as_slice())
        .bind(new.actor.map(|id| id.as_uuid()))
        .bind(new.site.map(|id| id.as_uuid()))
        .bind(at)
        .bind(new.expires_ms)
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({
            "name": new.name, "kind": new.kind, "actor": new.actor, "site": new.site,
            "expires_ms": new.expires_ms,
        });
        self.audit_change("token.create", ("token", new.id.as_uuid()), Json::Null, detail).await
    }

    /// Revokes a token: its sessions and what rests on them end. Twice is no error.
    pub(crate) async fn revoke_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let known: Option<Token> = sql::query_as(
            "UPDATE token SET revoked_ms = coalesce(revoked_ms, $1) WHERE account_id = $2 AND id = $3
             RETURNING *",
        )
        .bind(at)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let token = known.ok_or(StoreError::NotFound("token"))?;
        let before = serde_json::json!({
            "name": token.name, "kind": token.kind, "actor": token.actor_id, "site": token.site_id,
            "expires_ms": token.expires_ms,
        });
        self.revoke(Revoke::Token(id)).await?;
        self.tell(&Event::TokenRevoked { id })?;
        self.audit_change("token.revoke", ("token", id.as_uuid()), before, Json::Null).await
    }

    /// Limits a token that was just stored to these scopes.
    pub(crate) async fn set_token_scopes(&mut self, id: TokenId, scopes: String) -> Result<(), StoreError> {
        let account = self.account();
        sql::query("UPDATE token SET scopes = $1 WHERE account_id = $2 AND id = $3")
            .bind(scopes)
            .bind(account.as_uuid())
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Lets `old` end not later than `until_ms`, because `new` takes its place. Both are good until then.
    pub(crate) async fn replace_token(
        &mut self,
        old: TokenId,
        new: &NewToken,
        until_ms: i64,
    ) -> Result<(), StoreError> {
        self.create_token(new).await?;
        let (account, at) = (self.account(), self.at_ms());
        let replaced = sql::query(
            "UPDATE token SET expires_ms = CASE WHEN expires_ms < $1 THEN expires_ms ELSE $1 END
             WHERE account_id = $2 AND id = $3 AND revoked_ms IS NULL AND coalesce(expires_ms > $4, TRUE)",
        )
        .bind(until_ms)
        .bind(account.as_uuid())
        .bind(old.as_uuid())
        .bind(at)
        .execute(self.sql())
        .await?;
        if replaced == 0 {
            return Err(StoreError::Conflict("the token has ended; make a new one".to_owned()));
        }
        let detail = serde_json::json!({ "by": new.id, "until_ms": until_ms });
        self.audit("token.replace", ("token", Some(old.as_uuid())), detail).await
    }

    /// Revokes every token of an actor.
    pub(super) async fn revoke_actor_tokens(&mut self, actor: ActorId) -> Result<(), StoreError> {
        let found = sql::query_scalar("SELECT id FROM token WHERE actor_id = $1 AND revoked_ms IS NULL");
        self.revoke_found(found.bind(actor.as_uuid())).await
    }

    /// Revokes every gateway token of a site.
    pub(super) async fn revoke_site_tokens(&mut self, site: SiteId) -> Result<(), StoreError> {
        let found = sql::query_scalar("SELECT id FROM token WHERE site_id = $1 AND revoked_ms IS NULL");
        self.revoke_found(found.bind(site.as_uuid())).await
    }

    /// Revokes the API tokens of `name`, before bootstrap makes a new one.
    pub(crate) async fn revoke_tokens_named(
        &mut self,
        kind: TokenKind,
        name: &str,
    ) -> Result<(), StoreError> {
        let found =
            sql::query_scalar("SELECT id FROM token WHERE kind = $1 AND name = $2 AND revoked_ms IS NULL");
        self.revoke_found(found.bind(kind.name()).bind(name)).await
    }

    /// Revokes the tokens of devices for which a provider has vouched, when it may no longer.
    pub(super) async fn revoke_tokens_of_provider(&mut self, provider: &str) -> Result<(), StoreError> {
        let account = self.account();
        let found = sql::query_scalar(
            "SELECT id FROM token WHERE account_id = $1 AND provider = $2 AND revoked_ms IS NULL",
        );
        self.revoke_found(found.bind(account.as_uuid()).bind(provider)).await
    }

    async fn revoke_found(&mut self, found: sql::ScalarQuery<Uuid>) -> Result<(), StoreError> {
        for id in found.fetch_all(self.sql()).await? {
            self.revoke_token(TokenId::from_uuid(id)).await?;
        }
        Ok(())
    }

    /// Notes that a token was presented.
    pub(crate) async fn touch_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        let at = self.at_ms();
        sql::query("UPDATE token SET last_used_ms = $1 WHERE id = $2")
            .bind(at)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
