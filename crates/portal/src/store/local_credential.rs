//! What people sign in with here: password, authenticator, recovery codes, and the
//! link that sets them.

use adit_policy::ActorId;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Actor, Change, Store, StoreError, sql};

/// The sign-in of a person.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct LocalCredential {
    /// Argon2id, as a PHC string.
    pub(crate) password_hash: String,
    /// The authenticator's secret, sealed.
    pub(crate) totp_sealed: String,
    /// The step of the last code that was accepted.
    pub(crate) totp_step: i64,
}

/// A link that sets a [`LocalCredential`].
#[derive(Debug, Clone, FromRow)]
pub(crate) struct WelcomeLink {
    /// Names it; part of the link.
    pub(crate) id: Uuid,
    /// Whose credential it sets.
    pub(crate) actor_id: Uuid,
    /// The keyed hash of the link's secret.
    pub(crate) hash: Vec<u8>,
    /// When it ends.
    pub(crate) expires_ms: i64,
}

impl Store {
    /// The enabled person of this name, and how they sign in here.
    pub(crate) async fn local_credential(
        &self,
        name: &str,
    ) -> Result<Option<(Actor, LocalCredential)>, StoreError> {
        let actor = self.person_named(name).await?.filter(|actor| actor.enabled);
        let Some(actor) = actor else { return Ok(None) };
        let credential: Option<LocalCredential> = sql::query_as(
            "SELECT password_hash, totp_sealed, totp_step FROM local_credential WHERE actor_id = $1",
        )
        .bind(actor.id)
        .fetch_optional(&self.reader)
        .await?;
        Ok(credential.map(|credential| (actor, credential)))
    }

    /// A link, also an expired one.
    pub(crate) async fn welcome_link(&self, id: Uuid) -> Result<Option<WelcomeLink>, StoreError> {
        Ok(sql::query_as("SELECT id, actor_id, hash, expires_ms FROM welcome_link WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?)
    }
}

impl Change {
    /// Makes a link for an actor; the ones before are worth nothing any more.
    pub(crate) async fn create_welcome_link(&mut self, link: &WelcomeLink) -> Result<(), StoreError> {
        sql::query("DELETE FROM welcome_link WHERE actor_id = $1")
            .bind(link.actor_id)
            .execute(self.sql())
            .await?;
        sql::query("INSERT INTO welcome_link (id, actor_id, hash, expires_ms) VALUES ($1, $2, $3, $4)")
            .bind(link.id)
            .bind(link.actor_id)
            .bind(link.hash.as_slice())
            .bind(link.expires_ms)
            .execute(self.sql())
            .await?;
        let detail = serde_json::json!({ "expires_ms": link.expires_ms });
        self.audit("welcome_link.create", ("actor", Some(link.actor_id)), detail).await
    }

    /// Whether somebody may choose how they sign in.
    pub(crate) async fn is_enabled_person(&mut self, actor: ActorId) -> Result<bool, StoreError> {
        let account = self.account();
        let found: Option<bool> = sql::query_scalar(
            "SELECT enabled AND kind = 'user' FROM actor WHERE account_id = $1 AND id = $2",
        )
        .bind(account.as_uuid())
        .bind(actor.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        found.ok_or(StoreError::NotFound("actor"))
    }

    /// Takes a link, once. `false` when it was used already or its time is over.
    pub(crate) async fn take_welcome_link(&mut self, id: Uuid) -> Result<bool, StoreError> {
        let at = self.at_ms();
        let taken = sql::query("DELETE FROM welcome_link WHERE id = $1 AND expires_ms > $2")
            .bind(id)
            .bind(at)
            .execute(self.sql())
            .await?;
        Ok(taken == 1)
    }

    /// Sets how a person signs in. Sessions that rest on what was before end.
    pub(crate) async fn set_local_credential(
        &mut self,
        actor: ActorId,
        credential: &LocalCredential,
        recovery: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        let at = self.at_ms();
        sql::query("DELETE FROM local_credential WHERE actor_id = $1")
            .bind(actor.as_uuid())
            .execute(self.sql())
            .await?;
        sql::query(
            "INSERT INTO local_credential (actor_id, password_hash, totp_sealed, totp_step, changed_ms)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(actor.as_uuid())
        .bind(&credential.password_hash)
        .bind(&credential.totp_sealed)
        .bind(credential.totp_step)
        .bind(at)
        .execute(self.sql())
        .await?;
        for hash in recovery {
            sql::query("INSERT INTO recovery_code (actor_id, hash) VALUES ($1, $2)")
                .bind(actor.as_uuid())
                .bind(hash.as_slice())
                .execute(self.sql())
                .await?;
        }
        self.end_web_sessions_of(actor).await?;
        let subject = ("actor", Some(actor.as_uuid()));
        self.audit("local_credential.set", subject, serde_json::json!({})).await
    }

    /// Accepts the code of a step, once. `false` when one of this step or a later one was accepted.
    pub(crate) async fn take_totp_step(&mut self, actor: ActorId, step: i64) -> Result<bool, StoreError> {
        let taken =
            sql::query("UPDATE local_credential SET totp_step = $1 WHERE actor_id = $2 AND totp_step < $1")
                .bind(step)
                .bind(actor.as_uuid())
                .execute(self.sql())
                .await?;
        Ok(taken == 1)
    }

    /// Accepts a recovery code, once.
    pub(crate) async fn take_recovery_code(
        &mut self,
        actor: ActorId,
        hash: &[u8; 32],
    ) -> Result<bool, StoreError> {
        let taken = sql::query("DELETE FROM recovery_code WHERE actor_id = $1 AND hash = $2")
            .bind(actor.as_uuid())
            .bind(hash.as_slice())
            .execute(self.sql())
            .await?;
        if taken == 1 {
            let subject = ("actor", Some(actor.as_uuid()));
            self.audit("recovery_code.use", subject, serde_json::json!({})).await?;
        }
        Ok(taken == 1)
    }
}
