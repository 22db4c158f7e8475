//! Opening a database: which one, how it is set up, and whether its schema is ours.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::sql::Pool;
use super::{StoreError, sql};

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// How long a reader or the writer waits for a lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections for reading; on both databases they never wait for the writer.
const READERS: u32 = 4;

/// Connections for changes on PostgreSQL: one that works and one that is next in line.
const WRITERS: u32 = 2;

/// How long a task waits for a connection to PostgreSQL.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that stands still in the middle of a change must not hold up the others for long.
const POSTGRES_LIMITS: [(&str, &str); 3] =
    [("idle_in_transaction_session_timeout", "5s"), ("lock_timeout", "10s"), ("statement_timeout", "30s")];

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A server: `postgres://…`.
    Postgres(String),
}

/// A URL may hold a password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// For messages: without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => match url::Url::parse(url) {
                Ok(url) => write!(f, "postgres://{}{}", url.host_str().unwrap_or_default(), url.path()),
                Err(_) => f.write_str("postgres:"),
            },
        }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("write sqlite:PATH".to_owned());
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // sqlx's message would repeat the URL, and with it the password.
            PgConnectOptions::from_str(text).map_err(|_| "this is no PostgreSQL URL".to_owned())?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("write sqlite:PATH or postgres://USER@HOST/NAME".to_owned())
    }
}

impl Database {
    /// Makes sure that no other process serves a file, as long as the result lives. A server
    /// may be served by many.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let Self::Sqlite(path) = self else { return Ok(None) };
        let path = path.with_extension("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another portal uses this database")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// `false` when it is a file that is not there.
    pub(crate) fn may_exist(&self) -> bool {
        match self {
            Self::Sqlite(path) => path.exists(),
            Self::Postgres(_) => true,
        }
    }

    /// Which schema it has; nothing is changed. Zero when it has none.
    pub(crate) async fn schema(&self) -> Result<i64, StoreError> {
        let pool = match self {
            Self::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
                let pool = SqlitePoolOptions::new().max_connections(1);
                Pool::Sqlite(pool.connect_with(options.read_only(true)).await?)
            }
            Self::Postgres(url) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
                Pool::Postgres(pool.connect_with(PgConnectOptions::from_str(url)?).await?)
            }
        };
        let text = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
        let version = sql::query_scalar(text).fetch_one(&pool).await;
        pool.close().await;
        Ok(version?)
    }

    /// Opens it: a pool for changes and one for reading. A SQLite file is made when `create` is
    /// set; the schema is brought up to date.
    pub(super) async fn open(&self, create: bool) -> Result<(Pool, Pool), StoreError> {
        match self {
            Self::Sqlite(path) => open_sqlite(path, create).await,
            Self::Postgres(url) => open_postgres(url).await,
        }
    }
}

async fn open_sqlite(path: &Path, create: bool) -> Result<(Pool, Pool), StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = |connections| {
        SqlitePoolOptions::new().max_connections(connections).idle_timeout(None).max_lifetime(None)
    };
    let writer = pool(1).connect_with(options.clone()).await?;
    SQLITE.run(&writer).await.map_err(|error| schema_error(error, &SQLITE))?;
    let reader = pool(READERS).min_connections(1).connect_with(options).await?;
    Ok((Pool::Sqlite(writer), Pool::Sqlite(reader)))
}

async fn open_postgres(url: &str) -> Result<(Pool, Pool), StoreError> {
    let options = PgConnectOptions::from_str(url)?.application_name("adit-portal").options(POSTGRES_LIMITS);
    let pool = |connections| {
        PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None)
    };
    let writer = pool(WRITERS).connect_with(options.clone()).await?;
    // Nodes that start together take turns by a lock of the migrator.
    POSTGRES.run(&writer).await.map_err(|error| schema_error(error, &POSTGRES))?;
    // One of them listens to the other nodes.
    let reader = pool(READERS + 1).min_connections(1).connect_with(options).await?;
    Ok((Pool::Postgres(writer), Pool::Postgres(reader)))
}

/// The newest schema that this program knows, which every database has that it opens.
pub(crate) fn newest_schema() -> i64 {
    newest(&SQLITE)
}

fn newest(ours: &Migrator) -> i64 {
    ours.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn schema_error(error: MigrateError, ours: &Migrator) -> StoreError {
    let newest = newest(ours);
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::NewerSchema { found: version, newest }
        }
        other => StoreError::Database(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_have_the_same_schema() {
        assert_eq!(newest(&SQLITE), newest(&POSTGRES));
    }

    #[test]
    fn a_database_is_named_by_a_url() {
        assert_eq!("sqlite:/a/b.db".parse(), Ok(Database::Sqlite("/a/b.db".into())));
        assert_eq!("sqlite:///a/b.db".parse(), Ok(Database::Sqlite("/a/b.db".into())));
        let url = "postgres://adit:geheim@db.example:5433/adit?sslmode=verify-full";
        let database: Database = url.parse().unwrap();
        assert_eq!(database, Database::Postgres(url.to_owned()));
        assert_eq!(format!("{database} {database:?}").matches("geheim").count(), 0);
        for wrong in ["", "sqlite:", "/a/b.db", "mysql://x", "postgres://[", "postgres://geheim:x@h:port/"] {
            let error = wrong.parse::<Database>().unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
