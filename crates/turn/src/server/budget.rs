//! How many unauthenticated replies an address prefix may draw.
//!
//! Spoofed requests make a relay send to the address they name. Token buckets per prefix bound that.
//! The table has a fixed size and a secret hash; prefixes that meet in a bucket share it, which errs
//! on the quiet side.

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Instant;

const BUCKETS: usize = 4096;

#[derive(Copy, Clone, Debug)]
struct Bucket {
    /// Replies left, in thousandths.
    tokens: u64,
    /// Milliseconds since the start at which they were counted.
    counted_at: u64,
}

/// The token buckets.
pub(super) struct ReplyBudget {
    start: Instant,
    per_second: u64,
    secret: (u64, u64),
    buckets: Vec<Bucket>,
}

impl ReplyBudget {
    /// Full buckets of two seconds' worth.
    pub(super) fn new(now: Instant, per_second: u32, secret: (u64, u64)) -> Self {
        let per_second = u64::from(per_second);
        let bucket = Bucket { tokens: per_second * 2000, counted_at: 0 };
        Self { start: now, per_second, secret, buckets: vec![bucket; BUCKETS] }
    }

    /// Takes one reply for the prefix of `address`; false if there is none left.
    pub(super) fn take(&mut self, now: Instant, address: IpAddr) -> bool {
        let milliseconds = now.saturating_duration_since(self.start).as_millis() as u64;
        let index = self.index(address);
        let bucket = &mut self.buckets[index];
        let passed = milliseconds.saturating_sub(bucket.counted_at);
        let refill = passed.saturating_mul(self.per_second);
        bucket.counted_at = milliseconds;
        bucket.tokens = bucket.tokens.saturating_add(refill).min(self.per_second * 2000);
        let enough = bucket.tokens >= 1000;
        if enough {
            bucket.tokens -= 1000;
        }
        enough
    }

    /// The bucket of a /24 or /48.
    fn index(&self, address: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        match address {
            IpAddr::V4(ip) => hasher.write(&ip.octets()[..3]),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..6]),
        }
        hasher.finish() as usize % BUCKETS
    }
}

impl std::fmt::Debug for ReplyBudget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ReplyBudget({} per second)", self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_prefix_gets_its_rate_and_no_more() {
        let start = Instant::now();
        let mut budget = ReplyBudget::new(start, 10, (1, 2));
        let count = |budget: &mut ReplyBudget, now, ip: &str| {
            let ip = ip.parse().expect("address");
            (0..100).filter(|_| budget.take(now, ip)).count()
        };
        assert_eq!(count(&mut budget, start, "192.0.2.1"), 20);
        assert_eq!(count(&mut budget, start, "192.0.2.99"), 0, "same /24");
        assert_eq!(count(&mut budget, start, "198.51.100.1"), 20);
        let later = start + Duration::from_millis(500);
        assert_eq!(count(&mut budget, later, "192.0.2.1"), 5);
    }
}
