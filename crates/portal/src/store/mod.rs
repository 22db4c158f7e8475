//! Storage: every SQL statement of the portal is below this module.
//!
//! SQLite in WAL mode or a PostgreSQL server, by the same statements (see [`sql`]). Every change
//! is one [`Change`]: domain rows, the authorizations it revokes, its audit row and the [`Event`]s
//! that tell the peers are committed together (`synchronous=FULL`: a power cut must not bring
//! back revoked access). The dispatcher delivers events after the commit, in commit order,
//! and finds them again after a crash, because they are rows of the outbox.
//!
//! Changes that wait together share a commit (see [`commit`]). They happen one after the other: on SQLite because there is one writer, on PostgreSQL
//! because each begins by taking the same advisory lock, whichever node it comes from. So
//! nothing is decided on rows that another change is about to take away, no transaction fails
//! to serialize, and the numbers of the outbox are in the order of the commits.

mod account;
mod actor;
mod audit;
mod auth_provider;
mod authorization;
mod change;
mod commit;
mod condition;
mod connection;
mod database;
mod device;
mod device_session;
mod device_sign_in;
mod directory;
mod event;
mod flow;
mod group;
mod idempotency;
mod identity;
mod impact;
mod inventory;
mod lease;
mod local_credential;
mod node;
mod outbox;
mod policy;
mod relay;
mod resource;
mod role;
mod search;
mod sign_in_setting;
mod site;
mod sql;
mod standing;
mod token;
mod transfer;
mod web_session;

#[cfg(test)]
pub(crate) mod conformance;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use adit_policy::AccountId;
use tokio::sync::Notify;

pub(crate) use account::{Account, NewAccount};
pub(crate) use actor::{Actor, ActorKind};
pub(crate) use audit::seal::Sealer;
pub(crate) use audit::{AuditFilter, AuditRow, Verified};
pub(crate) use auth_provider::{AuthProvider, ProviderUse};
pub(crate) use authorization::{AuthorizationRow, NewAuthorization, Revoke, latest_end};
pub(crate) use change::{By, Change};
pub(crate) use connection::{Connection, ConnectionIce, NewEpoch};
pub use database::Database;
pub(crate) use database::newest_schema;
pub(crate) use device::{Device, DeviceHello, DeviceRow};
pub(crate) use device_session::DeviceSession;
pub(crate) use device_sign_in::{
    Approval, CodeState, DEVICE_CODE_MS, DeviceSignIn, INTERVAL_MS, NewAuthorizationCode, NewDeviceCode,
};
pub(crate) use directory::{DirectoryFilter, DirectoryGroup, DirectoryUser, Slice, UserContent};
pub(crate) use event::Event;
pub(crate) use flow::{FlowClient, FlowFilter, FlowRow, FlowSetting, FlowSink, Reporter};
pub(crate) use group::Group;
pub(crate) use idempotency::{Claim, Keyed};
pub(crate) use identity::Identity;
pub(crate) use impact::{EndingLease, Impact, MOST_LOSSES, Removal};
pub(crate) use inventory::Inventory;
pub(crate) use lease::{Lease, LeaseEnd};
pub(crate) use local_credential::{LocalCredential, WelcomeLink};
pub(crate) use node::{NODE_LEASE, PresenceRow, Signal, Signals};
pub(crate) use policy::{Asker, Policy};
pub(crate) use relay::RelayRow;
pub(crate) use resource::ResourceSpec;
pub(crate) use role::Role;
pub(crate) use search::{Find, GroupSummary, LatestAccess, SiteSummary, Totals};
pub(crate) use sign_in_setting::SignInSetting;
pub(crate) use standing::{Asked, HeldAuthorization, Standing};
pub(crate) use token::{NewToken, Token, TokenKind};
pub use transfer::Copied;
pub(crate) use transfer::{Arrival, Tally, import};
pub(crate) use web_session::{LONGEST_MS, WebSession, WebSessionRow};

#[cfg(test)]
pub(crate) use conformance::on_both_databases;

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
    /// The database was set up by a newer portal.
    #[error("the database was made by a newer adit-portal (schema {found}; this one knows {newest})")]
    NewerSchema {
        /// The schema that was found.
        found: i64,
        /// The newest that this program knows.
        newest: i64,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(sqlx::Error),
    /// The change, and others that shared its commit, did not become durable.
    #[error("the change was not committed: {0}")]
    NotCommitted(String),
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
#[derive(Debug, Clone, Copy, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// The last id of the page before.
    pub(crate) after: Option<uuid::Uuid>,
    /// How many rows; at most 500, and so many if nothing is said.
    #[serde(default, deserialize_with = "page_length")]
    #[param(minimum = 1, maximum = 500)]
    pub(crate) limit: Option<u32>,
}

/// A query string has texts only: a number in one is read as one.
fn page_length<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    use serde::{Deserialize as _, de::Error as _};
    let length = Option::<u32>::deserialize(deserializer)?;
    if length.is_some_and(|length| !(1..=LONGEST_PAGE).contains(&length)) {
        return Err(D::Error::custom("a page has 1 to 500 rows"));
    }
    Ok(length)
}

impl Page {
    /// Everything that fits into one page.
    pub(crate) const FIRST: Self = Self { after: None, limit: None };

    /// The first entry alone.
    pub(crate) const NEWEST: Self = Self { after: None, limit: Some(1) };

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
    writer: sql::Pool,
    changes: Arc<commit::Writer>,
    reader: sql::Pool,
    account: AccountId,
    sealer: Arc<OnceLock<Sealer>>,
    committed: Arc<Notify>,
    /// For the other nodes.
    committed_here: Arc<Notify>,
    delivered: Arc<AtomicI64>,
}

impl Store {
    /// Opens a database and brings its schema up to date. A file is made when `create` is set.
    pub(crate) async fn open(database: &Database, create: bool) -> Result<Self, StoreError> {
        let (writer, reader) = database.open(create).await?;
        let account = account::first(&reader).await?.unwrap_or(AccountId::from_uuid(uuid::Uuid::nil()));
        let (committed, committed_here) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let delivered = Arc::new(AtomicI64::new(0));
        let changes = Arc::new(commit::Writer::new(
            writer.clone(),
            Arc::clone(&committed),
            Arc::clone(&committed_here),
            Arc::clone(&delivered),
        ));
        let sealer = Arc::default();
        Ok(Self { writer, changes, reader, account, sealer, committed, committed_here, delivered })
    }

    /// The account that this portal serves; nil before [`Change::create_account`].
    pub(crate) const fn account_id(&self) -> AccountId {
        self.account
    }

    /// Begins a change; nothing happens until [`Change::commit`].
    pub(crate) async fn change(&self, by: &By) -> Result<Change, StoreError> {
        Change::begin(self, by.clone()).await
    }

    /// Has the entries of the audit log sealed from now on; the first key stands.
    pub(crate) fn seal_audit(&self, sealer: Sealer) {
        let _ = self.sealer.set(sealer);
    }

    /// Whether other nodes may use the same database.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.writer, sql::Pool::Postgres(_))
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sql::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    /// `ok`, or what is damaged.
    pub(crate) async fn integrity(&self) -> Result<String, StoreError> {
        let text = if self.is_shared() { "SELECT 'ok'" } else { "PRAGMA quick_check(1)" };
        Ok(sql::query_scalar(text).fetch_one(&self.reader).await?)
    }

    /// What the database takes for the time, in Unix milliseconds.
    pub(crate) async fn clock_ms(&self) -> Result<i64, StoreError> {
        let text = if self.is_shared() {
            "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
        } else {
            "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
        };
        Ok(sql::query_scalar(text).fetch_one(&self.reader).await?)
    }

    /// Closes all connections, so that the write-ahead log is merged into the database.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}
