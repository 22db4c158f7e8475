//! A queue of named deadlines: the next one is always at hand, whatever the number of entries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines by name; each name has at most one.
#[derive(Debug)]
pub(crate) struct Deadlines<Name> {
    by_name: BTreeMap<Name, Instant>,
    by_time: BTreeSet<(Instant, Name)>,
}

impl<Name: Copy + Ord> Deadlines<Name> {
    /// A queue without deadlines.
    pub(crate) fn new() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the deadline of `name`, replacing an earlier one.
    pub(crate) fn set(&mut self, name: Name, at: Instant) {
        self.clear(name);
        self.by_name.insert(name, at);
        self.by_time.insert((at, name));
    }

    /// Forgets the deadline of `name`.
    pub(crate) fn clear(&mut self, name: Name) {
        if let Some(at) = self.by_name.remove(&name) {
            self.by_time.remove(&(at, name));
        }
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
