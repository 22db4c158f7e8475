//! A hash table of numbers of entries that lie elsewhere.
//!
//! Open addressing with linear probing: a place is eight bytes, the lower half of the hash and the
//! number, so that looking something up reads one cache line, and another one only where the halves
//! agree. Half of the places stay free. Nothing is hashed again when the table grows or an entry
//! leaves, since the half that is kept says where it belongs.

use super::links::NONE;

#[derive(Copy, Clone, Debug)]
struct Place {
    hash: u32,
    /// [`NONE`] if the place is free.
    number: u32,
}

const FREE: Place = Place { hash: 0, number: NONE };
const SMALLEST: usize = 16;

/// Numbers by hash.
#[derive(Debug)]
pub(super) struct Index {
    /// As many as a power of two.
    places: Vec<Place>,
    used: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { places: vec![FREE; SMALLEST], used: 0 }
    }

    /// The number that was put there under this hash and `is` the right one.
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(hash, is).map(|at| self.places[at].number)
    }

    /// A number under the lower half of this hash, which is probably the right one.
    pub(super) fn guess(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Has the cache line fetched where this hash belongs. The result is of no use.
    pub(super) fn touch(&self, hash: u64) -> u32 {
        self.places[self.home(hash as u32)].hash
    }

    /// Adds a number that is not there.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if (self.used + 1) * 2 > self.places.len() {
            self.resize(self.places.len() * 2);
        }
        self.used += 1;
        self.put(Place { hash: hash as u32, number });
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let Some(mut hole) = self.position(hash, |other| other == number) else { return };
        self.used -= 1;
        // What comes behind moves up, unless it would be in front of where it belongs.
        let mut at = hole;
        loop {
            at = self.behind(at);
            let place = self.places[at];
            if place.number == NONE {
                break;
            }
            if self.distance(self.home(place.hash), at) >= self.distance(hole, at) {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = FREE;
        if self.used * 8 < self.places.len() && self.places.len() > SMALLEST {
            self.resize(self.places.len() / 2);
        }
    }

    fn position(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<usize> {
        let hash = hash as u32;
        let mut at = self.home(hash);
        loop {
            let place = self.places[at];
            if place.number == NONE {
                return None;
            }
            if place.hash == hash && is(place.number) {
                return Some(at);
            }
            at = self.behind(at);
        }
    }

    fn put(&mut self, place: Place) {
        let mut at = self.home(place.hash);
        while self.places[at].number != NONE {
            at = self.behind(at);
        }
        self.places[at] = place;
    }

    fn resize(&mut self, length: usize) {
        let old = std::mem::replace(&mut self.places, vec![FREE; length]);
        old.into_iter().filter(|place| place.number != NONE).for_each(|place| self.put(place));
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// Steps from one place to another, round the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a sorted map, with hashes that collide often.
        #[test]
        fn what_was_put_in_is_found_until_it_is_taken_out(
            steps in prop::collection::vec((0..60u32, any::<bool>()), 0..400),
            spread in prop_oneof![Just(1u64), Just(7), Just(0x1_0000_0001)],
        ) {
            let hash = |number: u32| u64::from(number / 3) * spread;
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            for (number, add) in steps {
                if add {
                    if model.insert(number, ()).is_none() {
                        index.insert(hash(number), number);
                    }
                } else {
                    model.remove(&number);
                    index.remove(hash(number), number);
                }
                for number in 0..60 {
                    let found = index.find(hash(number), |other| other == number);
                    prop_assert_eq!(found, model.get(&number).map(|()| number));
                }
                prop_assert!(index.used == model.len() && index.used * 2 <= index.places.len());
            }
        }
    }

    #[test]
    fn a_guess_goes_by_half_of_the_hash() {
        let mut index = Index::new();
        index.insert(0x5_0000_0007, 3);
        assert_eq!(index.guess(0x9_0000_0007), Some(3));
        assert_eq!((index.guess(8), index.touch(8)), (None, 0));
    }
}
