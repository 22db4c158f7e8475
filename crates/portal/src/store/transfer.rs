//! The whole content of a database, row by row: for backups, and for moving to another database.
//!
//! Rows come table by table in the order of references, each table in the order of its key, as
//! JSON arrays. Two databases with the same content give the same lines, whichever kind they
//! are, so a digest of the lines proves a copy.
//!
//! Deliberately absent: the outbox, nodes, presence, and answers to repeated requests, because whoever connects after a
//! move or a restoration gets complete state; and sessions and sign-ins under way, which begin anew.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::sql::{Transaction, Value};
use super::{By, Database, Store, StoreError, sql};

/// How a column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Integer,
    Text,
    Bytes,
    Boolean,
}

use Kind::{Boolean, Bytes, Integer, Text, Uuid as Id};

/// One table: its name, the columns of its key, and all of its columns.
struct Table {
    name: &'static str,
    key: &'static str,
    columns: &'static [(&'static str, Kind)],
}

/// Every table that is transferred, referenced ones first.
const TABLES: [Table; 21] = [
    Table {
        name: "account",
        key: "id",
        columns: &[
            ("id", Id),
            ("name", Text),
            ("ipv4_range", Text),
            ("ipv6_range", Text),
            ("ipv4_proxy_range", Text),
            ("ipv6_proxy_range", Text),
            ("dns_upstreams", Text),
            ("search_domains", Text),
            ("created_ms", Integer),
            ("secrets_digest", Bytes),
        ],
    },
    Table {
        name: "actor",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("kind", Text),
            ("name", Text),
            ("role", Text),
            ("enabled", Boolean),
            ("managed_by", Text),
            ("external_id", Text),
            ("attributes", Text),
            ("modified_ms", Integer),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "sign_in_setting",
        key: "account_id",
        columns: &[
            ("account_id", Id),
            ("public_url", Text),
            ("device_session_days", Integer),
            ("devices_per_user", Integer),
        ],
    },
    Table {
        name: "local_credential",
        key: "actor_id",
        columns: &[
            ("actor_id", Id),
            ("password_hash", Text),
            ("totp_sealed", Text),
            ("totp_step", Integer),
            ("changed_ms", Integer),
        ],
    },
    Table { name: "recovery_code", key: "actor_id, hash", columns: &[("actor_id", Id), ("hash", Bytes)] },
    Table {
        name: "auth_provider",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("name", Text),
            ("issuer", Text),
            ("client_id", Text),
            ("client_secret_sealed", Text),
            ("scopes", Text),
            ("group_claim", Text),
            ("email_domains", Text),
            ("ca_pem", Text),
            ("links_directory", Boolean),
            ("just_in_time", Boolean),
            ("enabled", Boolean),
            ("created_ms", Integer),
            ("changed_ms", Integer),
        ],
    },
    Table {
        name: "identity",
        key: "id",
        columns: &[
            ("id", Id),
            ("provider_id", Id),
            ("subject", Text),
            ("actor_id", Id),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "actor_group",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("name", Text),
            ("everyone", Boolean),
            ("managed_by", Text),
            ("provider_id", Id),
            ("external_id", Text),
            ("modified_ms", Integer),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "membership",
        key: "group_id, actor_id",
        columns: &[("group_id", Id), ("actor_id", Id), ("created_ms", Integer)],
    },
    Table {
        name: "site",
        key: "id",
        columns: &[("id", Id), ("account_id", Id), ("name", Text), ("created_ms", Integer)],
    },
    Table {
        name: "resource",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("site_id", Id),
            ("name", Text),
            ("address", Text),
            ("filters", Text),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "policy",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("group_id", Id),
            ("resource_id", Id),
            ("enabled", Boolean),
            ("conditions", Text),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "token",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("kind", Text),
            ("name", Text),
            ("hash", Bytes),
            ("actor_id", Id),
            ("site_id", Id),
            ("created_ms", Integer),
            ("expires_ms", Integer),
            ("revoked_ms", Integer),
            ("last_used_ms", Integer),
            ("scopes", Text),
            ("provider", Text),
            ("authenticated_ms", Integer),
        ],
    },
    Table {
        name: "device",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("kind", Text),
            ("external_id", Id),
            ("actor_id", Id),
            ("site_id", Id),
            ("token_id", Id),
            ("name", Text),
            ("public_key", Bytes),
            ("version", Text),
            ("address_index", Integer),
            ("remote_address", Text),
            ("verified_ms", Integer),
            ("created_ms", Integer),
            ("last_seen_ms", Integer),
        ],
    },
    Table {
        name: "relay",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("external_id", Id),
            ("token_id", Id),
            ("name", Text),
            ("version", Text),
            ("ipv4", Text),
            ("ipv6", Text),
            ("port", Integer),
            ("tcp_port", Integer),
            ("tls_port", Integer),
            ("created_ms", Integer),
            ("last_seen_ms", Integer),
        ],
    },
    Table {
        name: "connection",
        key: "client_id, gateway_id",
        columns: &[
            ("client_id", Id),
            ("gateway_id", Id),
            ("epoch", Integer),
            ("is_open", Boolean),
            ("client_ufrag", Text),
            ("client_password", Text),
            ("gateway_ufrag", Text),
            ("gateway_password", Text),
            ("created_ms", Integer),
        ],
    },
    Table {
        name: "lease",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("client_id", Id),
            ("gateway_id", Id),
            ("resource_id", Id),
            ("policy_id", Id),
            ("token_id", Id),
            ("request_id", Integer),
            ("created_ms", Integer),
            ("expires_ms", Integer),
        ],
    },
    Table {
        name: "audit",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("at_ms", Integer),
            ("who", Text),
            ("address", Text),
            ("action", Text),
            ("subject_kind", Text),
            ("subject_id", Id),
            ("detail", Text),
            ("before", Text),
            ("after", Text),
            ("seq", Integer),
            ("seal", Bytes),
        ],
    },
    Table {
        name: "flow_setting",
        key: "account_id",
        columns: &[
            ("account_id", Id),
            ("last_seq", Integer),
            ("keep_days", Integer),
            ("max_rows", Integer),
            ("sink_url", Text),
            ("sink_sealed", Text),
            ("sink_seq", Integer),
            ("sink_at_ms", Integer),
            ("sink_error", Text),
            ("from_clients", Boolean),
        ],
    },
    Table {
        name: "flow_spool",
        key: "device_id",
        columns: &[("device_id", Id), ("spool_id", Id), ("number", Integer)],
    },
    Table {
        name: "flow_log",
        key: "id",
        columns: &[
            ("id", Id),
            ("account_id", Id),
            ("seq", Integer),
            ("gateway_id", Id),
            ("gateway_name", Text),
            ("flow_id", Id),
            ("client_id", Id),
            ("client_name", Text),
            ("actor_id", Id),
            ("actor_name", Text),
            ("resource_id", Id),
            ("resource_name", Text),
            ("authorization_id", Id),
            ("protocol", Integer),
            ("source", Text),
            ("source_port", Integer),
            ("destination", Text),
            ("destination_port", Integer),
            ("name", Text),
            ("path", Text),
            ("opened_ms", Integer),
            ("at_ms", Integer),
            ("closed_ms", Integer),
            ("end_reason", Text),
            ("sent_packets", Integer),
            ("sent_bytes", Integer),
            ("received_packets", Integer),
            ("received_bytes", Integer),
            ("reporter_id", Id),
            ("reported_by", Text),
        ],
    },
];

/// Why rows could not be transferred.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rows could not be written or read where they come from or go to.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// A row does not fit.
    #[error("row {0} is damaged")]
    Damaged(usize),
    /// The copy is not what was copied.
    #[error("the copy differs: {found} rows instead of {expected}, or others")]
    Different {
        /// Rows of the copy.
        found: u64,
        /// Rows that were copied.
        expected: u64,
    },
    /// The target is in use.
    #[error("{0} holds a portal already")]
    NotEmpty(String),
}

impl From<sqlx::Error> for TransferError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Table {
    fn list(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn select(&self) -> String {
        format!("SELECT {} FROM {} ORDER BY {}", self.list(), self.name, self.key)
    }

    fn insert(&self) -> String {
        let places: Vec<String> = (1..=self.columns.len()).map(|place| format!("${place}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, self.list(), places.join(", "))
    }
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Rows of all tables.
    pub rows: u64,
    /// SHA-256 of them, in hex.
    pub digest: String,
}

/// Counts and digests the lines of rows.
pub(crate) struct Tally {
    rows: u64,
    digest: digest::Context,
}

impl Tally {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self { rows: 0, digest: digest::Context::new(&digest::SHA256) }
    }

    /// Takes a row in; its line comes back.
    pub(crate) fn line(&mut self, table: &str, row: &Json) -> String {
        let line = serde_json::json!({ "table": table, "row": row }).to_string();
        self.rows += 1;
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        line
    }

    /// Of everything that was taken in.
    pub(crate) fn close(self) -> Copied {
        let hex = self.digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Copied { rows: self.rows, digest: hex }
    }
}

/// `null`, text, number or boolean; ids as text, bytes in base64.
fn to_json(value: Value) -> Json {
    match value {
        Value::Uuid(value) => value.map(|id| id.to_string()).into(),
        Value::Integer(value) => value.into(),
        Value::Text(value) => value.into(),
        Value::Bytes(value) => value.map(|bytes| STANDARD.encode(bytes)).into(),
        Value::Boolean(value) => value.into(),
        // No column is one.
        Value::List(_) => Json::Null,
    }
}

fn from_json(json: &Json, kind: Kind) -> Option<Value> {
    let text = || if json.is_null() { Some(None) } else { json.as_str().map(Some) };
    Some(match kind {
        Kind::Uuid => Value::Uuid(text()?.map(Uuid::try_parse).transpose().ok()?),
        Kind::Integer if json.is_null() => Value::Integer(None),
        Kind::Integer => Value::Integer(Some(json.as_i64()?)),
        Kind::Text => Value::Text(text()?.map(str::to_owned)),
        Kind::Bytes => Value::Bytes(text()?.map(|text| STANDARD.decode(text)).transpose().ok()?),
        Kind::Boolean => Value::Boolean(json.as_bool()?),
    })
}

macro_rules! read_row {
    ($row:expr, $columns:expr) => {
        $columns
            .iter()
            .enumerate()
            .map(|(place, (_, kind))| {
                Ok(to_json(match kind {
                    Kind::Uuid => Value::Uuid($row.try_get(place)?),
                    Kind::Integer => Value::Integer($row.try_get(place)?),
                    Kind::Text => Value::Text($row.try_get(place)?),
                    Kind::Bytes => Value::Bytes($row.try_get(place)?),
                    Kind::Boolean => Value::Boolean($row.try_get(place)?),
                }))
            })
            .collect::<Result<Vec<Json>, sqlx::Error>>()?
    };
}

macro_rules! each_row {
    ($tx:expr, $table:expr, $row:ident => $take:expr) => {{
        let text = AssertSqlSafe($table.select());
        match $tx {
            Transaction::Sqlite(tx) => {
                let mut rows = sqlx::query(text).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await? {
                    let $row = read_row!(row, $table.columns);
                    $take;
                }
            }
            Transaction::Postgres(tx) => {
                let mut rows = sqlx::query(text).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await? {
                    let $row = read_row!(row, $table.columns);
                    $take;
                }
            }
        }
    }};
}

/// Hands every row to `take`: the name of its table and its columns as a JSON array.
async fn export(
    tx: &mut Transaction,
    take: &mut (dyn FnMut(&'static str, Json) -> std::io::Result<()> + Send),
) -> Result<(), TransferError> {
    for table in &TABLES {
        each_row!(tx, table, row => take(table.name, Json::Array(row))?);
    }
    Ok(())
}

/// What becomes of leases and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The portal goes on where it was: everything stays.
    Moved,
    /// Time has passed that the rows know nothing of: leases are granted anew, and no epoch is
    /// one that a peer has already seen.
    Restored,
}

impl Store {
    /// Hands every row of one moment to `take`; the portal may go on meanwhile.
    pub(crate) async fn export(
        &self,
        take: &mut (dyn FnMut(&'static str, Json) -> std::io::Result<()> + Send),
    ) -> Result<(), TransferError> {
        let mut tx = self.reader.begin().await?;
        export(&mut tx, take).await
    }

    /// Whether a portal is serving a shared database.
    pub(crate) async fn is_served(&self) -> Result<bool, StoreError> {
        Ok(self.is_shared() && !self.other_nodes(Uuid::nil()).await?.is_empty())
    }
}

/// Fills an empty database with `rows`; what is in it then must be what is `expected`.
pub(crate) async fn import(
    database: &Database,
    rows: &mut (dyn Iterator<Item = std::io::Result<(String, Json)>> + Send),
    expected: &Copied,
    arrival: Arrival,
) -> Result<(), TransferError> {
    let store = Store::open(database, true).await?;
    if !store.account_id().as_uuid().is_nil() {
        return Err(TransferError::NotEmpty(database.to_string()));
    }
    let statements: Vec<String> = TABLES.iter().map(Table::insert).collect();
    let mut change = store.change(&By::system()).await?;
    for (number, row) in rows.enumerate() {
        let (name, row) = row?;
        let damaged = || TransferError::Damaged(number + 1);
        let place = TABLES.iter().position(|table| table.name == name).ok_or_else(damaged)?;
        let columns = TABLES[place].columns;
        let row = row.as_array().filter(|row| row.len() == columns.len()).ok_or_else(damaged)?;
        let values: Option<Vec<Value>> =
            row.iter().zip(columns).map(|(json, (_, kind))| from_json(json, *kind)).collect();
        sql::insert(change.sql(), &statements[place], values.ok_or_else(damaged)?).await?;
    }
    let mut tally = Tally::new();
    let mut take = |table: &'static str, row: Json| {
        tally.line(table, &row);
        Ok(())
    };
    export(change.sql(), &mut take).await?;
    let found = tally.close();
    if found != *expected {
        return Err(TransferError::Different { found: found.rows, expected: expected.rows });
    }
    if arrival == Arrival::Restored {
        sql::query("DELETE FROM lease").execute(change.sql()).await?;
        sql::query("UPDATE connection SET epoch = epoch + 1048576, is_open = FALSE")
            .execute(change.sql())
            .await?;
        // Whoever follows the flow log has numbers of reports that this one knows nothing of.
        sql::query("UPDATE flow_setting SET last_seq = last_seq + 1048576").execute(change.sql()).await?;
    }
    change.commit().await?;
    store.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::on_both_databases;

    /// A column or table that a migration adds and this module does not know would be lost.
    async fn every_column_is_transferred(database: Database) {
        let store = Store::open(&database, true).await.unwrap();
        let text = if store.is_shared() {
            "SELECT table_name || '.' || column_name FROM information_schema.columns
             WHERE table_schema = 'public'"
        } else {
            "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c
             WHERE m.type = 'table'"
        };
        let stored: Vec<String> = sql::query_scalar(text).fetch_all(&store.reader).await.unwrap();
        let left_out = [
            "audit_retention.",
            "outbox.",
            "node.",
            "presence.",
            "idempotency.",
            "web_session.",
            "welcome_link.",
            "device_sign_in.",
            "_sqlx_migrations.",
            "sqlite_sequence.",
        ];
        let stored: BTreeSet<String> =
            stored.into_iter().filter(|name| !left_out.iter().any(|out| name.starts_with(out))).collect();
        let known: BTreeSet<String> = TABLES
            .iter()
            .flat_map(|table| table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)))
            .collect();
        assert_eq!(stored, known);
    }

    on_both_databases! { every_column_is_transferred }
}
