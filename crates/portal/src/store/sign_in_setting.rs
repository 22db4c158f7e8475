//! What an account lays down about signing in.

use sqlx::FromRow;

use super::{Change, Store, StoreError, sql};

/// How long a device stays signed in unless the account says otherwise: 7 days.
const DEVICE_SESSION_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// The settings.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct SignInSetting {
    /// How people and devices reach the portal, without a slash at the end; as requests say
    /// when absent.
    pub(crate) public_url: Option<String>,
    /// How long a device stays signed in.
    pub(crate) device_session_ms: i64,
    /// Devices that one person may have; any number when absent.
    pub(crate) device_limit: Option<i64>,
}

impl Default for SignInSetting {
    fn default() -> Self {
        Self { public_url: None, device_session_ms: DEVICE_SESSION_MS, device_limit: None }
    }
}

impl Store {
    /// The settings of the account.
    pub(crate) async fn sign_in_setting(&self) -> Result<SignInSetting, StoreError> {
        let setting = sql::query_as(
            "SELECT public_url, device_session_ms, device_limit FROM sign_in_setting WHERE account_id = $1",
        );
        let setting = setting.bind(self.account.as_uuid()).fetch_optional(&self.reader).await?;
        Ok(setting.unwrap_or_default())
    }
}

impl Change {
    /// Replaces the settings of the account.
    pub(crate) async fn set_sign_in_setting(&mut self, setting: &SignInSetting) -> Result<(), StoreError> {
        let account = self.account();
        sql::query(
            "INSERT INTO sign_in_setting (account_id, public_url, device_session_ms, device_limit)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (account_id) DO UPDATE SET public_url = $2, device_session_ms = $3, device_limit = $4",
        )
        .bind(account.as_uuid())
        .bind(setting.public_url.clone())
        .bind(setting.device_session_ms)
        .bind(setting.device_limit)
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({
            "public_url": setting.public_url, "device_session_ms": setting.device_session_ms,
            "device_limit": setting.device_limit,
        });
        self.audit("sign_in.settings", ("account", Some(account.as_uuid())), detail).await
    }
}
