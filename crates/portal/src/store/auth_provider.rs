//! OpenID Connect providers, as the owner sets them up.

use adit_policy::{Among, Conditions, ProviderName};
use serde_json::{Value as Json, json};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Page, Store, StoreError, sql};
use crate::web::LOCAL;

/// Providers of one account.
const MOST_PROVIDERS: i64 = 20;

/// A provider as it is stored.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct AuthProvider {
    /// Names it.
    pub(crate) id: Uuid,
    /// What sessions call it; unique, and never another.
    pub(crate) name: String,
    /// Its issuer identifier, exactly as its ID tokens say it.
    pub(crate) issuer: String,
    /// What it calls this portal.
    pub(crate) client_id: String,
    /// The secret for its token endpoint, sealed; absent for a public client.
    pub(crate) client_secret_sealed: Option<String>,
    /// Scopes that are asked for, separated by spaces; `openid` is among them.
    pub(crate) scopes: String,
    /// The claim that lists groups; without it the provider has none here.
    pub(crate) group_claim: Option<String>,
    /// Domains of the verified email address that somebody must have, separated by spaces; empty lets everyone in.
    pub(crate) email_domains: String,
    /// Certificates of the authority of its TLS, beside the well-known ones.
    pub(crate) ca_pem: Option<String>,
    /// Whether its subjects may be people whom SCIM made.
    pub(crate) links_directory: bool,
    /// Whether a subject that nobody knows becomes a user.
    pub(crate) just_in_time: bool,
    /// Whether anybody may sign in with it.
    pub(crate) enabled: bool,
    /// When it was set up.
    pub(crate) created_ms: i64,
    /// When its settings were changed last.
    pub(crate) changed_ms: i64,
}

/// What rests on a provider now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct ProviderUse {
    /// People who have signed in with it.
    pub(crate) people: i64,
    /// Sessions of browsers.
    pub(crate) browsers: i64,
    /// Sessions of devices.
    pub(crate) devices: i64,
    /// Groups that it keeps.
    pub(crate) groups: i64,
}

impl AuthProvider {
    /// Its settings for the audit log: everything but secrets.
    fn noted(&self) -> Json {
        json!({
            "name": self.name, "issuer": self.issuer, "client_id": self.client_id, "scopes": self.scopes,
            "has_secret": self.client_secret_sealed.is_some(), "group_claim": self.group_claim,
            "email_domains": self.email_domains, "has_ca": self.ca_pem.is_some(),
            "links_directory": self.links_directory, "just_in_time": self.just_in_time, "enabled": self.enabled,
        })
    }
}

impl Store {
    /// Providers in the order of their creation.
    pub(crate) async fn auth_providers(&self, page: Page) -> Result<Vec<AuthProvider>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM auth_provider WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(self.account.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// One provider.
    pub(crate) async fn auth_provider(&self, id: Uuid) -> Result<AuthProvider, StoreError> {
        sql::query_as("SELECT * FROM auth_provider WHERE account_id = $1 AND id = $2")
            .bind(self.account.as_uuid())
            .bind(id)
            .fetch_optional(&self.reader)
            .await?
            .ok_or(StoreError::NotFound("provider"))
    }

    /// What rests on a provider at `now_ms`.
    pub(crate) async fn provider_use(&self, id: Uuid, now_ms: i64) -> Result<ProviderUse, StoreError> {
        sql::query_as(
            "SELECT (SELECT count(DISTINCT actor_id) FROM identity WHERE provider_id = provider.id) AS people,
                    (SELECT count(*) FROM web_session AS session
                     WHERE session.account_id = provider.account_id AND session.provider = provider.name
                       AND session.expires_ms > $3) AS browsers,
                    (SELECT count(*) FROM token
                     WHERE token.account_id = provider.account_id AND token.provider = provider.name
                       AND token.revoked_ms IS NULL
                       AND (token.expires_ms IS NULL OR token.expires_ms > $3)) AS devices,
                    (SELECT count(*) FROM actor_group WHERE provider_id = provider.id) AS groups
             FROM auth_provider AS provider WHERE provider.account_id = $1 AND provider.id = $2",
        )
        .bind(self.account.as_uuid())
        .bind(id)
        .bind(now_ms)
        .fetch_optional(&self.reader)
        .await?
        .ok_or(StoreError::NotFound("provider"))
    }
}

impl Change {
    /// Sets a provider up.
    pub(crate) async fn create_auth_provider(&mut self, new: &AuthProvider) -> Result<(), StoreError> {
        let account = self.account();
        let count: i64 = sql::query_scalar("SELECT count(*) FROM auth_provider WHERE account_id = $1")
            .bind(account.as_uuid())
            .fetch_one(self.sql())
            .await?;
        if count >= MOST_PROVIDERS {
            return Err(StoreError::Conflict(format!("there are at most {MOST_PROVIDERS} providers")));
        }
        sql::query(
            "INSERT INTO auth_provider (id, account_id, name, issuer, client_id, client_secret_sealed, scopes, group_claim,
                                        email_domains, ca_pem, links_directory, just_in_time, enabled, created_ms, changed_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(new.id)
        .bind(account.as_uuid())
        .bind(&new.name)
        .bind(&new.issuer)
        .bind(&new.client_id)
        .bind(new.client_secret_sealed.clone())
        .bind(&new.scopes)
        .bind(new.group_claim.clone())
        .bind(&new.email_domains)
        .bind(new.ca_pem.clone())
        .bind(new.links_directory)
        .bind(new.just_in_time)
        .bind(new.enabled)
        .bind(new.created_ms)
        .bind(new.changed_ms)
        .execute(self.sql())
        .await?;
        self.audit_change("provider.create", ("provider", new.id), Json::Null, new.noted()).await
    }

    /// Replaces the settings of a provider, but not its name. Sessions that rest on it end when it is disabled.
    pub(crate) async fn update_auth_provider(&mut self, now: &AuthProvider) -> Result<(), StoreError> {
        let before = self.expect_auth_provider(now.id).await?;
        let at = self.at_ms();
        sql::query(
            "UPDATE auth_provider SET client_id = $1, client_secret_sealed = $2, scopes = $3, group_claim = $4,
                 email_domains = $5, ca_pem = $6, links_directory = $7, just_in_time = $8, enabled = $9, changed_ms = $10
             WHERE id = $11",
        )
        .bind(&now.client_id)
        .bind(now.client_secret_sealed.clone())
        .bind(&now.scopes)
        .bind(now.group_claim.clone())
        .bind(&now.email_domains)
        .bind(now.ca_pem.clone())
        .bind(now.links_directory)
        .bind(now.just_in_time)
        .bind(now.enabled)
        // Nodes notice a change by this time: it must be another one, whatever the clock does.
        .bind(at.max(before.changed_ms + 1))
        .bind(now.id)
        .execute(self.sql())
        .await?;
        if !now.enabled {
            self.end_sign_ins_with(&before.name).await?;
        }
        self.audit_change("provider.update", ("provider", now.id), before.noted(), now.noted()).await
    }

    /// Forgets a provider, who its subjects are, and who is in its groups; the groups stay, with their policies.
    pub(crate) async fn delete_auth_provider(&mut self, id: Uuid) -> Result<(), StoreError> {
        let before = self.expect_auth_provider(id).await?;
        self.end_sign_ins_with(&before.name).await?;
        self.release_groups_of(id).await?;
        sql::query("DELETE FROM auth_provider WHERE id = $1").bind(id).execute(self.sql()).await?;
        self.audit_change("provider.delete", ("provider", id), before.noted(), Json::Null).await
    }

    /// One provider, while no other change can happen.
    pub(super) async fn expect_auth_provider(&mut self, id: Uuid) -> Result<AuthProvider, StoreError> {
        let account = self.account();
        sql::query_as("SELECT * FROM auth_provider WHERE account_id = $1 AND id = $2")
            .bind(account.as_uuid())
            .bind(id)
            .fetch_optional(self.sql())
            .await?
            .ok_or(StoreError::NotFound("provider"))
    }

    /// An error when nobody may sign in with a provider of this name.
    pub(crate) async fn expect_enabled_provider(&mut self, name: &str) -> Result<(), StoreError> {
        let account = self.account();
        let enabled: Option<bool> =
            sql::query_scalar("SELECT enabled FROM auth_provider WHERE account_id = $1 AND name = $2")
                .bind(account.as_uuid())
                .bind(name)
                .fetch_optional(self.sql())
                .await?;
        if enabled == Some(true) { Ok(()) } else { Err(StoreError::NotFound("provider")) }
    }

    /// An error when conditions name a provider that does not exist: misspelt, it would refuse everybody, or nobody.
    pub(super) async fn expect_providers(&mut self, conditions: &Conditions) -> Result<(), StoreError> {
        let named = match &conditions.auth_provider {
            None => return Ok(()),
            Some(Among::AnyOf(named) | Among::NoneOf(named)) => named,
        };
        let account = self.account();
        let known: Vec<String> = sql::query_scalar("SELECT name FROM auth_provider WHERE account_id = $1")
            .bind(account.as_uuid())
            .fetch_all(self.sql())
            .await?;
        let is_known = |name: &str| name == LOCAL || known.iter().any(|known| known == name);
        match named.iter().map(ProviderName::as_str).find(|name| !is_known(name)) {
            Some(name) => Err(StoreError::Invalid(format!("there is no sign-in provider `{name}`"))),
            None => Ok(()),
        }
    }

    /// Ends every session, of browsers and of devices, that rests on somebody's sign-in with a provider.
    async fn end_sign_ins_with(&mut self, provider: &str) -> Result<(), StoreError> {
        let account = self.account();
        self.revoke_tokens_of_provider(provider).await?;
        sql::query("DELETE FROM web_session WHERE account_id = $1 AND provider = $2")
            .bind(account.as_uuid())
            .bind(provider)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
