//! New flows whose packets must wait their turn.
//!
//! The first packets of a flow are with the control thread, or on their way to it, when the flow is installed. What the
//! worker sent at once would overtake them. So it goes on handing over the flow's packets in that direction until the
//! control thread has dealt with all that it had been given, those meanwhile included.

use std::collections::VecDeque;

use crate::hasher::{SeededMap, SeededState};

/// Flows held at most; the oldest is let go for another.
const MOST: usize = 8192;

/// Room for so many is kept when none is held.
const KEPT: usize = 256;

/// A flow that is held, by the number and generation of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) number: u32,
    pub(super) generation: u32,
    /// Misses that must be dealt with first.
    misses: u64,
}

/// All that are held, oldest first.
#[derive(Debug)]
pub(super) struct Held {
    waiting: VecDeque<Waiting>,
    /// Misses that the control thread was given so far.
    misses: u64,
    /// How many these were after a held entry's last packet, by number.
    last: SeededMap<u32, u64>,
    /// The held entry whose packet is a miss just now.
    current: Option<u32>,
}

impl Held {
    pub(super) fn new(state: SeededState) -> Self {
        Self { waiting: VecDeque::new(), misses: 0, last: SeededMap::with_hasher(state), current: None }
    }

    /// Says whose packet is a miss now.
    pub(super) const fn note(&mut self, number: Option<u32>) {
        self.current = number;
    }

    /// The control thread was given that packet.
    pub(super) fn note_miss(&mut self) {
        self.misses += 1;
        if let Some(number) = self.current {
            self.last.insert(number, self.misses);
        }
    }

    /// Holds a flow; returns one that must be let go for it.
    pub(super) fn push(&mut self, number: u32, generation: u32) -> Option<Waiting> {
        self.last.remove(&number); // of an earlier entry
        self.waiting.push_back(Waiting { number, generation, misses: self.misses });
        if self.waiting.len() > MOST { self.pop(u64::MAX) } else { None }
    }

    /// The next flow that need not wait any longer.
    pub(super) fn pop(&mut self, misses: u64) -> Option<Waiting> {
        while let Some(next) = self.waiting.pop_front_if(|waiting| waiting.misses <= misses) {
            match self.last.get(&next.number) {
                Some(later) if *later > misses => {
                    self.waiting.push_back(Waiting { misses: *later, ..next });
                }
                _ => {
                    self.last.remove(&next.number);
                    self.shrink();
                    return Some(next);
                }
            }
        }
        None
    }

    /// Gives memory back after a burst of new flows.
    fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
            self.last.shrink_to(KEPT);
        }
    }
}
