//! A wheel of seconds: which entries to look at when.
//!
//! Traffic does not touch the wheel. An entry sits in the bucket of the second in which it
//! would end if no packet came; when that second comes, the table looks at its last use and
//! either ends it or puts it into a later bucket. Lifetimes beyond one turn of the wheel are
//! looked at once per turn.

use super::list::List;

/// Buckets, one per second: two hours and a little, the longest lifetime of a flow.
const BUCKETS: usize = 8192;
const WORDS: usize = BUCKETS / 64;

/// The buckets and which of them are not empty.
#[derive(Debug)]
pub(crate) struct Wheel {
    lists: Vec<List>,
    occupied: [u64; WORDS],
    /// Seconds before this one are done.
    second: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { lists: vec![List::EMPTY; BUCKETS], occupied: [0; WORDS], second: 0 }
    }

    /// The bucket for a deadline in milliseconds: never the past, never more than one turn away.
    pub(crate) fn bucket_for(&self, deadline: u64) -> u16 {
        let second = deadline.div_ceil(1000).clamp(self.second, self.second + BUCKETS as u64 - 1);
        (second % BUCKETS as u64) as u16
    }

    pub(crate) fn list(&mut self, bucket: u16) -> &mut List {
        &mut self.lists[usize::from(bucket)]
    }

    /// Notes whether the bucket holds anything; call it after each change of its list.
    pub(crate) fn refresh(&mut self, bucket: u16) {
        let bucket = usize::from(bucket);
        let bit = 1 << (bucket % 64);
        if self.lists[bucket].first().is_some() {
            self.occupied[bucket / 64] |= bit;
        } else {
            self.occupied[bucket / 64] &= !bit;
        }
    }

    /// The second of the next bucket that holds anything.
    pub(crate) fn next_second(&self) -> Option<u64> {
        let start = (self.second % BUCKETS as u64) as usize;
        let from = |word: usize, bits: u64| {
            let bucket = word * 64 + bits.trailing_zeros() as usize;
            let ahead = (bucket + BUCKETS - start) % BUCKETS;
            (bits != 0).then_some(self.second + ahead as u64)
        };
        let (word, bit) = (start / 64, start % 64);
        let here = from(word, self.occupied[word] & (u64::MAX << bit));
        // One word more than all: the first one again, for the bits before the start.
        here.or_else(|| {
            (1..=WORDS).map(|step| (word + step) % WORDS).find_map(|word| from(word, self.occupied[word]))
        })
    }

    /// Moves on to `second`; everything before it must have been dealt with.
    pub(crate) const fn advance(&mut self, second: u64) {
        if second > self.second {
            self.second = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::super::list::Lane;
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn the_next_second_is_found_around_the_wheel() {
        let mut wheel = Wheel::new();
        let mut entries = Slab::<Entry>::new();
        assert_eq!(wheel.next_second(), None);
        for now in [0, 1, 63, 64, 5000, 8191, 8192, 20_000] {
            wheel.advance(now);
            for ahead in [0, 1, 62, 63, 64, 65, 4000, 8191] {
                let bucket = wheel.bucket_for((now + ahead) * 1000);
                wheel.list(bucket).push(&mut entries, Lane::Wheel, 5);
                wheel.refresh(bucket);
                assert_eq!(wheel.next_second(), Some(now + ahead), "{now} + {ahead}");
                *wheel.list(bucket) = List::EMPTY;
                wheel.refresh(bucket);
            }
        }
        assert_eq!(wheel.bucket_for(0), wheel.bucket_for(20_000_000), "the past is due now");
        assert_eq!(wheel.bucket_for(u64::MAX), wheel.bucket_for((20_000 + 8191) * 1000));
    }
}
