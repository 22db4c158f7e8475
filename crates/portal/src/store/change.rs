//! One change: a transaction that carries its audit row and the events that tell the peers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adit_policy::AccountId;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Event, Store, StoreError, sql};
use crate::clock;

/// Who makes a change, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct By {
    /// The name of an actor or device, or `system`.
    pub(crate) who: String,
    /// Where the request came from; empty for the portal itself.
    pub(crate) address: String,
}

impl By {
    /// The portal itself: expiry, bootstrap.
    pub(crate) fn system() -> Self {
        Self { who: "system".to_owned(), address: String::new() }
    }
}

/// A transaction in the making; dropping it undoes everything.
#[derive(Debug)]
pub(crate) struct Change {
    tx: sql::Transaction,
    /// Declared after `tx`, so that the dispatcher is woken after the transaction has ended.
    wake: WakeDispatcher,
    account: AccountId,
    at_ms: i64,
    by: By,
    events: usize,
}

/// Wakes the dispatchers of this node and the others when dropped: a request whose client went away while the commit was
/// under way must still be pushed.
#[derive(Debug)]
struct WakeDispatcher {
    here: Arc<Notify>,
    elsewhere: Arc<Notify>,
}

impl Drop for WakeDispatcher {
    fn drop(&mut self) {
        self.here.notify_one();
        self.elsewhere.notify_one();
    }
}

impl Change {
    pub(super) async fn begin(store: &Store, by: By) -> Result<Self, StoreError> {
        let wake = WakeDispatcher {
            here: Arc::clone(&store.committed),
            elsewhere: Arc::clone(&store.committed_here),
        };
        let mut tx = store.writer.begin_change().await?;
        if !store.is_shared() {
            // Delivered events leave with the next change, which saves a commit of their own.
            let delivered = store.delivered.load(Ordering::Acquire);
            sql::query("DELETE FROM outbox WHERE seq <= $1").bind(delivered).execute(&mut tx).await?;
        }
        Ok(Self { tx, wake, account: store.account, at_ms: clock::now_ms(), by, events: 0 })
    }

    /// Makes the change durable; the dispatcher then tells the peers.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, wake, .. } = self;
        tx.commit().await?;
        drop(wake);
        Ok(())
    }

    /// Tells the peers of something once this change is committed.
    pub(crate) async fn tell(&mut self, event: &Event) -> Result<(), StoreError> {
        let text = serde_json::to_string(event).map_err(|error| StoreError::Invalid(error.to_string()))?;
        sql::query("INSERT INTO outbox (account_id, event) VALUES ($1, $2)")
            .bind(self.account.as_uuid())
            .bind(text)
            .execute(&mut self.tx)
            .await?;
        self.events += 1;
        Ok(())
    }

    /// Writes the audit row of this change.
    pub(crate) async fn audit(
        &mut self,
        action: &str,
        subject: (&str, Option<Uuid>),
        detail: serde_json::Value,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO audit (id, account_id, at_ms, who, address, action, subject_kind, subject_id, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(Uuid::now_v7())
        .bind(self.account.as_uuid())
        .bind(self.at_ms)
        .bind(&self.by.who)
        .bind(&self.by.address)
        .bind(action)
        .bind(subject.0)
        .bind(subject.1)
        .bind(detail.to_string())
        .execute(&mut self.tx)
        .await?;
        Ok(())
    }

    pub(super) const fn sql(&mut self) -> &mut sql::Transaction {
        &mut self.tx
    }

    /// The account that the change belongs to.
    pub(crate) const fn account(&self) -> AccountId {
        self.account
    }

    pub(super) const fn set_account(&mut self, account: AccountId) {
        self.account = account;
    }

    /// When the change began, in Unix milliseconds: its rows all carry the same time.
    pub(crate) const fn at_ms(&self) -> i64 {
        self.at_ms
    }
}
