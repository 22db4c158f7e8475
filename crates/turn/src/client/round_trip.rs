//! The retransmission timer, estimated as TCP does it (RFC 6298), within bounds fit for UDP.

use std::time::Duration;

/// Used until the first measurement (RFC 8489, section 6.2.1).
const INITIAL: Duration = Duration::from_millis(500);
const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(3);

/// Smoothed round trip and its variation.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct RoundTrip {
    estimate: Option<(Duration, Duration)>,
}

impl RoundTrip {
    /// Takes a measurement; only of requests that were sent once, because otherwise it is unknown
    /// which transmission was answered.
    pub(super) fn sample(&mut self, sample: Duration) {
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                ((smoothed * 7 + sample) / 8, (variation * 3 + smoothed.abs_diff(sample)) / 4)
            }
        });
    }

    /// The smoothed round trip, if ever measured.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// How long to wait before the first retransmission: 100 ms to 3 s.
    pub(super) fn retransmission_timeout(&self) -> Duration {
        match self.estimate {
            None => INITIAL,
            Some((smoothed, variation)) => (smoothed + variation * 4).clamp(MIN, MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_follows_the_measured_round_trip() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.retransmission_timeout(), INITIAL);
        for _ in 0..30 {
            round_trip.sample(Duration::from_millis(200));
        }
        let timeout = round_trip.retransmission_timeout();
        assert!((200..220).contains(&timeout.as_millis()), "{timeout:?}");
        for _ in 0..60 {
            round_trip.sample(Duration::from_millis(1));
        }
        assert_eq!(round_trip.retransmission_timeout(), MIN);
    }
}
