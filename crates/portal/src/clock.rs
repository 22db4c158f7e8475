//! The portal's clock: Unix milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as they are stored.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long until `at_ms`; zero when it has passed.
pub(crate) fn until(at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0))
}

/// A stored time as it goes over the wire; times before 1970 become 0.
pub(crate) fn wire_ms(at_ms: i64) -> u64 {
    u64::try_from(at_ms).unwrap_or(0)
}

/// A stored time in whole seconds; times before 1970 become 0.
pub(crate) fn seconds(at_ms: i64) -> u64 {
    u64::try_from(at_ms.div_euclid(1000)).unwrap_or(0)
}

/// RFC 3339 text for people, to the second.
pub(crate) fn rfc3339(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_else(|_| "never".to_owned())
}
