//! The portal's clock on our time line.
//!
//! Leases end at a time that the portal names in Unix milliseconds. The wall clock of a
//! device may be wrong by hours, so it is never asked: the portal sends its own time with
//! every `init`, and from then on the steady clock counts.

use std::time::{Duration, Instant};

/// Longer than any lease; keeps a nonsensical deadline from overflowing an `Instant`.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Maps the portal's Unix milliseconds to instants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortalClock {
    anchor: Instant,
    unix_ms: u64,
}

impl PortalClock {
    /// The portal's clock shows `unix_ms` at `now`.
    pub(crate) const fn new(now: Instant, unix_ms: u64) -> Self {
        Self { anchor: now, unix_ms }
    }

    /// What the portal's clock shows at `now`, in Unix milliseconds.
    pub(crate) fn unix_ms_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.anchor).as_millis();
        self.unix_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// When the portal's clock shows `unix_ms`; times before the anchor are the anchor itself.
    pub(crate) fn instant_of(&self, unix_ms: u64) -> Instant {
        let after = Duration::from_millis(unix_ms.saturating_sub(self.unix_ms));
        self.anchor + after.min(FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_measured_against_the_portal() {
        let now = Instant::now();
        let clock = PortalClock::new(now, 1_000_000);
        assert_eq!(clock.instant_of(1_060_000), now + Duration::from_secs(60));
    }

    #[test]
    fn a_time_in_the_past_is_due_and_one_beyond_reason_does_not_overflow() {
        let now = Instant::now();
        let clock = PortalClock::new(now, 1_000_000);
        assert_eq!(clock.instant_of(5), now);
        assert_eq!(clock.instant_of(u64::MAX), now + FAR);
    }
}
