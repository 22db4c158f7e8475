//! A queue of named deadlines: the next one is at hand whatever the number of entries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines by name; each name has at most one.
#[derive(Debug)]
pub(crate) struct Deadlines<Name> {
    by_name: BTreeMap<Name, Instant>,
    by_time: BTreeSet<(Instant, Name)>,
}

impl<Name: Copy + Ord> Deadlines<Name> {
    pub(crate) const fn new() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the deadline of `name` and replaces an earlier one.
    pub(crate) fn set(&mut self, name: Name, at: Instant) {
        self.clear(name);
        self.by_name.insert(name, at);
        self.by_time.insert((at, name));
    }

    /// Sets the deadline of `name`, unless it has one that is due sooner.
    pub(crate) fn set_at_latest(&mut self, name: Name, at: Instant) {
        if self.by_name.get(&name).is_none_or(|present| at < *present) {
            self.set(name, at);
        }
    }

    pub(crate) fn clear(&mut self, name: Name) {
        if let Some(at) = self.by_name.remove(&name) {
            self.by_time.remove(&(at, name));
        }
    }

    /// When `name` is due, if it is.
    pub(crate) fn deadline(&self, name: Name) -> Option<Instant> {
        self.by_name.get(&name).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn clear_all(&mut self) {
        self.by_name.clear();
        self.by_time.clear();
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<(Instant, Name)> {
        self.by_time.first().copied()
    }

    /// Removes and returns a name whose deadline is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Name> {
        let (at, name) = self.next()?;
        if at > now {
            return None;
        }
        self.clear(name);
        Some(name)
    }
}
