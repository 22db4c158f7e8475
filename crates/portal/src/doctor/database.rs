//! What the database says: schema, integrity, clock, secrets, the audit log, who serves.

use url::Url;

use super::Check;
use crate::clock;
use crate::credential::Secrets;
use crate::data_dir::DataDir;
use crate::store::{Database, Page, Sealer, Store, Verified, newest_schema};

/// Clocks that differ by more make leases end too early or too late.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    /// How peers reach the portal, as bootstrap was told.
    pub(super) url: Option<Url>,
}

/// Looks at the database, as far as it is one that this program knows.
pub(super) async fn examine(
    database: &Database,
    directory: &DataDir,
    noted: Option<&(i64, String)>,
) -> Found {
    let mut found = Found::default();
    let schema = schema(database).await;
    let is_ours = schema.state == super::State::Ok;
    found.checks.push(schema);
    if !is_ours {
        return found;
    }
    let store = match Store::open(database, false).await {
        Ok(store) => store,
        Err(error) => {
            found.checks.push(Check::failed("database", error.to_string()));
            return found;
        }
    };
    found.checks.extend([integrity(&store).await, clocks(&store).await]);
    match directory.secrets() {
        Ok(secrets) => {
            found.checks.push(digest(&store, &secrets).await);
            found.checks.push(audit(&store, &secrets, noted).await);
        }
        Err(_) => found.checks.push(Check::skipped("secrets", "the secret files cannot be read")),
    }
    found.checks.extend([gateways(&store).await, relays(&store).await]);
    found.url = store.declared_url().await.ok().flatten().and_then(|url| url.parse().ok());
    store.close().await;
    found
}

async fn schema(database: &Database) -> Check {
    const NAME: &str = "schema";
    if !database.may_exist() {
        return Check::failed(NAME, format!("{database} is not there; run `adit-portal bootstrap`"));
    }
    let ours = newest_schema();
    match database.schema().await {
        Ok(found) if found == ours => Check::ok(NAME, format!("{database} has schema {found}")),
        Ok(found) if found < ours => Check::warning(
            NAME,
            format!("schema {found}; the next start brings it to {ours} (make a backup before)"),
        ),
        Ok(found) => Check::failed(NAME, format!("schema {found} is newer than this program's {ours}")),
        Err(error) => Check::failed(NAME, format!("cannot read {database}: {error}")),
    }
}

async fn integrity(store: &Store) -> Check {
    match store.integrity().await {
        Ok(found) if found == "ok" => Check::ok("database", "answers, and is undamaged"),
        Ok(found) => Check::failed("database", format!("{found}; restore a backup")),
        Err(error) => Check::failed("database", error.to_string()),
    }
}

/// The database's clock against ours, and ours against what it has stamped before.
async fn clocks(store: &Store) -> Check {
    const NAME: &str = "clock";
    let (theirs, newest) = match (store.clock_ms().await, store.audit(Page::NEWEST).await) {
        (Ok(theirs), Ok(newest)) => (theirs, newest.first().map_or(0, |row| row.at_ms)),
        (Err(error), _) | (_, Err(error)) => return Check::failed(NAME, error.to_string()),
    };
    let now = clock::now_ms();
    let apart = now - theirs;
    if apart.abs() > CLOCK_TOLERANCE_MS {
        return Check::failed(NAME, format!("{apart} ms apart from the database's; run a time service"));
    }
    if newest > now + CLOCK_TOLERANCE_MS {
        let ahead = newest - now;
        return Check::failed(NAME, format!("the audit log is {ahead} ms ahead: the clock was set back"));
    }
    Check::ok(NAME, "agrees with the database and with the audit log")
}

async fn digest(store: &Store, secrets: &Secrets) -> Check {
    const NAME: &str = "secrets";
    let ours = match secrets.digest() {
        Ok(digest) => digest,
        Err(error) => return Check::failed(NAME, error.to_string()),
    };
    match store.secrets_digest().await {
        Ok(Some(theirs)) if theirs == ours.as_slice() => Check::ok(NAME, "belong to this database"),
        Ok(Some(_)) => Check::failed(NAME, "belong to another installation than the database"),
        Ok(None) => Check::warning(NAME, "not yet bound to the database; serving once does it"),
        Err(error) => Check::failed(NAME, error.to_string()),
    }
}

async fn audit(store: &Store, secrets: &Secrets, noted: Option<&(i64, String)>) -> Check {
    const NAME: &str = "audit";
    let verified = match secrets.audit_key() {
        Ok(key) => store.verify_audit(&Sealer::new(&key)).await,
        Err(error) => return Check::failed(NAME, error.to_string()),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return Check::failed(NAME, error.to_string()),
    };
    if let Some((seq, seal)) = noted {
        match store.audit_seal(*seq).await {
            Ok(Some(found)) if found == *seal => {}
            Ok(Some(_)) => return Check::failed(NAME, format!("entry {seq} is another than the one noted")),
            Ok(None) => return Check::failed(NAME, format!("entry {seq}, which was noted, is missing")),
            Err(error) => return Check::failed(NAME, error.to_string()),
        }
    }
    judge_audit(&verified)
}

fn judge_audit(verified: &Verified) -> Check {
    const NAME: &str = "audit";
    let Verified { entries, unsealed, last_seq, last_seal, fault } = verified;
    match (fault, last_seal) {
        (Some(fault), _) => Check::failed(NAME, fault.clone()),
        (None, Some(seal)) => {
            let old = if *unsealed > 0 { format!(", {unsealed} from before seals") } else { String::new() };
            Check::ok(NAME, format!("{entries} entries are whole{old}; the last is {last_seq}:{seal}"))
        }
        (None, None) => Check::warning(NAME, format!("none of {entries} entries is sealed yet")),
    }
}

async fn gateways(store: &Store) -> Check {
    match (store.devices("gateway", Page::FIRST).await, store.sites(Page::FIRST).await) {
        (Ok(gateways), Ok(sites)) => {
            let count = gateways.len();
            if sites.is_empty() {
                Check::warning("gateways", "there is no site yet")
            } else if count == 0 {
                Check::warning("gateways", format!("none has ever signed in at {} sites", sites.len()))
            } else {
                Check::ok("gateways", format!("{count} at {} sites", sites.len()))
            }
        }
        (Err(error), _) | (_, Err(error)) => Check::failed("gateways", error.to_string()),
    }
}

async fn relays(store: &Store) -> Check {
    match store.relays(Page::FIRST).await {
        Ok(relays) if relays.is_empty() => {
            Check::warning("relays", "none has ever signed in; peers behind strict NATs cannot connect")
        }
        Ok(relays) => Check::ok("relays", format!("{} have signed in", relays.len())),
        Err(error) => Check::failed("relays", error.to_string()),
    }
}
