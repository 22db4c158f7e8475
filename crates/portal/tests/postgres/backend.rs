//! A database on a PostgreSQL server for each portal under test.

use adit_portal::Database;

use crate::server::{TestDatabase, psql};

pub(crate) struct Backend(TestDatabase);

impl Backend {
    pub(crate) fn new() -> Self {
        Self(TestDatabase::create())
    }

    pub(crate) fn database(&self) -> Option<Database> {
        Some(self.url().parse().unwrap())
    }

    /// What the program is given to use it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        vec!["--database".to_owned(), self.url()]
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        psql(&self.0.name, text)
    }
}
