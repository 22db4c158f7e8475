//! `adit-portal backup`, `restore` and `migrate`.
//!
//! A backup is one file of JSON Lines, readable by its owner only:
//!
//! ```text
//! {"adit_backup":1,"schema":…,"made_ms":…,"version":"…"}
//! {"file":"secrets/portal.key","content":"…base64…"}
//! {"table":"account","row":[…]}
//! {"end":true,"rows":…,"digest":"…SHA-256 of the row lines…"}
//! ```
//!
//! It says nothing of the kind of database it came from: what was backed up from SQLite can be
//! restored on PostgreSQL. Moving an installation is a backup that is restored at once, compared
//! row by row, without the files.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::clock;
use crate::data_dir::{DataDir, write_private};
pub use crate::store::Copied;
use crate::store::{Arrival, Database, Store, Tally, import, newest_schema};

/// The newest form of a backup that this program writes and reads.
const FORM: u64 = 1;

/// Writes a backup of a portal, which may be running.
///
/// # Errors
///
/// When the file exists already or cannot be written, or the portal cannot be read.
pub async fn backup(
    data_dir: &Path,
    database: Option<&Database>,
    file: &Path,
    with_secrets: bool,
) -> Result<Copied> {
    let directory = DataDir::new(data_dir.to_owned());
    let database = database.cloned().unwrap_or_else(|| directory.default_database());
    ensure!(database.may_exist(), "{} holds no portal", data_dir.display());
    let store = open(&database).await?;
    write_private(file, b"")?;
    let written = write_backup(&store, &directory, file, with_secrets).await;
    store.close().await;
    if written.is_err() {
        // Half a backup is worse than none.
        let _ = std::fs::remove_file(file);
    }
    written
}

async fn write_backup(store: &Store, directory: &DataDir, path: &Path, with_secrets: bool) -> Result<Copied> {
    let file =
        File::options().write(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let version = env!("CARGO_PKG_VERSION");
    let (schema, made_ms) = (newest_schema(), clock::now_ms());
    let header = json!({ "adit_backup": FORM, "schema": schema, "made_ms": made_ms, "version": version });
    writeln!(out, "{header}")?;
    if with_secrets {
        for name in directory.files() {
            let content =
                std::fs::read(directory.path(name)).with_context(|| format!("cannot read {name}"))?;
            writeln!(out, "{}", json!({ "file": name, "content": STANDARD.encode(content) }))?;
        }
    }
    let mut tally = Tally::new();
    store.export(&mut |table, row| writeln!(out, "{}", tally.line(table, &row))).await?;
    let copied = tally.close();
    writeln!(out, "{}", json!({ "end": true, "rows": copied.rows, "digest": copied.digest }))?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(copied)
}

/// Restores a backup into an empty data directory and an empty database.
///
/// # Errors
///
/// When there is something already, or the backup is damaged; then nothing is left behind.
pub async fn restore(data_dir: &Path, database: Option<&Database>, file: &Path) -> Result<Copied> {
    let directory = DataDir::new(data_dir.to_owned());
    let database = database.cloned().unwrap_or_else(|| directory.default_database());
    let plan = read_through(file)?;
    if let Database::Sqlite(path) = &database {
        ensure!(!path.exists(), "{database} exists already; a backup is restored into an empty place");
    }
    for (name, _) in &plan.files {
        ensure!(!directory.path(name).exists(), "{} exists already", directory.path(name).display());
    }
    directory.create()?;
    let restored = async {
        for (name, content) in &plan.files {
            write_private(&directory.path(name), content)?;
        }
        let secrets = directory.secrets().context("the backup holds no secrets; copy them here first")?;
        copy_in(&database, file, &plan.copied, Arrival::Restored).await?;
        let store = open(&database).await?;
        let fits = store.bind_secrets(&secrets.digest()?).await?;
        store.close().await;
        ensure!(fits, "the secrets in {} do not belong to this backup", data_dir.display());
        Ok(plan.copied.clone())
    }
    .await;
    if restored.is_err() {
        plan.files.iter().for_each(|(name, _)| drop(std::fs::remove_file(directory.path(name))));
        remove_sqlite(&database);
    }
    restored
}

/// Moves a portal that does not run to another database, and sets the old one aside.
///
/// # Errors
///
/// When the portal runs, the other database is not empty, or the copy differs; the portal then is
/// as it was.
pub async fn migrate(data_dir: &Path, from: Option<&Database>, to: &Database) -> Result<Copied> {
    let directory = DataDir::new(data_dir.to_owned());
    let from = from.cloned().unwrap_or_else(|| directory.default_database());
    ensure!(&from != to, "the portal is there already");
    ensure!(from.may_exist(), "{} holds no portal", data_dir.display());
    let _lock = from.lock().context("stop the portal first")?;
    let store = open(&from).await?;
    ensure!(!store.is_served().await?, "stop all nodes first: one is running, or was a few seconds ago");
    let file = data_dir.join("migration.jsonl");
    write_private(&file, b"").context("is another migration running?")?;
    let moved = async {
        let copied = write_backup(&store, &directory, &file, false).await?;
        copy_in(to, &file, &copied, Arrival::Moved).await?;
        Ok(copied)
    }
    .await;
    let _ = std::fs::remove_file(&file);
    store.close().await;
    if moved.is_ok()
        && let Database::Sqlite(path) = &from
    {
        // Served once more by mistake, it would bring back what is revoked from now on.
        let aside = PathBuf::from(format!("{}.migrated", path.display()));
        std::fs::rename(path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
    }
    moved
}

async fn open(database: &Database) -> Result<Store> {
    let store =
        Store::open(database, false).await.with_context(|| format!("cannot open the database {database}"))?;
    ensure!(!store.account_id().as_uuid().is_nil(), "{database} holds no account");
    Ok(store)
}

/// Fills a database from a file; it counts only when what is in it is what was expected.
async fn copy_in(database: &Database, file: &Path, expected: &Copied, arrival: Arrival) -> Result<()> {
    let mut rows = lines(file)?.filter_map(|line| match line {
        Ok(Line::Row(table, row)) => Some(Ok((table, row))),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    import(database, &mut rows, expected, arrival)
        .await
        .with_context(|| format!("cannot fill the database {database}"))
}

fn remove_sqlite(database: &Database) {
    if let Database::Sqlite(path) = database {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}

/// One line of a backup.
enum Line {
    Header { form: u64, schema: i64 },
    File(String, Vec<u8>),
    Row(String, Json),
    End(Copied),
}

fn lines(path: &Path) -> Result<impl Iterator<Item = io::Result<Line>> + Send> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::new(file).lines().enumerate().map(|(number, line)| {
        let damaged = || io::Error::other(format!("line {} of the backup is damaged", number + 1));
        parse(&line?).ok_or_else(damaged)
    }))
}

fn parse(line: &str) -> Option<Line> {
    let mut line: Json = serde_json::from_str(line).ok()?;
    if let Some(form) = line.get("adit_backup") {
        return Some(Line::Header { form: form.as_u64()?, schema: line.get("schema")?.as_i64()? });
    }
    if let Some(name) = line.get("file") {
        let content = STANDARD.decode(line.get("content")?.as_str()?).ok()?;
        return Some(Line::File(name.as_str()?.to_owned(), content));
    }
    if let Some(table) = line.get("table") {
        let table = table.as_str()?.to_owned();
        return Some(Line::Row(table, line.get_mut("row")?.take()));
    }
    line.get("end")?;
    let digest = line.get("digest")?.as_str()?.to_owned();
    Some(Line::End(Copied { rows: line.get("rows")?.as_u64()?, digest }))
}

/// What a backup holds besides rows.
struct Plan {
    files: Vec<(String, Vec<u8>)>,
    copied: Copied,
}

/// Reads a backup from end to end: nothing is touched before it is known to be whole.
fn read_through(path: &Path) -> Result<Plan> {
    let mut files = Vec::new();
    let mut tally = Tally::new();
    let mut end = None;
    for (number, line) in lines(path)?.enumerate() {
        ensure!(end.is_none(), "the backup goes on after its end");
        match line? {
            Line::Header { form, schema } => {
                ensure!(number == 0, "the backup begins twice");
                let newest = newest_schema();
                ensure!(form <= FORM && schema <= newest, "the backup was made by a newer adit-portal");
                // Rows are read as they were written; what comes between two schemas is for the migrations.
                ensure!(
                    schema == newest,
                    "the backup is of schema {schema}, and this program makes {newest}: restore it with the \
                     adit-portal that wrote it, and let this one serve the result"
                );
            }
            _ if number == 0 => bail!("{} is no backup of this program", path.display()),
            Line::File(name, content) => {
                ensure!(DataDir::is_ours(&name), "the backup holds a strange file: {name}");
                files.push((name, content));
            }
            Line::Row(table, row) => {
                tally.line(&table, &row);
            }
            Line::End(copied) => end = Some(copied),
        }
    }
    let end = end.context("the backup has no end: it is cut off")?;
    ensure!(tally.close() == end, "the backup is damaged: its rows are not those that were written");
    Ok(Plan { files, copied: end })
}
