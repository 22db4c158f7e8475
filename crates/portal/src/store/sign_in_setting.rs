//! What an account lays down about signing in.

use sqlx::FromRow;

use super::{Change, Store, StoreError, sql};

/// The settings.
#[derive(Debug, Clone, Default, FromRow)]
pub(crate) struct SignInSetting {
    /// How people and devices reach the portal, without a slash at the end. Absent when it was
    /// set up before this was kept.
    pub(crate) public_url: Option<String>,
}

impl Store {
    /// The settings of the account.
    pub(crate) async fn sign_in_setting(&self) -> Result<SignInSetting, StoreError> {
        let setting = sql::query_as("SELECT public_url FROM sign_in_setting WHERE account_id = $1")
            .bind(self.account.as_uuid())
            .fetch_optional(&self.reader)
            .await?;
        Ok(setting.unwrap_or_default())
    }
}

impl Change {
    /// Replaces the settings of the account.
    pub(crate) async fn set_sign_in_setting(&mut self, setting: &SignInSetting) -> Result<(), StoreError> {
        let account = self.account();
        sql::query(
            "INSERT INTO sign_in_setting (account_id, public_url) VALUES ($1, $2)
             ON CONFLICT (account_id) DO UPDATE SET public_url = excluded.public_url",
        )
        .bind(account.as_uuid())
        .bind(setting.public_url.clone())
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({ "public_url": setting.public_url });
        self.audit("sign_in.settings", ("account", Some(account.as_uuid())), detail).await
    }
}
