//! The outbox: what the peers are still to be told.

use std::sync::atomic::Ordering;

use adit_policy::AccountId;

use super::{Event, Store, StoreError, sql};

/// How many events are read at once.
const BATCH: i64 = 256;

/// Writes events down, in this order, however many there are in one statement.
pub(super) async fn write(
    tx: &mut sql::Transaction,
    account: AccountId,
    events: &[String],
) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let statement = sql::Statement::of_both(
        "INSERT INTO outbox (account_id, event) SELECT $1, value FROM json_each($2) ORDER BY key",
        "INSERT INTO outbox (account_id, event)
         SELECT $1, event FROM unnest($2) WITH ORDINALITY AS told (event, place) ORDER BY place",
    );
    sql::query(statement).bind(account.as_uuid()).bind(events.to_vec()).execute(tx).await?;
    Ok(())
}

impl Store {
    /// Waits until a change may have been committed.
    pub(crate) async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Events that were not yet delivered, in commit order, at most a batch of them.
    ///
    /// An event that cannot be read (written by a newer portal) comes back as `None`: it is
    /// skipped, loudly, rather than holding up the rest.
    pub(crate) async fn undelivered(&self) -> Result<Vec<(i64, Option<Event>)>, StoreError> {
        let rows: Vec<(i64, String)> =
            sql::query_as("SELECT seq, event FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2")
                .bind(self.delivered.load(Ordering::Acquire))
                .bind(BATCH)
                .fetch_all(&self.reader)
                .await?;
        Ok(rows.into_iter().map(|(seq, text)| (seq, serde_json::from_str(&text).ok())).collect())
    }

    /// The last event whose effects a reading transaction sees.
    pub(super) async fn last_event(&self, tx: &mut sql::Transaction) -> Result<i64, StoreError> {
        // Rows that are gone already were delivered.
        let delivered = self.delivered.load(Ordering::Acquire);
        let last: Option<i64> = match tx {
            sql::Transaction::Sqlite(_) => {
                sql::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
                    .fetch_optional(tx)
                    .await?
            }
            // A sequence is outside of transactions: it may be ahead of what this one sees.
            sql::Transaction::Postgres(_) => {
                sql::query_scalar("SELECT max(seq) FROM outbox").fetch_one(tx).await?
            }
        };
        Ok(last.unwrap_or(0).max(delivered))
    }

    /// Notes that everything up to `seq` was delivered.
    pub(crate) fn mark_delivered(&self, seq: i64) {
        self.delivered.fetch_max(seq, Ordering::AcqRel);
    }
}
