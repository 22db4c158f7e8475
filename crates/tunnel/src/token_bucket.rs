//! A rate limit: so many at once, so many a second.

use std::time::{Duration, Instant};

/// A bucket of permissions that fills with time.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    interval: Duration,
    capacity: u32,
    /// The bucket is full from this instant on; earlier it lacks one token per interval.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens that gains one every `interval`.
    pub(crate) const fn new(now: Instant, capacity: u32, interval: Duration) -> Self {
        Self { interval, capacity, full_at: now }
    }

    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let after = self.full_at.max(now) + self.interval;
        let taken = after.duration_since(now) <= self.interval * self.capacity;
        if taken {
            self.full_at = after;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now, 3, Duration::from_millis(100));
        assert_eq!((0..9).filter(|_| bucket.take(now)).count(), 3);
        let later = now + Duration::from_millis(250);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 2);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| bucket.take(much_later)).count(), 3);
    }
}
