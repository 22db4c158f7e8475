//! Doubly linked lists inside slabs: whoever owns many entries of one table finds and drops them
//! without a search, and an entry leaves its list in constant time.

use slab::Slab;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// An entry's neighbours in the list it is on.
#[derive(Copy, Clone, Debug)]
pub(super) struct Links {
    previous: u32,
    pub(super) next: u32,
}

impl Links {
    /// On no list.
    pub(super) const NONE: Self = Self { previous: NONE, next: NONE };
}

/// An entry that can be on one list.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
}

/// Puts an entry in front of the list that starts at `head`.
pub(super) fn push<T: Linked>(slab: &mut Slab<T>, head: &mut u32, index: u32) {
    if let Some(first) = slab.get_mut(*head as usize) {
        first.links().previous = index;
    }
    if let Some(entry) = slab.get_mut(index as usize) {
        *entry.links() = Links { previous: NONE, next: *head };
    }
    *head = index;
}

/// Takes an entry off the list that starts at `head`.
pub(super) fn unlink<T: Linked>(slab: &mut Slab<T>, head: &mut u32, index: u32) {
    let Some(entry) = slab.get_mut(index as usize) else { return };
    let Links { previous, next } = std::mem::replace(entry.links(), Links::NONE);
    match slab.get_mut(previous as usize) {
        Some(before) => before.links().next = next,
        None => *head = next,
    }
    if let Some(after) = slab.get_mut(next as usize) {
        after.links().previous = previous;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked for (char, Links) {
        fn links(&mut self) -> &mut Links {
            &mut self.1
        }
    }

    fn read(slab: &Slab<(char, Links)>, head: u32) -> String {
        let first = slab.get(head as usize);
        std::iter::successors(first, |entry| slab.get(entry.1.next as usize)).map(|entry| entry.0).collect()
    }

    #[test]
    fn entries_leave_from_front_middle_and_end() {
        let mut slab = Slab::new();
        let mut head = NONE;
        for letter in "dcba".chars() {
            let index = slab.insert((letter, Links::NONE)) as u32;
            push(&mut slab, &mut head, index);
        }
        assert_eq!(read(&slab, head), "abcd");
        for (index, left) in [(2, "acd"), (3, "cd"), (0, "c"), (1, "")] {
            unlink(&mut slab, &mut head, index);
            assert_eq!(read(&slab, head), left);
        }
        assert_eq!(head, NONE);
    }
}
