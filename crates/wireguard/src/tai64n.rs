//! TAI64N timestamps: the replay guard of initiations.
//!
//! A responder accepts an initiation only if its timestamp is greater than every earlier one
//! of the same key, so a recorded initiation is worthless. The clock of the peer does not
//! matter, only that it does not run backwards.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngCore;

use crate::PublicKey;
use crate::hasher::{SeededMap, SeededState};

/// TAI64 label of the Unix epoch, ten leap seconds included.
const UNIX_EPOCH: u64 = 0x4000_0000_0000_000a;
/// Low bits of the nanoseconds are cleared, so that timestamps tell nothing about fine timing.
const COARSE: u32 = !((1 << 24) - 1);
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Seconds and nanoseconds, big-endian, so that byte order is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tai64N(pub(crate) [u8; 12]);

impl Tai64N {
    fn new(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&UNIX_EPOCH.wrapping_add(seconds).to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }
}

/// Makes strictly increasing timestamps from the two clocks given at the start.
#[derive(Debug)]
pub(crate) struct TimestampSource {
    start: Instant,
    unix_start: Duration,
    last: (u64, u32),
}

impl TimestampSource {
    pub(crate) const fn new(now: Instant, unix_now: Duration) -> Self {
        Self { start: now, unix_start: unix_now, last: (0, 0) }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Tai64N {
        let unix = self.unix_start.saturating_add(now.saturating_duration_since(self.start));
        let coarse = (unix.as_secs(), unix.subsec_nanos() & COARSE);
        self.last = coarse.max(successor(self.last));
        Tai64N::new(self.last.0, self.last.1)
    }
}

const fn successor((seconds, nanos): (u64, u32)) -> (u64, u32) {
    if nanos + 1 < NANOS_PER_SECOND { (seconds, nanos + 1) } else { (seconds.saturating_add(1), 0) }
}

/// Timestamps of removed peers, so that a recorded initiation stays worthless when the peer
/// comes back. Bounded: the oldest entry gives way.
#[derive(Debug)]
pub(crate) struct RetiredTimestamps {
    newest: SeededMap<PublicKey, Tai64N>,
    order: VecDeque<PublicKey>,
}

impl RetiredTimestamps {
    const CAPACITY: usize = 4096;

    pub(crate) fn new(random: &mut impl RngCore) -> Self {
        Self { newest: SeededMap::with_hasher(SeededState::new(random)), order: VecDeque::new() }
    }

    pub(crate) fn keep(&mut self, key: PublicKey, timestamp: Tai64N) {
        if self.newest.insert(key, timestamp).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > Self::CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.newest.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, key: &PublicKey) -> Option<Tai64N> {
        self.newest.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_increase_even_when_time_stands_still() {
        let now = Instant::now();
        let mut source = TimestampSource::new(now, Duration::new(1_700_000_000, 999_999_999));
        let first = source.next(now);
        let second = source.next(now);
        assert!(second > first);
        assert!(source.next(now + Duration::from_secs(1)) > second);
        assert_eq!(first.0[..8], 0x4000_0000_6553_f10a_u64.to_be_bytes());
        assert_eq!(first.0[11], 0, "fine time is hidden");
    }

    #[test]
    fn timestamps_of_removed_peers_are_kept_in_bounds() {
        use rand::SeedableRng;
        let mut retired = RetiredTimestamps::new(&mut rand_chacha::ChaCha20Rng::from_seed([0; 32]));
        let key = |number: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            PublicKey(bytes)
        };
        for number in 0..5000 {
            retired.keep(key(number), Tai64N::new(u64::from(number), 0));
            retired.keep(key(number), Tai64N::new(u64::from(number) + 1, 0));
        }
        assert_eq!((retired.newest.len(), retired.order.len()), (4096, 4096));
        assert_eq!(retired.get(&key(0)), None);
        assert_eq!(retired.get(&key(4999)), Some(Tai64N::new(5000, 0)));
    }
}
