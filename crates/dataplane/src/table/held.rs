//! New flows whose packets must wait their turn.
//!
//! The first packets of a flow are with the control thread, or on their way to it, when the flow is installed. What the
//! worker sent at once would overtake them. So it goes on handing over the flow's packets in that direction until the
//! control thread has dealt with all that it had been given by then.

use std::collections::VecDeque;

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
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: VecDeque<Waiting>,
    /// Misses that the control thread was given so far.
    pub(super) misses: u64,
}

impl Held {
    /// Holds a flow; returns one that must be let go for it.
    pub(super) fn push(&mut self, number: u32, generation: u32) -> Option<Waiting> {
        self.waiting.push_back(Waiting { number, generation, misses: self.misses });
        if self.waiting.len() > MOST { self.waiting.pop_front() } else { None }
    }

    /// The next flow that need not wait any longer.
    pub(super) fn pop(&mut self, misses: u64) -> Option<Waiting> {
        let next = self.waiting.pop_front_if(|waiting| waiting.misses <= misses);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            // A burst of new flows is over.
            self.waiting = VecDeque::new();
        }
        next
    }
}
