//! The audit log: who changed what, and when.

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Page, Store, StoreError, sql};

/// One entry.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct AuditRow {
    /// Names it; in the order of time.
    pub(crate) id: Uuid,
    /// When.
    pub(crate) at_ms: i64,
    /// Who.
    pub(crate) who: String,
    /// From where.
    pub(crate) address: String,
    /// What, as `noun.verb`.
    pub(crate) action: String,
    /// To what kind of thing.
    pub(crate) subject_kind: String,
    /// To which thing.
    pub(crate) subject_id: Option<Uuid>,
    /// The values.
    #[serde(serialize_with = "as_json")]
    #[schema(value_type = Object)]
    pub(crate) detail: String,
}

/// The stored text is JSON already.
fn as_json<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<serde_json::Value>(text).unwrap_or_default().serialize(serializer)
}

impl Store {
    /// Entries, newest first; `after` names the last entry of the page before.
    pub(crate) async fn audit(&self, page: Page) -> Result<Vec<AuditRow>, StoreError> {
        let before = page.after.unwrap_or(Uuid::max());
        Ok(sql::query_as("SELECT * FROM audit WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3")
            .bind(self.account.as_uuid())
            .bind(before)
            .bind(page.limit())
            .fetch_all(&self.reader)
            .await?)
    }
}

impl Change {
    /// Forgets entries from before `before_ms`, and says so in the log if there were any.
    pub(crate) async fn forget_audit(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        let account = self.account();
        let forgotten = sql::query("DELETE FROM audit WHERE account_id = $1 AND at_ms < $2")
            .bind(account.as_uuid())
            .bind(before_ms)
            .execute(self.sql())
            .await?;
        if forgotten > 0 {
            let detail = serde_json::json!({ "entries": forgotten, "before_ms": before_ms });
            self.audit("audit.forget", ("audit", None), detail).await?;
        }
        Ok(forgotten)
    }
}
