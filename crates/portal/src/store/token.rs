//! Tokens: what clients, gateways, relays and API users present.
//!
//! Only a keyed hash of the secret is stored, see [`crate::credential`].

use std::str::FromStr;

use adit_policy::{ActorId, GatewayId, SiteId, TokenId};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Page, Revoke, Store, StoreError, sql};

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl TokenKind {
    /// The name inside the token and in the database.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Api => "api",
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
            _ => Err(StoreError::Invalid("there is no such kind of token".to_owned())),
        }
    }
}

/// A token as it is stored.
#[derive(Debug, Clone, Serialize, FromRow)]
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
    /// Who authenticated its user; absent when an administrator made it.
    pub(crate) provider: Option<String>,
    /// When its user was authenticated; when it was created if absent.
    pub(crate) authenticated_ms: Option<i64>,
}

impl Token {
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
        self.audit("token.create", ("token", Some(new.id.as_uuid())), detail).await
    }

    /// Revokes a token: its sessions and what rests on them end. Twice is no error.
    pub(crate) async fn revoke_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let known = sql::query(
            "UPDATE token SET revoked_ms = coalesce(revoked_ms, $1) WHERE account_id = $2 AND id = $3",
        )
        .bind(at)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .execute(self.sql())
        .await?;
        if known == 0 {
            return Err(StoreError::NotFound("token"));
        }
        self.revoke(Revoke::Token(id)).await?;
        self.tell(&Event::TokenRevoked { id }).await?;
        self.audit("token.revoke", ("token", Some(id.as_uuid())), serde_json::json!({})).await
    }

    /// Whether a token is neither revoked nor expired, inside the change that rests on it.
    pub(crate) async fn token_is_good(&mut self, id: TokenId) -> Result<bool, StoreError> {
        let at = self.at_ms();
        let good = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM token
                            WHERE id = $1 AND revoked_ms IS NULL AND coalesce(expires_ms > $2, TRUE))",
        );
        Ok(good.bind(id.as_uuid()).bind(at).fetch_one(self.sql()).await?)
    }

    /// Whether the token with which a gateway signed in is still good.
    pub(crate) async fn gateway_is_admitted(&mut self, id: GatewayId) -> Result<bool, StoreError> {
        let token: Option<Option<Uuid>> = sql::query_scalar("SELECT token_id FROM device WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_optional(self.sql())
            .await?;
        match token.flatten() {
            Some(token) => self.token_is_good(TokenId::from_uuid(token)).await,
            None => Ok(false),
        }
    }

    /// Revokes every token of an actor.
    pub(super) async fn revoke_actor_tokens(&mut self, actor: ActorId) -> Result<(), StoreError> {
        let ids: Vec<Uuid> =
            sql::query_scalar("SELECT id FROM token WHERE actor_id = $1 AND revoked_ms IS NULL")
                .bind(actor.as_uuid())
                .fetch_all(self.sql())
                .await?;
        for id in ids {
            self.revoke_token(TokenId::from_uuid(id)).await?;
        }
        Ok(())
    }

    /// Revokes every gateway token of a site.
    pub(super) async fn revoke_site_tokens(&mut self, site: SiteId) -> Result<(), StoreError> {
        let ids: Vec<Uuid> =
            sql::query_scalar("SELECT id FROM token WHERE site_id = $1 AND revoked_ms IS NULL")
                .bind(site.as_uuid())
                .fetch_all(self.sql())
                .await?;
        for id in ids {
            self.revoke_token(TokenId::from_uuid(id)).await?;
        }
        Ok(())
    }

    /// Revokes the API tokens of `name`, before bootstrap makes a new one.
    pub(crate) async fn revoke_tokens_named(
        &mut self,
        kind: TokenKind,
        name: &str,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> =
            sql::query_scalar("SELECT id FROM token WHERE kind = $1 AND name = $2 AND revoked_ms IS NULL")
                .bind(kind.name())
                .bind(name)
                .fetch_all(self.sql())
                .await?;
        for id in ids {
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
