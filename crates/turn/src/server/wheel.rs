//! A timer wheel: setting, moving and clearing a deadline and finding the next one cost the same with
//! one deadline and with a million.
//!
//! Time is cut into ticks of a second, which is how TURN counts (RFC 8656, section 9: time-to-expiry
//! goes down once per second); deadlines are rounded up, so nothing ends early. Each slot of the wheel
//! lists the deadlines of one tick, and a bitmap of two levels says which slots are in use.

use super::links::{self, Linked, Links, NONE};
use slab::Slab;
use std::time::{Duration, Instant};

/// Ticks in one turn: longer than any lifetime that is given out. Later deadlines wait in the farthest
/// slot and are put on from there.
const SLOTS: u64 = 4096;
const WORDS: usize = SLOTS as usize / 64;

/// Names a deadline until it is due or cleared.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct TimerId(u32);

#[derive(Debug)]
struct Entry<Name> {
    name: Name,
    due: u64,
    /// Where it is listed: the slot of `due`, unless that is more than a turn away.
    slot: u16,
    links: Links,
}

impl<Name> Linked for Entry<Name> {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Deadlines by name.
#[derive(Debug)]
pub(super) struct Wheel<Name> {
    start: Instant,
    /// The tick before which nothing is left.
    tick: u64,
    heads: Box<[u32]>,
    used: [u64; WORDS],
    used_words: u64,
    entries: Slab<Entry<Name>>,
}

impl<Name: Copy> Wheel<Name> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            tick: 0,
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            used: [0; WORDS],
            used_words: 0,
            entries: Slab::new(),
        }
    }

    /// How many deadlines there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a deadline.
    pub(super) fn set(&mut self, name: Name, at: Instant) -> TimerId {
        let due = self.tick_after(at);
        let entry = Entry { name, due, slot: 0, links: Links::NONE };
        let index = self.entries.insert(entry) as u32;
        self.list(index, due);
        TimerId(index)
    }

    /// Moves a deadline.
    pub(super) fn reset(&mut self, TimerId(index): TimerId, at: Instant) {
        let due = self.tick_after(at);
        self.unlist(index);
        self.list(index, due);
    }

    /// Forgets a deadline.
    pub(super) fn clear(&mut self, TimerId(index): TimerId) {
        self.unlist(index);
        self.entries.try_remove(index as usize);
    }

    /// The earliest deadline, or a moment before it from which on it will be known better.
    pub(super) fn next(&self) -> Option<(Instant, Name)> {
        let (slot, tick) = self.first_used()?;
        let entry = self.entries.get(self.heads[slot] as usize)?;
        Some((self.start + Duration::from_secs(tick), entry.name))
    }

    /// Removes and returns a name whose deadline is not after `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Name> {
        let now = now.saturating_duration_since(self.start).as_secs();
        while let Some((slot, tick)) = self.first_used().filter(|&(_, tick)| tick <= now) {
            self.tick = tick;
            let index = self.heads[slot];
            self.unlist(index);
            let due = self.entries.get(index as usize)?.due;
            if due <= now {
                return Some(self.entries.remove(index as usize).name);
            }
            self.list(index, due);
        }
        self.tick = self.tick.max(now);
        None
    }

    /// The slot with the earliest deadlines, and its tick.
    fn first_used(&self) -> Option<(usize, u64)> {
        let here = (self.tick % SLOTS) as usize;
        let (word, bit) = (here / 64, here % 64);
        // From here to the end of the word, then the words after it, then those before, then the rest
        // of the word: the wheel is round.
        let rest = self.used[word] & (u64::MAX << bit);
        let after = self.used_words.rotate_right(word as u32) & !1;
        let slot = if rest != 0 {
            word * 64 + rest.trailing_zeros() as usize
        } else if after != 0 {
            let next = (word + after.trailing_zeros() as usize) % WORDS;
            next * 64 + self.used[next].trailing_zeros() as usize
        } else if self.used[word] != 0 {
            word * 64 + self.used[word].trailing_zeros() as usize
        } else {
            return None;
        };
        let distance = (slot + SLOTS as usize - here) as u64 % SLOTS;
        Some((slot, self.tick + distance))
    }

    fn list(&mut self, index: u32, due: u64) {
        let tick = due.clamp(self.tick, self.tick + SLOTS - 1);
        let slot = (tick % SLOTS) as usize;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            (entry.due, entry.slot) = (due, slot as u16);
            links::push(&mut self.entries, &mut self.heads[slot], index);
            self.used[slot / 64] |= 1 << (slot % 64);
            self.used_words |= 1 << (slot / 64);
        }
    }

    fn unlist(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize) else { return };
        let slot = usize::from(entry.slot);
        links::unlink(&mut self.entries, &mut self.heads[slot], index);
        if self.heads[slot] == NONE {
            self.used[slot / 64] &= !(1 << (slot % 64));
            if self.used[slot / 64] == 0 {
                self.used_words &= !(1 << (slot / 64));
            }
        }
    }

    /// The first tick that is not before `at`.
    fn tick_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        since.as_secs() + u64::from(since.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set { after: u64 },
        Reset { which: usize, after: u64 },
        Clear { which: usize },
        Pass { milliseconds: u64 },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let after = || prop_oneof![0..5000u64, 0..4_000_000u64, Just(4_095_000), Just(20_000_000)];
        prop_oneof![
            after().prop_map(|after| Step::Set { after }),
            (any::<usize>(), after()).prop_map(|(which, after)| Step::Reset { which, after }),
            any::<usize>().prop_map(|which| Step::Clear { which }),
            prop_oneof![0..3000u64, 0..6_000_000u64].prop_map(|milliseconds| Step::Pass { milliseconds }),
        ]
    }

    /// Milliseconds, rounded up to a second.
    fn rounded(at: u64) -> u64 {
        at.next_multiple_of(1000)
    }

    proptest! {
        /// Against a sorted map.
        #[test]
        fn deadlines_come_in_order_and_never_early(steps in prop::collection::vec(any_step(), 1..200)) {
            let start = Instant::now();
            let at = |milliseconds| start + Duration::from_millis(milliseconds);
            let mut wheel = Wheel::new(start);
            let (mut now, mut next_name, mut has_far) = (0, 0_u32, false);
            let mut model: BTreeMap<u32, (TimerId, u64)> = BTreeMap::new();
            for step in steps {
                let nth = |which: usize| {
                    let index = which.checked_rem(model.len())?;
                    model.iter().nth(index).map(|(name, (id, _))| (*name, *id))
                };
                match step {
                    Step::Set { after } => {
                        has_far |= after > 4_000_000;
                        let id = wheel.set(next_name, at(now + after));
                        model.insert(next_name, (id, now + after));
                        next_name += 1;
                    }
                    Step::Reset { which, after } => if let Some((name, id)) = nth(which) {
                        has_far |= after > 4_000_000;
                        wheel.reset(id, at(now + after));
                        model.insert(name, (id, now + after));
                    },
                    Step::Clear { which } => if let Some((name, id)) = nth(which) {
                        wheel.clear(id);
                        model.remove(&name);
                    },
                    Step::Pass { milliseconds } => {
                        now += milliseconds;
                        let mut last = 0;
                        while let Some(name) = wheel.pop_due(at(now)) {
                            let (_, due) = model.remove(&name).expect("known");
                            prop_assert!(rounded(due) <= now && (has_far || rounded(due) >= last));
                            last = rounded(due);
                        }
                        prop_assert!(model.values().all(|(_, due)| rounded(*due) > now));
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().map(|(_, due)| rounded(*due)).min();
                let next = wheel.next().map(|(at, _)| at);
                // What was more than a turn away may wake up early, and out of order.
                let is_right = next == earliest.map(at);
                prop_assert!(is_right || has_far && next < earliest.map(at) && next.is_some());
            }
        }
    }
}
