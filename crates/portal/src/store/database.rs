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

    /// What an installation holds that was made before there were roles: two administrators, a lease, and who holds it.
    const BEFORE_ROLES: &str = "
        INSERT INTO account (id, name, ipv4_range, ipv6_range, ipv4_proxy_range, ipv6_proxy_range, created_ms)
            VALUES (x'01', 'a', '', '', '', '', 1);
        INSERT INTO actor (id, account_id, kind, name, admin, created_ms) VALUES
            (x'10', x'01', 'user', 'owner', 1, 1), (x'11', x'01', 'user', 'second', 1, 2), (x'12', x'01', 'user', 'ana', 0, 3);
        INSERT INTO actor_group (id, account_id, name, created_ms) VALUES (x'20', x'01', 'staff', 1);
        INSERT INTO site (id, account_id, name, created_ms) VALUES (x'30', x'01', 'office', 1);
        INSERT INTO resource (id, account_id, site_id, name, address, created_ms) VALUES (x'40', x'01', x'30', 'wiki', '{}', 1);
        INSERT INTO policy (id, account_id, group_id, resource_id, created_ms) VALUES (x'50', x'01', x'20', x'40', 1);
        INSERT INTO token (id, account_id, kind, name, hash, actor_id, site_id, created_ms) VALUES
            (x'60', x'01', 'client', 'c', x'00', x'12', NULL, 1), (x'61', x'01', 'gateway', 'g', x'00', NULL, x'30', 1),
            (x'62', x'01', 'relay', 'r', x'00', NULL, NULL, 1);
        INSERT INTO device (id, account_id, kind, external_id, actor_id, site_id, token_id, name, public_key, version,
                            address_index, created_ms, last_seen_ms) VALUES
            (x'70', x'01', 'client', x'00', x'12', NULL, x'60', 'd', x'01', '1', 1, 1, 1),
            (x'71', x'01', 'gateway', x'00', NULL, x'30', x'61', 'g', x'02', '1', 2, 1, 1);
        INSERT INTO relay (id, account_id, external_id, token_id, name, version, port, created_ms, last_seen_ms)
            VALUES (x'80', x'01', x'00', x'62', 'r', '1', 3478, 1, 1);
        INSERT INTO lease (id, account_id, client_id, gateway_id, resource_id, policy_id, token_id, request_id,
                           created_ms, expires_ms) VALUES (x'90', x'01', x'70', x'71', x'40', x'50', x'60', 1, 1, 2);";

    /// Nothing that refers to a token is lost when a further kind of them is allowed.
    #[tokio::test]
    async fn what_was_there_before_roles_is_there_after() {
        const ROLES: i64 = 6;
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("portal.db"))
            .create_if_missing(true)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let run = async |text: sqlx::SqlStr| {
            let mut tx = pool.begin().await.unwrap();
            sqlx::raw_sql(text).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
        };
        for migration in SQLITE.iter().filter(|migration| migration.version < ROLES) {
            run(migration.sql.clone()).await;
        }
        run(sqlx::SqlStr::from_static(BEFORE_ROLES)).await;
        for migration in SQLITE.iter().filter(|migration| migration.version >= ROLES) {
            run(migration.sql.clone()).await;
        }
        let roles: Vec<(String, String)> =
            sqlx::query_as("SELECT name, role FROM actor ORDER BY id").fetch_all(&pool).await.unwrap();
        let roles: Vec<(&str, &str)> =
            roles.iter().map(|(name, role)| (name.as_str(), role.as_str())).collect();
        assert_eq!(roles, [("owner", "owner"), ("second", "admin"), ("ana", "none")]);
        let held: (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM lease), (SELECT count(*) FROM token),
                    (SELECT count(*) FROM device WHERE token_id IS NOT NULL),
                    (SELECT count(*) FROM relay WHERE token_id IS NOT NULL)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(held, (1, 3, 2, 1));
        let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&pool).await.unwrap();
        assert!(broken.is_empty());
        let scim = "INSERT INTO token (id, account_id, kind, name, hash, created_ms) VALUES (x'63', x'01', ?, 's', x'00', 1)";
        assert!(sqlx::query(scim).bind("nonsense").execute(&pool).await.is_err());
        sqlx::query(scim).bind("scim").execute(&pool).await.unwrap();
        let deleted = sqlx::query("DELETE FROM token WHERE id = x'60'").execute(&pool).await.unwrap();
        assert_eq!(deleted.rows_affected(), 1);
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM lease").fetch_one(&pool).await.unwrap();
        assert_eq!(left, 0, "references still reach the table of this name");
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
