//! How often one address, and one token, may connect and ask.
//!
//! A token bucket for each key. The table is bounded: full buckets carry no information and
//! are forgotten first; when every bucket is in use, newcomers share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_policy::TokenId;

/// Keys that are remembered of each kind.
const CAPACITY: usize = 65_536;

/// How often full buckets are forgotten at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections at once, before the rate counts, and connections a second in the long run.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: f64,
    rate: f64,
}

/// An address may be a whole office behind one NAT, all of it reconnecting at once.
const ADDRESS: Allowance = Allowance { burst: 600.0, rate: 20.0 };

/// A token may serve a site's gateways or a fleet of machines of one service account.
const TOKEN: Allowance = Allowance { burst: 60.0, rate: 2.0 };

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

#[derive(Debug)]
struct Table<K> {
    allowance: Allowance,
    buckets: HashMap<K, Bucket>,
    overflow: Bucket,
    /// When full buckets were last forgotten.
    swept: Instant,
}

impl<K: Eq + Hash> Table<K> {
    fn new(now: Instant, allowance: Allowance) -> Self {
        let overflow = Bucket { tokens: allowance.burst, at: now };
        Self { allowance, buckets: HashMap::new(), overflow, swept: now }
    }

    fn take(&mut self, now: Instant, key: K) -> Result<(), Duration> {
        if self.buckets.len() >= CAPACITY && !self.buckets.contains_key(&key) {
            self.sweep(now);
            if self.buckets.len() >= CAPACITY {
                return self.allowance.take(&mut self.overflow, now);
            }
        }
        let full = Bucket { tokens: self.allowance.burst, at: now };
        self.allowance.take(self.buckets.entry(key).or_insert(full), now)
    }

    /// Forgets full buckets, at most once a second: a flood of newcomers must not make every
    /// one of them pay for the whole table.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        let allowance = self.allowance;
        self.buckets.retain(|_, bucket| allowance.level(*bucket, now) < allowance.burst);
    }
}

impl Allowance {
    fn level(self, bucket: Bucket, now: Instant) -> f64 {
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate;
        (bucket.tokens + earned).min(self.burst)
    }

    fn take(self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        let tokens = self.level(*bucket, now);
        *bucket = Bucket { tokens, at: now };
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.rate).max(Duration::from_secs(1)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// Limits of connections for each address and each token.
#[derive(Debug)]
pub(crate) struct ConnectLimit {
    addresses: Mutex<Table<IpAddr>>,
    tokens: Mutex<Table<TokenId>>,
    requests_from: Mutex<Table<IpAddr>>,
    requests_with: Mutex<Table<TokenId>>,
}

/// Requests in the long run, and ten seconds' worth of them at once.
const fn allowance(rate: f64) -> Allowance {
    Allowance { burst: rate * 10.0, rate }
}

impl ConnectLimit {
    /// Nobody has connected yet; for tests.
    #[cfg(test)]
    pub(crate) fn new(now: Instant) -> Self {
        Self::with_api_rate(now, crate::serve::API_RATE)
    }

    /// Nobody has connected or asked yet. A token may ask `api_rate` times a second, and an
    /// address, behind which there may be several, twice as often.
    pub(crate) fn with_api_rate(now: Instant, api_rate: u32) -> Self {
        let rate = f64::from(api_rate.max(1));
        Self {
            addresses: Mutex::new(Table::new(now, ADDRESS)),
            tokens: Mutex::new(Table::new(now, TOKEN)),
            requests_from: Mutex::new(Table::new(now, allowance(2.0 * rate))),
            requests_with: Mutex::new(Table::new(now, allowance(rate))),
        }
    }

    /// Counts a request from `address`, before it is looked at.
    pub(crate) fn request_from(&self, now: Instant, address: IpAddr) -> Result<(), Duration> {
        self.requests_from.lock().unwrap_or_else(PoisonError::into_inner).take(now, network(address))
    }

    /// Counts a request with a good `token`.
    pub(crate) fn request_with(&self, now: Instant, token: TokenId) -> Result<(), Duration> {
        self.requests_with.lock().unwrap_or_else(PoisonError::into_inner).take(now, token)
    }

    /// Counts a connection from `address`; `Err` says how long to wait.
    pub(crate) fn address(&self, now: Instant, address: IpAddr) -> Result<(), Duration> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).take(now, network(address))
    }

    /// Counts a connection with `token`; `Err` says how long to wait.
    pub(crate) fn token(&self, now: Instant, token: TokenId) -> Result<(), Duration> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).take(now, token)
    }
}

/// One customer has a whole IPv6 /64, so that is what is counted.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let start = Instant::now();
        let limit = ConnectLimit::new(start);
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!((0..700).filter(|_| limit.address(start, address).is_ok()).count(), 600);
        assert_eq!(limit.address(start, address), Err(Duration::from_secs(1)));
        assert!(limit.address(start, "192.0.2.2".parse().unwrap()).is_ok());
        assert!(limit.address(start + Duration::from_secs(1), address).is_ok());
    }

    #[test]
    fn requests_have_limits_of_their_own() {
        let start = Instant::now();
        let limit = ConnectLimit::with_api_rate(start, 10);
        let (address, token) = ("192.0.2.1".parse().unwrap(), TokenId::from_uuid(uuid::Uuid::nil()));
        assert_eq!((0..300).filter(|_| limit.request_with(start, token).is_ok()).count(), 100);
        assert_eq!((0..300).filter(|_| limit.request_from(start, address).is_ok()).count(), 200);
        assert!(limit.address(start, address).is_ok() && limit.token(start, token).is_ok());
        let later = start + Duration::from_secs(1);
        assert_eq!((0..300).filter(|_| limit.request_with(later, token).is_ok()).count(), 10);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let start = Instant::now();
        let limit = ConnectLimit::new(start);
        let passed = (0..700_u16)
            .filter(|n| limit.address(start, format!("2001:db8::{n:x}").parse().unwrap()).is_ok())
            .count();
        assert_eq!(passed, 600);
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let start = Instant::now();
        let mut table = Table::new(start, TOKEN);
        for key in 0..CAPACITY + 1000 {
            let _ = table.take(start, key);
        }
        assert_eq!(table.buckets.len(), CAPACITY);
        assert!(table.take(start, usize::MAX).is_err(), "newcomers share one bucket");
        let later = start + Duration::from_secs(60);
        assert!(table.take(later, usize::MAX).is_ok(), "idle keys make room");
        assert_eq!(table.buckets.len(), 1);
    }
}
