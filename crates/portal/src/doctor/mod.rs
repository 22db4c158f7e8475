//! `adit-portal doctor`: is this installation sound?
//!
//! Reads and changes nothing: the portal may run meanwhile, and a database of another schema is
//! reported rather than brought up to date. Each [`Check`] says what was looked at, what was
//! found, and what to do where something is wrong.
//!
//! Deliberately absent: repairing. Whoever repairs should know what was wrong.

mod database;
mod machine;

use std::path::PathBuf;

use serde::Serialize;
use url::Url;

use crate::data_dir::DataDir;
use crate::store::Database;

/// What to look at.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// The database, if it is not the SQLite file in the data directory.
    pub(crate) database: Option<Database>,
    /// How peers reach the portal; from the bootstrap if absent.
    pub(crate) url: Option<Url>,
    /// The certificate that is served, if it is not the one in the data directory.
    pub(crate) certificate: Option<PathBuf>,
    /// Number and seal of an entry of the audit log that was noted earlier.
    pub(crate) noted: Option<(i64, String)>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Nothing could be said, because of something else.
    Skipped,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work, or will not for long.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// What was found, in a sentence.
    pub(crate) detail: String,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self { name, state, detail: detail.into() }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail)
    }

    fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Warning, detail)
    }

    fn failed(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Failed, detail)
    }

    fn skipped(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, detail)
    }
}

/// Looks at everything.
pub(crate) async fn examine(options: &Options) -> Vec<Check> {
    let directory = DataDir::new(options.data_dir.clone());
    let database = options.database.clone().unwrap_or_else(|| directory.default_database());
    let mut checks = vec![machine::permissions(&directory), machine::disk(&options.data_dir)];
    let certificate = options.certificate.clone().unwrap_or_else(|| directory.tls("server.pem"));
    checks.push(machine::certificate(&certificate));
    let found = database::examine(&database, &directory, options.noted.as_ref()).await;
    let url = options.url.clone().or(found.url);
    checks.extend(found.checks);
    checks.push(machine::reachability(url.as_ref(), &directory).await);
    checks
}
