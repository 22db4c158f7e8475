//! Devices on which people are signed in: tokens of the kind `client` that carry who vouched for
//! the actor, and when.
//!
//! Such a token is given for an approval (`device_sign_in`), and renewed by the next one, with
//! everything that rests on it.

use adit_policy::{ActorId, ClientId, TokenId};
use sqlx::FromRow;
use uuid::Uuid;

use super::condition::Review;
use super::{Approval, Change, Event, NewToken, Store, StoreError, Token, TokenKind, sql};

/// A token that a device was given.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DeviceSession {
    /// The token.
    #[sqlx(flatten)]
    pub(crate) token: Token,
    /// The last device that presented it.
    pub(crate) device_id: Option<Uuid>,
}

impl Store {
    /// Devices on which an actor is signed in, the oldest first; at most 500.
    pub(crate) async fn device_sessions_of(
        &self,
        actor: ActorId,
        now_ms: i64,
    ) -> Result<Vec<DeviceSession>, StoreError> {
        Ok(sql::query_as(
            "SELECT token.*, (SELECT device.id FROM device WHERE device.token_id = token.id
                              ORDER BY device.last_seen_ms DESC LIMIT 1) AS device_id
             FROM token
             WHERE actor_id = $1 AND kind = 'client' AND provider IS NOT NULL AND revoked_ms IS NULL
               AND coalesce(expires_ms > $2, TRUE)
             ORDER BY token.id LIMIT 500",
        )
        .bind(actor.as_uuid())
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await?)
    }
}

impl Change {
    /// What whoever approved is called, unless they are disabled by now.
    pub(crate) async fn approver(&mut self, approval: &Approval) -> Result<Option<String>, StoreError> {
        Ok(sql::query_scalar("SELECT name FROM actor WHERE id = $1 AND enabled AND kind = 'user'")
            .bind(approval.actor.as_uuid())
            .fetch_optional(self.sql())
            .await?)
    }

    /// Whether another device of an actor may sign in.
    pub(crate) async fn has_room_for_device(
        &mut self,
        actor: ActorId,
        most: Option<i64>,
    ) -> Result<bool, StoreError> {
        let Some(most) = most else { return Ok(true) };
        let at = self.at_ms();
        let devices: i64 = sql::query_scalar(
            "SELECT count(*) FROM token
             WHERE actor_id = $1 AND kind = 'client' AND provider IS NOT NULL AND revoked_ms IS NULL
               AND coalesce(expires_ms > $2, TRUE)",
        )
        .bind(actor.as_uuid())
        .bind(at)
        .fetch_one(self.sql())
        .await?;
        Ok(devices < most)
    }

    /// Gives an approved device a new token.
    pub(crate) async fn issue_device_token(
        &mut self,
        approval: &Approval,
        (id, hash): (TokenId, [u8; 32]),
        expires_ms: i64,
    ) -> Result<(), StoreError> {
        let new = NewToken {
            id,
            kind: TokenKind::Client,
            name: approval.sign_in.device_name.clone(),
            hash,
            actor: Some(approval.actor),
            site: None,
            expires_ms: Some(expires_ms),
        };
        self.create_token(&new).await?;
        self.set_authentication(id, approval, expires_ms).await?;
        self.spend_code(approval.sign_in.id, Some(id)).await
    }

    /// Lets a live token go on with a new end and a new age. `false` when it is not a live one of
    /// the actor who approved.
    pub(crate) async fn renew_device_token(
        &mut self,
        approval: &Approval,
        id: TokenId,
        expires_ms: i64,
    ) -> Result<bool, StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let is_live: bool = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM token
                            WHERE account_id = $1 AND id = $2 AND actor_id = $3 AND kind = 'client'
                              AND revoked_ms IS NULL AND coalesce(expires_ms > $4, TRUE))",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .bind(approval.actor.as_uuid())
        .bind(at)
        .fetch_one(self.sql())
        .await?;
        if !is_live {
            return Ok(false);
        }
        self.set_authentication(id, approval, expires_ms).await?;
        // Another provider may have vouched than before.
        let devices: Vec<Uuid> =
            sql::query_scalar("SELECT id FROM device WHERE token_id = $1 AND kind = 'client'")
                .bind(id.as_uuid())
                .fetch_all(self.sql())
                .await?;
        for device in devices {
            self.review(Review::Client(ClientId::from_uuid(device))).await?;
        }
        self.tell(&Event::TokenRenewed { id })?;
        // The token is not the code's: a second use of the code leaves it alone.
        self.spend_code(approval.sign_in.id, None).await?;
        let detail = serde_json::json!({ "provider": approval.provider, "expires_ms": expires_ms });
        self.audit("token.renew", ("token", Some(id.as_uuid())), detail).await?;
        Ok(true)
    }

    async fn set_authentication(
        &mut self,
        id: TokenId,
        approval: &Approval,
        expires_ms: i64,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE token SET provider = $1, authenticated_ms = $2, expires_ms = $3 WHERE id = $4")
            .bind(&approval.provider)
            .bind(approval.authenticated_ms)
            .bind(expires_ms)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
