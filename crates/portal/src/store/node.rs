//! Nodes that share one PostgreSQL database: their leases, who is connected to which, and how
//! they wake each other.
//!
//! A node is a row that it renews every second. Its presence rows are as good as that lease, so
//! that a node which dies takes thousands of them along without a write. Only a node itself
//! writes rows in its own name, and numbers them, so whoever reads them in the order of these
//! numbers misses none. All times are the database's.
//!
//! Nothing here is worth a flush to disk: after a crash of the database nodes say it again.

use std::time::Duration;

use sqlx::postgres::PgListener;
use uuid::Uuid;

use super::{Store, StoreError, sql};

/// A node that has not renewed its lease for this long counts as dead.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(5);

/// The channel on which nodes wake each other. The payload is one of [`Signal`].
const CHANNEL: &str = "adit";

/// How long the row of a dead node is kept: events are kept for it that long.
const REMEMBERED_MS: i64 = 60_000;

/// One presence row.
pub(crate) struct PresenceRow {
    /// The peer.
    pub(crate) peer: Uuid,
    /// Counts the changes of the node that wrote it.
    pub(crate) change: i64,
    /// What is known of it; `None` when it is gone.
    pub(crate) detail: Option<String>,
}

/// What nodes signal to each other. A signal may get lost; nothing rests on it but time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// There are events in the outbox.
    Events,
    /// There are changes of presence.
    Presence,
    /// A node is asked whether its session of a device is alive.
    Probe {
        /// The node.
        node: Uuid,
        /// The device.
        device: Uuid,
        /// To be repeated by the answer.
        question: Uuid,
    },
    /// The session is alive.
    Alive {
        /// Of the probe.
        question: Uuid,
    },
    /// Signals may have been lost.
    Gap,
}

impl Signal {
    fn encode(self) -> String {
        match self {
            Self::Events => "events".to_owned(),
            Self::Presence => "presence".to_owned(),
            Self::Probe { node, device, question } => format!("probe {node} {device} {question}"),
            Self::Alive { question } => format!("alive {question}"),
            Self::Gap => "gap".to_owned(),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let mut id = || Uuid::try_parse(words.next()?).ok();
        match name {
            "events" => Some(Self::Events),
            "presence" => Some(Self::Presence),
            "probe" => Some(Self::Probe { node: id()?, device: id()?, question: id()? }),
            "alive" => Some(Self::Alive { question: id()? }),
            _ => None,
        }
    }
}

/// Hears signals.
pub(crate) struct Signals(PgListener);

impl Signals {
    /// The next signal; a lost connection is made again and reported as [`Signal::Gap`].
    pub(crate) async fn next(&mut self) -> Result<Signal, StoreError> {
        loop {
            match self.0.try_recv().await? {
                None => return Ok(Signal::Gap),
                Some(heard) => {
                    if let Some(signal) = Signal::decode(heard.payload()) {
                        return Ok(signal);
                    }
                }
            }
        }
    }
}

impl Store {
    /// Listens to other nodes; `None` when the database is not shared.
    pub(crate) async fn signals(&self) -> Result<Option<Signals>, StoreError> {
        let sql::Pool::Postgres(pool) = &self.reader else { return Ok(None) };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Signals(listener)))
    }

    /// Signals something to the other nodes, and to this one.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        let _: Option<String> = sql::query_scalar("SELECT pg_notify($1, $2)::TEXT")
            .bind(CHANNEL)
            .bind(signal.encode())
            .fetch_one(&self.reader)
            .await?;
        Ok(())
    }

    /// Waits until this node has committed something that others should hear of.
    pub(crate) async fn committed_here(&self) {
        self.committed_here.notified().await;
    }

    /// Has the dispatcher look at the outbox.
    pub(crate) fn wake_dispatcher(&self) {
        self.committed.notify_one();
    }

    /// Enters a node; it starts with whatever the outbox still holds.
    pub(crate) async fn register_node(&self, node: Uuid) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO node (id, delivered, expires_ms)
             VALUES ($1, 0, (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + $2)",
        )
        .bind(node)
        .bind(lease_ms())
        .execute(&self.reader)
        .await?;
        Ok(())
    }

    /// Renews a node's lease and notes how far it has delivered. `false` when it was forgotten:
    /// events may have gone that it never saw.
    pub(crate) async fn renew_node(&self, node: Uuid) -> Result<bool, StoreError> {
        let delivered = self.delivered.load(std::sync::atomic::Ordering::Acquire);
        let mut tx = self.begin_unsynchronised().await?;
        let renewed = sql::query(
            "UPDATE node SET delivered = $2,
                             expires_ms = (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + $3
             WHERE id = $1",
        )
        .bind(node)
        .bind(delivered)
        .bind(lease_ms())
        .execute(&mut tx)
        .await?;
        tx.commit().await?;
        Ok(renewed == 1)
    }

    /// Removes what is of no use to any node: dead nodes with their presence, and events that
    /// every node has delivered.
    pub(crate) async fn sweep_nodes(&self) -> Result<(), StoreError> {
        let mut tx = self.begin_unsynchronised().await?;
        // One node is enough.
        let mine: bool =
            sql::query_scalar("SELECT pg_try_advisory_xact_lock(1633970549)").fetch_one(&mut tx).await?;
        if !mine {
            return Ok(());
        }
        sql::query(
            "DELETE FROM node
             WHERE expires_ms + $1 < (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT",
        )
        .bind(REMEMBERED_MS)
        .execute(&mut tx)
        .await?;
        sql::query("DELETE FROM presence WHERE node_id NOT IN (SELECT id FROM node)")
            .execute(&mut tx)
            .await?;
        sql::query("DELETE FROM outbox WHERE seq <= (SELECT min(delivered) FROM node)")
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes a node out, in good order.
    pub(crate) async fn remove_node(&self, node: Uuid) -> Result<(), StoreError> {
        sql::query("DELETE FROM node WHERE id = $1").bind(node).execute(&self.reader).await?;
        Ok(())
    }

    /// The other nodes that live.
    pub(crate) async fn other_nodes(&self, node: Uuid) -> Result<Vec<Uuid>, StoreError> {
        Ok(sql::query_scalar(
            "SELECT id FROM node
             WHERE id <> $1 AND expires_ms > (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT",
        )
        .bind(node)
        .fetch_all(&self.reader)
        .await?)
    }

    /// Writes down who is connected to a node and who is not any more.
    pub(crate) async fn write_presence(&self, node: Uuid, rows: &[PresenceRow]) -> Result<(), StoreError> {
        let mut tx = self.begin_unsynchronised().await?;
        for row in rows {
            match &row.detail {
                Some(detail) => {
                    sql::query(
                        "INSERT INTO presence (peer_id, node_id, change, is_online, detail)
                         VALUES ($1, $2, $3, TRUE, $4)
                         ON CONFLICT (peer_id) DO UPDATE SET
                             node_id = excluded.node_id, change = excluded.change, is_online = TRUE,
                             detail = excluded.detail",
                    )
                    .bind(row.peer)
                    .bind(node)
                    .bind(row.change)
                    .bind(detail)
                    .execute(&mut tx)
                    .await?;
                }
                // Unless it has connected to another node meanwhile.
                None => {
                    sql::query(
                        "UPDATE presence SET change = $3, is_online = FALSE, detail = ''
                         WHERE peer_id = $1 AND node_id = $2",
                    )
                    .bind(row.peer)
                    .bind(node)
                    .bind(row.change)
                    .execute(&mut tx)
                    .await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// What a node has written down since a change of it, at most `limit` rows.
    pub(crate) async fn read_presence(
        &self,
        node: Uuid,
        since: i64,
        limit: i64,
    ) -> Result<Vec<PresenceRow>, StoreError> {
        let rows: Vec<(Uuid, i64, bool, String)> = sql::query_as(
            "SELECT peer_id, change, is_online, detail FROM presence
             WHERE node_id = $1 AND change > $2 ORDER BY change LIMIT $3",
        )
        .bind(node)
        .bind(since)
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        let row = |(peer, change, is_online, detail): (Uuid, i64, bool, String)| PresenceRow {
            peer,
            change,
            detail: is_online.then_some(detail),
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// A transaction whose end does not wait for the disk.
    async fn begin_unsynchronised(&self) -> Result<sql::Transaction, StoreError> {
        let sql::Pool::Postgres(pool) = &self.reader else {
            return Err(StoreError::Invalid("SQLite has no nodes".to_owned()));
        };
        let begin = "BEGIN; SET LOCAL synchronous_commit = off";
        Ok(sql::Transaction::Postgres(pool.begin_with(begin).await?))
    }
}

fn lease_ms() -> i64 {
    i64::try_from(NODE_LEASE.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_understood_and_noise_is_not() {
        let id = Uuid::from_u128;
        for signal in [
            Signal::Events,
            Signal::Presence,
            Signal::Probe { node: id(1), device: id(2), question: id(3) },
            Signal::Alive { question: id(3) },
        ] {
            assert_eq!(Signal::decode(&signal.encode()), Some(signal));
        }
        for noise in ["", "probe", "probe x y z", "alive", "hello"] {
            assert_eq!(Signal::decode(noise), None, "{noise}");
        }
    }
}
