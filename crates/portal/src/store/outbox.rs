//! Reading the outbox.

use std::sync::atomic::Ordering;

use super::{Event, Store, StoreError};

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
            sqlx::query_as("SELECT seq, event FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(self.delivered.load(Ordering::Acquire))
                .bind(BATCH)
                .fetch_all(&self.reader)
                .await?;
        Ok(rows.into_iter().map(|(seq, text)| (seq, serde_json::from_str(&text).ok())).collect())
    }

    /// Notes that everything up to `seq` was delivered.
    pub(crate) fn mark_delivered(&self, seq: i64) {
        self.delivered.fetch_max(seq, Ordering::AcqRel);
    }
}
