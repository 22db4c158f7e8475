//! Changes that wait together are committed together.
//!
//! Making a change durable costs a flush of the disk, and changes happen one after the other.
//! So the transaction of a change stays open while others are already waiting for their turn:
//! they go on in the same transaction, each behind a savepoint of its own, and one flush makes
//! all of them durable. Nobody is told that a change is done before that flush.
//!
//! ```text
//! turn:  A────┐ B──┐ C──┐ commit ┐ D────┐ commit
//!        BEGIN  savepoints        │ BEGIN
//! waiting: B C  │  D (behind the commit, which queued when A was done)
//! ```
//!
//! The commit stands in the same fair queue as the changes. It joins when the first change of
//! a group is done, so a group is whoever waited at that moment: nobody waits *for* a group to
//! fill, and a change that comes alone is committed at once. A group is closed early when it
//! has become large or old, so that the first in it, and other nodes, do not wait for long.
//!
//! A change that fails or is given up is rolled back to its savepoint and takes nothing else
//! with it. Where even that is impossible (the database has ended the transaction by itself,
//! the connection is lost), the whole group fails and everybody in it is told.
//!
//! Deliberately absent: reordering, and priorities. The order of turns is the order of the
//! outbox is the order of the commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit_policy::AccountId;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

use super::{StoreError, outbox, sql};

/// Changes that share one commit at most.
const LARGEST_GROUP: usize = 64;

/// A group that is older is closed when its current change is done.
const OLDEST_GROUP: Duration = Duration::from_millis(20);

/// How long a change waits for its turn.
const TURN_TIME: Duration = Duration::from_secs(10);

/// What everybody in a group is told, once.
type Outcome = Option<Result<(), Arc<str>>>;

/// The way to the one writing transaction.
#[derive(Debug)]
pub(super) struct Writer {
    pool: sql::Pool,
    turn: Arc<Mutex<Option<Group>>>,
    /// Changes that wait for their turn, for the decision whether to wait for them.
    waiting: AtomicUsize,
    commits: AtomicUsize,
    /// Wakes the dispatcher of this node.
    here: Arc<Notify>,
    /// Wakes the dispatchers of the others.
    elsewhere: Arc<Notify>,
    delivered: Arc<AtomicI64>,
}

/// Changes that will be committed together.
#[derive(Debug)]
struct Group {
    tx: sql::Transaction,
    began: Instant,
    changes: usize,
    /// What the peers are told, in the order of the changes.
    events: Vec<(AccountId, Vec<String>)>,
    outcome: watch::Sender<Outcome>,
    /// A task waits to commit it.
    has_closer: bool,
}

/// A change's turn: the transaction is its own until it is done.
#[derive(Debug)]
pub(super) struct Turn {
    writer: Arc<Writer>,
    group: OwnedMutexGuard<Option<Group>>,
    has_savepoint: bool,
}

/// A turn that whoever asked for it may give up before it has begun.
struct Beginning(Option<Turn>);

impl Drop for Beginning {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            turn.abandon();
        }
    }
}

/// Counts one who waits, also when it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    pub(super) fn new(
        pool: sql::Pool,
        here: Arc<Notify>,
        elsewhere: Arc<Notify>,
        delivered: Arc<AtomicI64>,
    ) -> Self {
        let (turn, waiting, commits) = (Arc::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { pool, turn, waiting, commits, here, elsewhere, delivered }
    }

    /// Waits for its turn; what is done then happens or not by itself.
    pub(super) async fn turn(self: &Arc<Self>) -> Result<Turn, StoreError> {
        let waiting = Waiting::new(&self.waiting);
        let queue = Arc::clone(&self.turn).lock_owned();
        let group = tokio::time::timeout(TURN_TIME, queue).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        drop(waiting);
        let mut beginning = Beginning(Some(Turn { writer: Arc::clone(self), group, has_savepoint: false }));
        if let Some(turn) = &mut beginning.0 {
            turn.begin().await?;
        }
        beginning.0.take().ok_or_else(|| StoreError::NotCommitted("there is no transaction".to_owned()))
    }

    async fn open(&self) -> Result<Group, sqlx::Error> {
        let mut tx = self.pool.begin_change().await?;
        if matches!(tx, sql::Transaction::Sqlite(_)) {
            // Delivered events leave with the next change, which saves a commit of their own.
            let delivered = self.delivered.load(Ordering::Acquire);
            sql::query("DELETE FROM outbox WHERE seq <= $1").bind(delivered).execute(&mut tx).await?;
        }
        let outcome = watch::Sender::new(None);
        Ok(Group { tx, began: Instant::now(), changes: 0, events: Vec::new(), outcome, has_closer: false })
    }

    /// How many commits there were.
    #[cfg(test)]
    fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// Commits what the group holds and tells everybody in it.
    async fn close(self: Arc<Self>, mut turn: OwnedMutexGuard<Option<Group>>) {
        let Some(Group { tx, changes, events, outcome, .. }) = turn.take() else { return };
        if changes == 0 {
            // Dropping undoes it.
            return;
        }
        let result = finish(tx, events).await.map_err(|error| {
            tracing::error!(%error, changes, "changes could not be committed");
            Arc::from(error.to_string())
        });
        self.commits.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("adit_portal_commits_total").increment(1);
        metrics::counter!("adit_portal_changes_total").increment(changes as u64);
        outcome.send_replace(Some(result));
        // In this order: whoever looks because of the wake-up finds the transaction ended.
        drop(turn);
        self.here.notify_one();
        self.elsewhere.notify_one();
    }

    /// Commits the group after those who wait now.
    async fn close_after_waiting(self: Arc<Self>) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // Another group means that this one was closed early; its own closer comes later, and
        // an early commit does no harm.
        self.close(turn).await;
    }
}

/// Writes down what the peers are told, and makes everything durable.
async fn finish(mut tx: sql::Transaction, events: Vec<(AccountId, Vec<String>)>) -> Result<(), sqlx::Error> {
    for (account, events) in events {
        if let Err(error) = outbox::write(&mut tx, account, &events).await {
            tx.give_up().await;
            return Err(error);
        }
    }
    tx.commit().await
}

impl Turn {
    /// Opens a group if there is none, and a savepoint.
    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.group.is_none() {
            *self.group = Some(self.writer.open().await?);
        }
        match sql::query("SAVEPOINT change").execute(self.sql()).await {
            Ok(_) => {
                self.has_savepoint = true;
                Ok(())
            }
            Err(error) => Err(self.give_up(error).await),
        }
    }

    /// The transaction.
    ///
    /// # Panics
    ///
    /// Never: a turn has a group from its beginning to its end.
    pub(super) fn sql(&mut self) -> &mut sql::Transaction {
        &mut self.group.as_mut().expect("a turn has a group").tx
    }

    /// Ends a group whose state is unknown.
    async fn give_up(&mut self, error: sqlx::Error) -> StoreError {
        if let Some(Group { tx, changes, outcome, .. }) = self.group.take() {
            tracing::error!(%error, changes, "a group of changes is given up");
            outcome.send_replace(Some(Err(Arc::from(error.to_string()))));
            tx.give_up().await;
        }
        StoreError::from(error)
    }

    /// Makes the change durable, together with those that wait. It cannot be interrupted: a
    /// request whose client goes away meanwhile is still committed and pushed.
    pub(super) async fn commit(self, account: AccountId, events: Vec<String>) -> Result<(), StoreError> {
        let done = tokio::spawn(async move {
            let mut outcome = self.keep(account, events).await?;
            let told = outcome.wait_for(Option::is_some).await.map(|told| told.clone());
            match told {
                Ok(Some(Ok(()))) => Ok(()),
                Ok(Some(Err(error))) => Err(StoreError::NotCommitted(error.to_string())),
                Ok(None) | Err(_) => Err(StoreError::NotCommitted("the portal stops".to_owned())),
            }
        });
        done.await.unwrap_or_else(|error| Err(StoreError::NotCommitted(error.to_string())))
    }

    /// Adds the change to its group.
    ///
    /// On SQLite its savepoint is released, which shows whether the transaction is still there. On PostgreSQL, which
    /// refuses everything once something has failed, it stays: the next one covers it, the commit ends them all, and a
    /// round trip is saved.
    async fn keep(
        mut self,
        account: AccountId,
        events: Vec<String>,
    ) -> Result<watch::Receiver<Outcome>, StoreError> {
        if matches!(self.sql(), sql::Transaction::Sqlite(_))
            && let Err(error) = sql::query("RELEASE SAVEPOINT change").execute(self.sql()).await
        {
            return Err(self.give_up(error).await);
        }
        let Some(group) = self.group.as_mut() else {
            return Err(StoreError::NotCommitted("there is no transaction".to_owned()));
        };
        match group.events.last_mut().filter(|(of, _)| *of == account) {
            Some((_, known)) => known.extend(events),
            None => group.events.push((account, events)),
        }
        group.changes += 1;
        let outcome = group.outcome.subscribe();
        self.pass_on();
        Ok(outcome)
    }

    /// Undoes the change and nothing else.
    async fn undo(mut self) {
        // Without the first, what an interrupted beginning has left is somebody else's savepoint or none.
        const BACK: [&str; 3] =
            ["SAVEPOINT change", "ROLLBACK TO SAVEPOINT change", "RELEASE SAVEPOINT change"];
        for statement in BACK.into_iter().skip(usize::from(self.has_savepoint)) {
            if let Err(error) = sql::query(statement).execute(self.sql()).await {
                self.give_up(error).await;
                return;
            }
        }
        self.pass_on();
    }

    /// Lets the next one go on, or ends the group.
    fn pass_on(mut self) {
        let Some(group) = self.group.as_mut() else { return };
        let is_alone = self.writer.waiting.load(Ordering::Relaxed) == 0;
        if is_alone || group.changes >= LARGEST_GROUP || group.began.elapsed() >= OLDEST_GROUP {
            tokio::spawn(self.writer.close(self.group));
        } else if !group.has_closer {
            group.has_closer = true;
            tokio::spawn(Arc::clone(&self.writer).close_after_waiting());
        }
    }

    /// Undoes a change that was not committed, also where nobody waits for it.
    pub(super) fn abandon(mut self) {
        if self.group.is_none() {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.undo())),
            // The program ends; dropping the transaction undoes it.
            Err(_) => drop(self.group.take()),
        }
    }
}

#[cfg(test)]
mod tests;
