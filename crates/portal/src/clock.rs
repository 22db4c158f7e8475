//! The portal's clock: Unix milliseconds, and what is to be done when somebody sets it.
//!
//! The clock on the wall counts for everything that is stored, and it may jump. Three rules keep a jump
//! from giving access or taking data: what was made in the future holds nothing ([`is_ahead`]); a deadline
//! inside this process is kept by the monotonic clock and the one on the wall, whichever is sooner
//! ([`Deadline`]); and nothing is deleted for its age before the clock has gone evenly for a day ([`Evenness`]).
//!
//! Deliberately absent: a clock of our own that never goes back. After a jump that was a mistake it would
//! be wrong until the mistake has become true.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// By how much the clocks of two nodes, or of one before and after a correction, may differ.
pub(crate) const TOLERANCE_MS: i64 = 5 * 60 * 1000;

/// The clock must have gone evenly for this long before anything is deleted for its age.
const EVEN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Milliseconds since 1970, as they are stored.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long until `at_ms`; zero when it has passed.
pub(crate) fn until(at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0))
}

/// Whether a stored moment is one that cannot have come yet: the clock was set back since, and nobody
/// knows what should have ended meanwhile.
pub(crate) const fn is_ahead(made_ms: i64, now_ms: i64) -> bool {
    made_ms > now_ms.saturating_add(TOLERANCE_MS)
}

/// When something ends that began under the clock as it was then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at_ms: i64,
    latest: Instant,
}

impl Deadline {
    /// What ends at `at_ms` by the clock as it is now.
    pub(crate) fn new(at_ms: i64) -> Self {
        Self { at_ms, latest: Instant::now() + until(at_ms) }
    }

    /// Whether it has passed, by whichever clock.
    pub(crate) fn has_passed(self) -> bool {
        self.at_ms <= now_ms() || self.latest <= Instant::now()
    }

    /// When to look at it, if nobody sets the clock meanwhile.
    pub(crate) fn instant(self) -> Instant {
        self.latest.min(Instant::now() + until(self.at_ms))
    }
}

/// Whether the clock on the wall has gone as fast as the monotonic one, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evenness {
    last: (Instant, i64),
    even_since: Option<Instant>,
}

impl Evenness {
    /// At the start of the process. `stamped_ms` is the newest moment that was stored before: a clock that
    /// is not far behind it, and less than a day after it, goes on where it was.
    pub(crate) fn new(now: Instant, now_ms: i64, stamped_ms: Option<i64>) -> Self {
        let goes_on = stamped_ms.is_some_and(|stamped_ms| {
            let since = now_ms.saturating_sub(stamped_ms);
            (-TOLERANCE_MS..EVEN_FOR.as_millis() as i64).contains(&since)
        });
        Self { last: (now, now_ms), even_since: (!goes_on).then_some(now) }
    }

    /// Looks at both clocks; whether they have agreed for long enough that what is old is old.
    pub(crate) fn holds(&mut self, now: Instant, now_ms: i64) -> bool {
        let (then, then_ms) = std::mem::replace(&mut self.last, (now, now_ms));
        let passed_ms = i64::try_from((now - then).as_millis()).unwrap_or(i64::MAX);
        let jump_ms = now_ms.saturating_sub(then_ms).saturating_sub(passed_ms);
        if jump_ms.saturating_abs() > TOLERANCE_MS {
            tracing::warn!(jump_ms, "the clock was set; nothing is deleted for its age for a day");
            self.even_since = Some(now);
        }
        self.even_since.is_none_or(|since| now - since >= EVEN_FOR)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;
    const NOW_MS: i64 = 60 * YEAR_MS;
    const HOUR: Duration = Duration::from_secs(60 * 60);
    const HOUR_MS: i64 = 60 * 60 * 1000;

    #[test]
    fn a_jump_makes_nothing_old_before_a_day_has_passed() {
        let start = Instant::now();
        for jump_ms in [YEAR_MS, -YEAR_MS, TOLERANCE_MS + 1] {
            let mut clock = Evenness::new(start, NOW_MS, Some(NOW_MS - HOUR_MS));
            assert!(clock.holds(start + HOUR, NOW_MS + HOUR_MS));
            for hour in 2..26 {
                let now_ms = NOW_MS + i64::from(hour) * HOUR_MS + jump_ms;
                assert!(!clock.holds(start + HOUR * hour, now_ms), "{jump_ms} ms, {hour} hours");
            }
            assert!(clock.holds(start + HOUR * 26, NOW_MS + 26 * HOUR_MS + jump_ms));
        }
    }

    #[test]
    fn a_jump_that_is_taken_back_is_two_jumps() {
        let start = Instant::now();
        let mut clock = Evenness::new(start, NOW_MS, Some(NOW_MS));
        assert!(!clock.holds(start + HOUR, NOW_MS + HOUR_MS + YEAR_MS));
        assert!(!clock.holds(start + 2 * HOUR, NOW_MS + 2 * HOUR_MS));
        assert!(!clock.holds(start + 25 * HOUR, NOW_MS + 25 * HOUR_MS));
        assert!(clock.holds(start + 26 * HOUR, NOW_MS + 26 * HOUR_MS));
    }

    #[test]
    fn a_correction_by_minutes_and_a_slow_drift_are_no_jumps() {
        let start = Instant::now();
        let mut clock = Evenness::new(start, NOW_MS, Some(NOW_MS + TOLERANCE_MS));
        assert!(clock.holds(start + HOUR, NOW_MS + HOUR_MS + TOLERANCE_MS));
        for hour in 2..1000 {
            let drift_ms = TOLERANCE_MS + i64::from(hour) * 1000;
            assert!(clock.holds(start + HOUR * hour, NOW_MS + i64::from(hour) * HOUR_MS + drift_ms));
        }
    }

    #[test]
    fn a_process_that_begins_far_from_what_was_stored_waits_a_day() {
        let start = Instant::now();
        for stamped_ms in [None, Some(NOW_MS - YEAR_MS), Some(NOW_MS + YEAR_MS), Some(NOW_MS - 24 * HOUR_MS)]
        {
            let mut clock = Evenness::new(start, NOW_MS, stamped_ms);
            assert!(!clock.holds(start + 23 * HOUR, NOW_MS + 23 * HOUR_MS), "{stamped_ms:?}");
            assert!(clock.holds(start + 24 * HOUR, NOW_MS + 24 * HOUR_MS), "{stamped_ms:?}");
        }
    }

    #[test]
    fn a_deadline_passes_by_either_clock() {
        let deadline = Deadline::new(now_ms() + HOUR_MS);
        assert!(!deadline.has_passed() && deadline.instant() > Instant::now() + HOUR / 2);
        let back = Deadline { at_ms: now_ms() + HOUR_MS, latest: Instant::now() };
        assert!(back.has_passed() && back.instant() <= Instant::now());
        let ahead = Deadline { at_ms: now_ms() - 1, latest: Instant::now() + HOUR };
        assert!(ahead.has_passed() && ahead.instant() <= Instant::now());
    }
}
