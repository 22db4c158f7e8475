//! When handshakes become too many, and who sends too many of them.
//!
//! Two bounds. A global one per second decides whether we are *under load*; then every
//! handshake message needs a valid MAC2. A token bucket per source, asked only under load
//! and after MAC2, keeps a single real address from using up the rest.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngCore;

use crate::hasher::{SeededMap, SeededState};

/// Handshake messages with a valid MAC1 in one second that count as load. At about 0.2 ms
/// of key agreement each this is a twentieth of one processor core.
const LOAD_THRESHOLD: u32 = 250;
/// Length of the counting period.
const PERIOD: Duration = Duration::from_secs(1);
/// How long we stay under load after the last busy period.
const CALM_DOWN: Duration = Duration::from_secs(1);

/// Handshakes per second that one source may start under load.
const SOURCE_RATE: u32 = 20;
/// Handshakes that one source may start at once under load.
const SOURCE_BURST: u32 = 5;
/// Sources that are remembered; a flood with more valid addresses is cut off here.
const SOURCES: usize = 4096;

/// Counts handshake messages per second.
#[derive(Debug)]
pub(crate) struct LoadEstimator {
    period_start: Instant,
    count: u32,
    loaded_until: Option<Instant>,
}

impl LoadEstimator {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { period_start: now, count: 0, loaded_until: None }
    }

    /// Counts one message and says whether we are under load.
    pub(crate) fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.period_start) >= PERIOD {
            self.period_start = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > LOAD_THRESHOLD {
            self.loaded_until = Some(now + CALM_DOWN);
        }
        self.loaded_until.is_some_and(|until| now < until)
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
}

/// One token bucket per IPv4 address or IPv6 /64.
#[derive(Debug)]
pub(crate) struct SourceLimiter {
    buckets: SeededMap<IpAddr, Bucket>,
    swept: Instant,
}

impl SourceLimiter {
    pub(crate) fn new(now: Instant, random: &mut impl RngCore) -> Self {
        Self { buckets: SeededMap::with_hasher(SeededState::new(random)), swept: now }
    }

    /// Takes a token of `source`; false when it has none or the table is full.
    pub(crate) fn allow(&mut self, now: Instant, source: SocketAddr) -> bool {
        self.sweep(now);
        let key = network(source.ip());
        let full = self.buckets.len() >= SOURCES;
        if full && !self.buckets.contains_key(&key) {
            return false;
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: SOURCE_BURST, filled: now });
        let interval = PERIOD / SOURCE_RATE;
        let earned = now.saturating_duration_since(bucket.filled).as_nanos() / interval.as_nanos();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(earned).min(SOURCE_BURST);
            bucket.filled = now;
        }
        let allowed = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        allowed
    }

    /// Forgets sources whose bucket is full again; once per second at most, so a message
    /// costs a share of the table that does not grow with the rate.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) >= PERIOD {
            self.swept = now;
            self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.filled) < PERIOD);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn load_begins_above_the_threshold_and_ends_after_calm() {
        let now = Instant::now();
        let mut load = LoadEstimator::new(now);
        assert!((0..LOAD_THRESHOLD).all(|_| !load.count(now)));
        assert!(load.count(now));
        assert!(load.count(now + Duration::from_millis(999)));
        assert!(!load.count(now + Duration::from_millis(2500)));
    }

    #[test]
    fn each_source_has_its_own_bucket() {
        let now = Instant::now();
        let mut limiter = SourceLimiter::new(now, &mut ChaCha20Rng::from_seed([0; 32]));
        let [a, same, b] =
            ["[2001:db8::1]:1", "[2001:db8::2]:9", "192.0.2.1:1"].map(|text| text.parse().unwrap());
        assert!((0..SOURCE_BURST).all(|_| limiter.allow(now, a)));
        assert!(!limiter.allow(now, same), "one /64 is one source");
        assert!(limiter.allow(now, b));
        assert!(limiter.allow(now + Duration::from_millis(50), a), "one token per 50 ms");
        assert!(!limiter.allow(now + Duration::from_millis(50), a));
    }

    #[test]
    fn the_table_is_bounded_and_empties() {
        let now = Instant::now();
        let mut limiter = SourceLimiter::new(now, &mut ChaCha20Rng::from_seed([0; 32]));
        let source = |number: u32| SocketAddr::new(IpAddr::V4(number.into()), 1);
        let allowed = (0..10_000).filter(|number| limiter.allow(now, source(*number))).count();
        assert_eq!(allowed, SOURCES);
        assert!(limiter.allow(now + PERIOD, source(9_999)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
