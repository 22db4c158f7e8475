//! One change: domain rows, its entry in the audit log, and the events that tell the peers.

use std::sync::{Arc, OnceLock};

use adit_policy::AccountId;

use super::audit::seal::Sealer;
use super::commit::Turn;
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

/// A change in the making; dropping it undoes everything.
#[derive(Debug)]
pub(crate) struct Change {
    /// Taken by the commit.
    turn: Option<Turn>,
    account: AccountId,
    at_ms: i64,
    by: By,
    sealer: Arc<OnceLock<Sealer>>,
    /// What the peers are told of it. It is written once, with that of the other changes of the commit.
    events: Vec<String>,
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.abandon();
        }
    }
}

impl Change {
    pub(super) async fn begin(store: &Store, by: By) -> Result<Self, StoreError> {
        let turn = store.changes.turn().await?;
        let (account, at_ms, sealer) = (store.account, clock::now_ms(), Arc::clone(&store.sealer));
        Ok(Self { turn: Some(turn), account, at_ms, by, sealer, events: Vec::new() })
    }

    /// Makes the change durable, together with others that wait; the dispatcher then tells the
    /// peers.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        match self.turn.take() {
            Some(turn) => turn.commit(self.account, std::mem::take(&mut self.events)).await,
            None => Ok(()),
        }
    }

    /// Tells the peers of something once this change is committed.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<(), StoreError> {
        let text = serde_json::to_string(event).map_err(|error| StoreError::Invalid(error.to_string()))?;
        self.events.push(text);
        Ok(())
    }

    /// # Panics
    ///
    /// Never: the turn is there until the commit consumes the change.
    pub(super) fn sql(&mut self) -> &mut sql::Transaction {
        self.turn.as_mut().expect("a change has its turn until it is committed").sql()
    }

    /// Who makes it.
    pub(super) const fn by(&self) -> &By {
        &self.by
    }

    /// What seals the entries of the audit log; absent where the portal's secrets are not known.
    pub(super) fn sealer(&self) -> Option<&Sealer> {
        self.sealer.get()
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
