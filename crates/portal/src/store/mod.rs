//! Storage: every SQL statement of the portal is below this module.
//!
//! SQLite in WAL mode with one writer connection and a few readers. Every change is one
//! [`Change`]: domain rows, the authorizations it revokes, its audit row and the [`Event`]s
//! that tell the peers are committed together (`synchronous=FULL`: a power cut must not bring
//! back revoked access). The dispatcher delivers events after the commit, in commit order,
//! and finds them again after a crash, because they are rows of the outbox.
//!
//! Deliberately absent: a second backend. It will come as a second set of statements behind
//! the same functions, not as an abstraction over SQL.

mod account;
mod actor;
mod audit;
mod authorization;
mod change;
mod connection;
mod device;
mod event;
mod group;
mod lease;
mod outbox;
mod policy;
mod relay;
mod resource;
mod site;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use adit_policy::AccountId;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Notify;

pub(crate) use account::{Account, NewAccount};
pub(crate) use actor::{Actor, ActorKind};
pub(crate) use audit::AuditRow;
pub(crate) use authorization::{AuthorizationRow, HeldAuthorization, NewAuthorization, Revoke};
pub(crate) use change::{By, Change};
pub(crate) use connection::{Connection, ConnectionIce};
pub(crate) use device::{Device, DeviceHello, DeviceRow};
pub(crate) use event::Event;
pub(crate) use group::Group;
pub(crate) use lease::{Lease, LeaseEnd};
pub(crate) use policy::Policy;
pub(crate) use relay::RelayRow;
pub(crate) use resource::ResourceSpec;
pub(crate) use token::{NewToken, Token, TokenKind};

/// How long a reader or the writer waits for a lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections for reading; with WAL they never wait for the writer.
const READERS: u32 = 4;

/// The longest page that a list returns.
pub(crate) const LONGEST_PAGE: u32 = 500;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no such row.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It exists already, or something still depends on it.
    #[error("{0}")]
    Conflict(String),
    /// The values make no sense.
    #[error("{0}")]
    Invalid(String),
    /// The database failed.
    #[error("database: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => {
                Self::Conflict("something of that name exists already".to_owned())
            }
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                Self::NotFound("thing that this refers to")
            }
            _ => Self::Database(error),
        }
    }
}

/// A part of a list: rows after `after`, at most `limit` of them.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub(crate) struct Page {
    /// The last id of the page before.
    pub(crate) after: Option<uuid::Uuid>,
    /// How many rows; at most [`LONGEST_PAGE`].
    pub(crate) limit: Option<u32>,
}

impl Page {
    /// Everything that fits into one page.
    pub(crate) const FIRST: Self = Self { after: None, limit: None };

    fn after(self) -> uuid::Uuid {
        self.after.unwrap_or(uuid::Uuid::nil())
    }

    fn limit(self) -> i64 {
        i64::from(self.limit.unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE))
    }
}

/// The database of one portal.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    account: AccountId,
    committed: Arc<Notify>,
    delivered: Arc<AtomicI64>,
}

impl Store {
    /// Opens the database at `path`, made when `create` is set, and brings its schema up to date.
    pub(crate) async fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!().run(&writer).await.map_err(|error| StoreError::Database(error.into()))?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        let account = account::first(&reader).await?.unwrap_or(AccountId::from_uuid(uuid::Uuid::nil()));
        Ok(Self {
            writer,
            reader,
            account,
            committed: Arc::new(Notify::new()),
            delivered: Arc::new(AtomicI64::new(0)),
        })
    }

    /// The account that this portal serves; nil before [`Change::create_account`].
    pub(crate) const fn account_id(&self) -> AccountId {
        self.account
    }

    /// Begins a change; nothing happens until [`Change::commit`].
    pub(crate) async fn change(&self, by: &By) -> Result<Change, StoreError> {
        Change::begin(self, by.clone()).await
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    /// Closes all connections, so that the write-ahead log is merged into the database.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}
