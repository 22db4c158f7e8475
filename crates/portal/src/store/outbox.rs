//! Reading the outbox.

use std::sync::atomic::Ordering;

use super::{Event, Store, StoreError, sql};

/// How many events are read at once.
const BATCH: i64 = 256;

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
