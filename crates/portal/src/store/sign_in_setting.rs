//! What an account lays down about signing in.

use sqlx::FromRow;

use super::{Change, Store, StoreError, sql};

/// The settings.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct SignInSetting {
    /// How people and devices reach the portal, without a slash at the end. Absent when it was
    /// set up before this was kept.
    pub(crate) public_url: Option<String>,
    /// How long a device stays signed in, in days: 1 to 366.
    pub(crate) device_session_days: i64,
    /// Devices on which one person may be signed in at a time; any number when absent.
    pub(crate) devices_per_user: Option<i64>,
}

impl Default for SignInSetting {
    fn default() -> Self {
        Self { public_url: None, device_session_days: 30, devices_per_user: None }
    }
}

impl SignInSetting {
    /// How long a device stays signed in, in milliseconds.
    pub(crate) const fn device_session_ms(&self) -> i64 {
        self.device_session_days * 24 * 60 * 60 * 1000
    }
}

impl Store {
    /// The settings of the account.
    pub(crate) async fn sign_in_setting(&self) -> Result<SignInSetting, StoreError> {
        let setting = sql::query_as("SELECT * FROM sign_in_setting WHERE account_id = $1")
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
            "INSERT INTO sign_in_setting (account_id, public_url, device_session_days, devices_per_user)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (account_id) DO UPDATE SET public_url = excluded.public_url,
                 device_session_days = excluded.device_session_days,
                 devices_per_user = excluded.devices_per_user",
        )
        .bind(account.as_uuid())
        .bind(setting.public_url.clone())
        .bind(setting.device_session_days)
        .bind(setting.devices_per_user)
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({
            "public_url": setting.public_url, "device_session_days": setting.device_session_days,
            "devices_per_user": setting.devices_per_user,
        });
        self.audit("sign_in.settings", ("account", Some(account.as_uuid())), detail).await
    }
}
