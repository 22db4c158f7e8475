//! Doubly linked lists through the entries of a slab.
//!
//! Each entry has one link per *lane* and is in at most one list per lane: the wheel bucket
//! in which it is due, its grant, its peer. So an entry leaves all of them in constant time,
//! and everything of one grant is found without a scan.

use super::entry::Entry;
use super::slab::Slab;

/// No entry.
const NONE: u32 = u32::MAX;

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Lane {
    Wheel,
    Grant,
    Peer,
}

impl Lane {
    pub(crate) const COUNT: usize = 3;
}

/// The neighbours of an entry in one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    pub(crate) const UNLINKED: Self = Self { previous: NONE, next: NONE };
}

/// The first entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List(u32);

impl List {
    pub(crate) const EMPTY: Self = Self(NONE);

    pub(crate) const fn first(self) -> Option<u32> {
        if self.0 == NONE { None } else { Some(self.0) }
    }

    pub(crate) fn push(&mut self, entries: &mut Slab<Entry>, lane: Lane, number: u32) {
        let next = self.0;
        set(entries, lane, number, Link { previous: NONE, next });
        if let Some(after) = entries.get_mut(next) {
            after.links[lane as usize].previous = number;
        }
        self.0 = number;
    }

    pub(crate) fn remove(&mut self, entries: &mut Slab<Entry>, lane: Lane, number: u32) {
        let Some(entry) = entries.get_mut(number) else { return };
        let Link { previous, next } = std::mem::replace(&mut entry.links[lane as usize], Link::UNLINKED);
        if let Some(after) = entries.get_mut(next) {
            after.links[lane as usize].previous = previous;
        }
        match entries.get_mut(previous) {
            Some(before) => before.links[lane as usize].next = next,
            None if self.0 == number => self.0 = next,
            None => debug_assert!(false, "entry {number} is not in this list"),
        }
    }
}

fn set(entries: &mut Slab<Entry>, lane: Lane, number: u32, link: Link) {
    if let Some(entry) = entries.get_mut(number) {
        entry.links[lane as usize] = link;
    }
}
