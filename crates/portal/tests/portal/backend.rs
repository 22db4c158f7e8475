//! The database of a portal under test: the SQLite file in its data directory.

use adit_portal::Database;

pub(crate) struct Backend;

impl Backend {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) const fn database(&self) -> Option<Database> {
        None
    }

    /// What the program is given to use it.
    pub(crate) const fn arguments(&self) -> Vec<String> {
        Vec::new()
    }
}
