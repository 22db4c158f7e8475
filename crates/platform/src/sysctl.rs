//! Kernel settings that are changed for a while and put back.
//!
//! Every change is written to a record file first, so that a later run can undo it after a crash. A setting
//! that somebody else has changed meanwhile is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file;

/// Settings changed by us, with what they were.
#[derive(Debug)]
pub(crate) struct Journal {
    root: PathBuf,
    record: PathBuf,
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    key: String,
    before: String,
    after: String,
}

impl Journal {
    /// Settings below `root` (normally `/proc/sys`), recorded in `record`; takes over what a crashed run has
    /// left there.
    pub(crate) fn open(root: &Path, record: &Path) -> Self {
        let changes = match fs::read(record) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %record.display(), %error, "the record of changed kernel settings is unreadable");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self { root: root.to_owned(), record: record.to_owned(), changes }
    }

    /// The present value of a setting such as `net/ipv4/ip_forward`.
    pub(crate) fn get(&self, key: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(key)).map(|text| text.trim().to_owned())
    }

    /// Changes a setting; true when it was different.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> io::Result<bool> {
        let before = self.get(key)?;
        if before == value {
            return Ok(false);
        }
        let after = value.to_owned();
        match self.changes.iter_mut().find(|change| change.key == key) {
            Some(known) => known.after = after,
            None => self.changes.push(Change { key: key.to_owned(), before, after }),
        }
        self.save()?;
        fs::write(self.root.join(key), value)?;
        Ok(true)
    }

    /// Puts every setting back that still has our value, and forgets the record.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            let ours = self.get(&change.key).is_ok_and(|now| now == change.after);
            if ours && let Err(error) = fs::write(self.root.join(&change.key), &change.before) {
                result = Err(error);
                self.changes.push(change);
            }
        }
        self.changes.reverse();
        self.save()?;
        result
    }

    fn save(&self) -> io::Result<()> {
        if self.changes.is_empty() {
            return match fs::remove_file(&self.record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if let Some(directory) = self.record.parent() {
            fs::create_dir_all(directory)?;
        }
        let bytes = serde_json::to_vec_pretty(&self.changes)?;
        atomic_file::replace(&self.record, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        _directory: tempfile::TempDir,
        root: PathBuf,
        record: PathBuf,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("temporary directory");
            let root = directory.path().join("sys");
            fs::create_dir_all(root.join("net")).expect("makes");
            fs::write(root.join("net/a"), "0\n").expect("writes");
            fs::write(root.join("net/b"), "1\n").expect("writes");
            Self { record: directory.path().join("record.json"), root, _directory: directory }
        }

        fn journal(&self) -> Journal {
            Journal::open(&self.root, &self.record)
        }

        fn value(&self, key: &str) -> String {
            fs::read_to_string(self.root.join(key)).expect("reads").trim().to_owned()
        }
    }

    #[test]
    fn a_later_run_undoes_what_a_crashed_one_changed() {
        let world = World::new();
        let mut crashed = world.journal();
        assert!(crashed.set("net/a", "1").expect("sets"));
        assert!(crashed.set("net/a", "2").expect("sets"));
        assert!(!crashed.set("net/b", "1").expect("sets"));
        drop(crashed);
        let mut next = world.journal();
        assert!(next.set("net/b", "0").expect("sets"));
        next.restore().expect("restores");
        assert_eq!((world.value("net/a"), world.value("net/b")), ("0".to_owned(), "1".to_owned()));
        assert!(!world.record.exists());
        next.restore().expect("restores nothing");
    }

    #[test]
    fn what_somebody_else_changed_since_is_left_alone() {
        let world = World::new();
        let mut journal = world.journal();
        journal.set("net/a", "1").expect("sets");
        fs::write(world.root.join("net/a"), "2\n").expect("the administrator writes");
        journal.restore().expect("restores");
        assert_eq!(world.value("net/a"), "2");
    }

    #[test]
    fn a_missing_setting_is_an_error_and_leaves_no_record() {
        let world = World::new();
        assert!(world.journal().set("net/none", "1").is_err());
        assert!(!world.record.exists());
    }

    #[test]
    fn a_damaged_record_does_not_stop_the_program() {
        let world = World::new();
        fs::write(&world.record, "{half").expect("writes");
        let mut journal = world.journal();
        journal.set("net/a", "1").expect("sets");
        journal.restore().expect("restores");
        assert_eq!(world.value("net/a"), "0");
    }
}
