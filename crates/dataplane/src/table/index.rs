//! Hash index from keys to entries: open addressing, linear probing.
//!
//! A bucket holds 32 bits of the key's hash and a 32-bit value, eight bytes in all, so one
//! cache line answers most lookups. The keys themselves stay in the entries; the caller says
//! whether a value is the one it looks for. Removal shifts later buckets back instead of
//! leaving marks, so the index does not wear out.

/// A bucket without a value.
const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    hash: u32,
    value: u32,
}

/// Values by hash; never more than four fifths full.
#[derive(Debug)]
pub(crate) struct Index {
    buckets: Vec<Bucket>,
    mask: usize,
    length: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::with_buckets(64)
    }

    fn with_buckets(count: usize) -> Self {
        Self { buckets: vec![Bucket { hash: 0, value: EMPTY }; count], mask: count - 1, length: 0 }
    }

    /// The value with this hash for which `matches` says yes.
    pub(crate) fn find(&self, hash: u32, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut position = hash as usize & self.mask;
        loop {
            let Bucket { hash: there, value } = self.buckets[position];
            if value == EMPTY {
                return None;
            }
            if there == hash && matches(value) {
                return Some(value);
            }
            position = (position + 1) & self.mask;
        }
    }

    /// Adds a value, which must not be `u32::MAX` and must not be present.
    pub(crate) fn insert(&mut self, hash: u32, value: u32) {
        if (self.length + 1) * 5 > self.buckets.len() * 4 {
            self.grow();
        }
        self.place(Bucket { hash, value });
        self.length += 1;
    }

    /// Removes a value; nothing happens if it is absent.
    pub(crate) fn remove(&mut self, hash: u32, value: u32) {
        let mut hole = hash as usize & self.mask;
        while self.buckets[hole].value != value {
            if self.buckets[hole].value == EMPTY {
                return;
            }
            hole = (hole + 1) & self.mask;
        }
        self.length -= 1;
        let mut next = hole;
        loop {
            next = (next + 1) & self.mask;
            let bucket = self.buckets[next];
            if bucket.value == EMPTY {
                break;
            }
            // A bucket may fill the hole if the hole lies on its way from its home.
            let home = bucket.hash as usize & self.mask;
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                self.buckets[hole] = bucket;
                hole = next;
            }
        }
        self.buckets[hole].value = EMPTY;
    }

    fn place(&mut self, bucket: Bucket) {
        let mut position = bucket.hash as usize & self.mask;
        while self.buckets[position].value != EMPTY {
            position = (position + 1) & self.mask;
        }
        self.buckets[position] = bucket;
    }

    fn grow(&mut self) {
        let larger = Self::with_buckets(self.buckets.len() * 2);
        let length = self.length;
        let old = std::mem::replace(self, larger);
        for bucket in old.buckets.into_iter().filter(|bucket| bucket.value != EMPTY) {
            self.place(bucket);
        }
        self.length = length;
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct hashes, so that probing, wrapping and shifting all happen.
        #[test]
        fn agrees_with_a_map(
            operations in prop::collection::vec((any::<bool>(), 0u32..120), 1..600),
            spread in prop_oneof![Just(1u32), Just(7), Just(0x0100_0193)],
        ) {
            let hash = |value: u32| (value % 40).wrapping_mul(spread).wrapping_sub(5);
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            for (add, value) in operations {
                if add && model.insert(value, ()).is_none() {
                    index.insert(hash(value), value);
                } else if !add {
                    index.remove(hash(value), value);
                    model.remove(&value);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for value in 0..120 {
                let found = index.find(hash(value), |there| there == value);
                prop_assert_eq!(found.is_some(), model.contains_key(&value), "{}", value);
            }
        }
    }
}
