//! One statement, two databases.
//!
//! SQLite and PostgreSQL understand the same text for everything the portal asks: `$1`, `TRUE`,
//! `RETURNING`, `ON CONFLICT`. So a statement is written once, with its values beside it, and
//! this module hands both to whichever driver the store was opened with. The interface is that
//! of sqlx (`query`, `bind`, `fetch_…`), and rows are read by sqlx's `FromRow`.
//!
//! Deliberately absent: anything that makes statements. They are constant texts, so nothing
//! that anyone says can become a part of one.

use std::marker::PhantomData;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool};
use uuid::Uuid;

pub(super) use self::list::{List, listed};

mod list;

/// No statement takes longer, waiting for another change included (its limit is 10 s).
const LONGEST: Duration = Duration::from_secs(15);

/// What a statement may be given.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// BLOB of 16 bytes; UUID.
    Uuid(Option<Uuid>),
    /// INTEGER; BIGINT.
    Integer(Option<i64>),
    /// TEXT.
    Text(Option<String>),
    /// BLOB; BYTEA.
    Bytes(Option<Vec<u8>>),
    /// INTEGER; BOOLEAN.
    Boolean(bool),
    /// Of many rows at once; no column is one.
    List(List),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident($value:ident) $with:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                Self::$variant($with)
            }
        })*
    };
}

value_from! {
    Uuid => Uuid(value) Some(value);
    Option<Uuid> => Uuid(value) value;
    i64 => Integer(value) Some(value);
    Option<i64> => Integer(value) value;
    &str => Text(value) Some(value.to_owned());
    &String => Text(value) Some(value.clone());
    String => Text(value) Some(value);
    Option<String> => Text(value) value;
    &[u8] => Bytes(value) Some(value.to_vec());
    Option<Vec<u8>> => Bytes(value) value;
    bool => Boolean(value) value;
    Vec<Uuid> => List(value) List::Uuids(list::Uuids(value));
    Vec<i64> => List(value) List::Integers(list::Integers(value));
    Vec<String> => List(value) List::Texts(list::Texts(value));
}

/// A row that can be read from either database.
pub(super) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// Where a statement runs.
pub(super) enum Executor<'a> {
    /// On any connection of a pool.
    SqlitePool(&'a SqlitePool),
    /// On any connection of a pool.
    PostgresPool(&'a PgPool),
    /// Inside a transaction.
    Sqlite(&'a mut SqliteConnection),
    /// Inside a transaction.
    Postgres(&'a mut PgConnection),
}

/// Connections to one database.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    /// SQLite.
    Sqlite(SqlitePool),
    /// PostgreSQL.
    Postgres(PgPool),
}

impl Pool {
    /// Begins a transaction that only reads, and sees one moment.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Ok(match self {
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Transaction::Postgres(bounded(pool.begin_with(ONE_MOMENT)).await?),
        })
    }

    /// Begins a change. There is one at a time; the lock is released when its end is visible.
    pub(super) async fn begin_change(&self) -> Result<Transaction, sqlx::Error> {
        // The number is arbitrary ("adit") and the same in every node.
        const ONE_AT_A_TIME: &str = "BEGIN; SELECT pg_advisory_xact_lock(1633970548)";
        Ok(match self {
            Self::Sqlite(pool) => match pool.begin_with("BEGIN IMMEDIATE").await {
                // SQLite has ended the last one by itself while it was committed, and sqlx did not
                // notice. Without another connection there would be no change ever again.
                Err(sqlx::Error::InvalidSavePointStatement) => {
                    pool.acquire().await?.close().await?;
                    Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)
                }
                begun => Transaction::Sqlite(begun?),
            },
            Self::Postgres(pool) => Transaction::Postgres(bounded(pool.begin_with(ONE_AT_A_TIME)).await?),
        })
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction; dropping it undoes everything.
#[derive(Debug)]
pub(super) enum Transaction {
    /// SQLite.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    /// PostgreSQL.
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    /// Undoes it, also where the database has done so by itself.
    ///
    /// SQLite ends a transaction when the disk is full, for example, and sqlx does not notice: its own
    /// rollback then fails, and the connection would be lost for further changes.
    pub(super) async fn give_up(mut self) {
        if let Self::Sqlite(tx) = &mut self {
            // Fails if the transaction is still open, which is as good.
            let _ = sqlx::query("BEGIN").execute(&mut **tx).await;
        }
    }

    /// Makes it durable.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => bounded(tx.commit()).await,
        }
    }
}

impl<'a> From<&'a Pool> for Executor<'a> {
    fn from(pool: &'a Pool) -> Self {
        match pool {
            Pool::Sqlite(pool) => Self::SqlitePool(pool),
            Pool::Postgres(pool) => Self::PostgresPool(pool),
        }
    }
}

impl<'a> From<&'a mut Transaction> for Executor<'a> {
    fn from(tx: &'a mut Transaction) -> Self {
        match tx {
            Transaction::Sqlite(tx) => Self::Sqlite(tx),
            Transaction::Postgres(tx) => Self::Postgres(tx),
        }
    }
}

/// A server may be away without a word; a file is not.
async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(LONGEST, work).await {
        Ok(done) => done,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the database server does not answer",
        ))),
    }
}

/// The text of a statement in both languages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    sqlite: &'static str,
    postgres: &'static str,
}

impl From<&'static str> for Statement {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// A statement whose rows are read as `T`.
#[derive(Debug)]
pub(super) struct Query<T> {
    statement: Statement,
    values: Vec<Value>,
    row: PhantomData<fn() -> T>,
}

/// A statement whose rows are one column.
#[derive(Debug)]
pub(super) struct ScalarQuery<T>(Query<(T,)>);

/// A statement without rows of interest.
pub(super) fn query(statement: impl Into<Statement>) -> Query<()> {
    query_as(statement)
}

/// A statement whose rows are read as `T`.
pub(super) fn query_as<T>(statement: impl Into<Statement>) -> Query<T> {
    Query { statement: statement.into(), values: Vec::new(), row: PhantomData }
}

/// A statement whose rows are one column.
pub(super) fn query_scalar<T>(statement: impl Into<Statement>) -> ScalarQuery<T> {
    ScalarQuery(query_as(statement))
}

macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Uuid(value) => query.bind(value),
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Boolean(value) => query.bind(value),
                Value::List(List::Uuids(value)) => query.bind(value),
                Value::List(List::Integers(value)) => query.bind(value),
                Value::List(List::Texts(value)) => query.bind(value),
            };
        }
        query
    }};
}

macro_rules! run {
    ($query:ident($($row:ty)?), $self:ident, $at:expr, $method:ident) => {
        match $at.into() {
            Executor::SqlitePool(at) => {
                bound!(sqlx::$query::<Sqlite $(, $row)?>($self.statement.sqlite), $self.values).$method(at).await
            }
            Executor::Sqlite(at) => {
                bound!(sqlx::$query::<Sqlite $(, $row)?>($self.statement.sqlite), $self.values).$method(at).await
            }
            Executor::PostgresPool(at) => {
                bounded(bound!(sqlx::$query::<Postgres $(, $row)?>($self.statement.postgres), $self.values).$method(at)).await
            }
            Executor::Postgres(at) => {
                bounded(bound!(sqlx::$query::<Postgres $(, $row)?>($self.statement.postgres), $self.values).$method(at)).await
            }
        }
    };
}

impl<T> Query<T> {
    /// Gives the statement its next value.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

impl Query<()> {
    /// Runs the statement: how many rows it changed.
    pub(super) async fn execute<'a>(self, at: impl Into<Executor<'a>>) -> Result<u64, sqlx::Error> {
        Ok(match at.into() {
            Executor::SqlitePool(at) => bound!(sqlx::query::<Sqlite>(self.statement.sqlite), self.values)
                .execute(at)
                .await?
                .rows_affected(),
            Executor::Sqlite(at) => bound!(sqlx::query::<Sqlite>(self.statement.sqlite), self.values)
                .execute(at)
                .await?
                .rows_affected(),
            Executor::PostgresPool(at) => {
                let query = bound!(sqlx::query::<Postgres>(self.statement.postgres), self.values);
                bounded(query.execute(at)).await?.rows_affected()
            }
            Executor::Postgres(at) => {
                let query = bound!(sqlx::query::<Postgres>(self.statement.postgres), self.values);
                bounded(query.execute(at)).await?.rows_affected()
            }
        })
    }
}

impl<T: Row> Query<T> {
    /// Every row.
    pub(super) async fn fetch_all<'a>(self, at: impl Into<Executor<'a>>) -> Result<Vec<T>, sqlx::Error> {
        run!(query_as(T), self, at, fetch_all)
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional<'a>(
        self,
        at: impl Into<Executor<'a>>,
    ) -> Result<Option<T>, sqlx::Error> {
        run!(query_as(T), self, at, fetch_optional)
    }

    /// The first row.
    pub(super) async fn fetch_one<'a>(self, at: impl Into<Executor<'a>>) -> Result<T, sqlx::Error> {
        run!(query_as(T), self, at, fetch_one)
    }
}

impl<T> ScalarQuery<T>
where
    (T,): Row,
{
    /// Gives the statement its next value.
    pub(super) fn bind(self, value: impl Into<Value>) -> Self {
        Self(self.0.bind(value))
    }

    /// Every row.
    pub(super) async fn fetch_all<'a>(self, at: impl Into<Executor<'a>>) -> Result<Vec<T>, sqlx::Error> {
        Ok(self.0.fetch_all(at).await?.into_iter().map(|row| row.0).collect())
    }

    /// The first row, if there is one.
    pub(super) async fn fetch_optional<'a>(
        self,
        at: impl Into<Executor<'a>>,
    ) -> Result<Option<T>, sqlx::Error> {
        Ok(self.0.fetch_optional(at).await?.map(|row| row.0))
    }

    /// The first row.
    pub(super) async fn fetch_one<'a>(self, at: impl Into<Executor<'a>>) -> Result<T, sqlx::Error> {
        Ok(self.0.fetch_one(at).await?.0)
    }
}

/// Inserts one row with a statement that was made from constants.
pub(super) async fn insert(tx: &mut Transaction, text: &str, values: Vec<Value>) -> Result<(), sqlx::Error> {
    let text = sqlx::AssertSqlSafe(text);
    match tx {
        Transaction::Sqlite(tx) => {
            bound!(sqlx::query::<Sqlite>(text), values).execute(&mut **tx).await?;
        }
        Transaction::Postgres(tx) => {
            bound!(sqlx::query::<Postgres>(text), values).execute(&mut **tx).await?;
        }
    }
    Ok(())
}
