//! Times counted in buckets, so that a load of any length needs the same little memory.

use std::time::Duration;

/// Buckets for each power of two: values are off by at most one part in 64.
const STEPS: usize = 64;

/// Powers of two that are told apart: up to a minute and a half.
const POWERS: usize = 32;

/// Counts of times, finer than 2 % from 64 ns on.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * POWERS], total: 0, longest: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one time.
    pub(crate) fn add(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[bucket(nanoseconds).min(last)] += 1;
        self.total += 1;
        self.longest = self.longest.max(time);
    }

    /// Counts everything that the other one has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// The time that this share of all times (0.0 to 1.0) does not exceed; zero when nothing was counted.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        // At least one: the least time is the 0.0 quantile.
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_end(index)).min(self.longest);
            }
        }
        self.longest
    }

    /// The longest time.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }
}

/// Below `STEPS` each value has a bucket; above, each power of two has `STEPS / 2` of them.
fn bucket(nanoseconds: u64) -> usize {
    let steps = STEPS as u64;
    if nanoseconds < steps {
        return nanoseconds as usize;
    }
    let shift = nanoseconds.ilog2() - (STEPS.ilog2() - 1);
    (u64::from(shift) * (steps / 2) + (nanoseconds >> shift)) as usize
}

/// The greatest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let half = STEPS / 2;
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / half - 1;
    let lead = (bucket - shift * half) as u64;
    ((lead + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_its_bucket_and_no_bucket_is_wide() {
        for exponent in 0..36 {
            for value in
                [1_u64 << exponent, (1 << exponent) + 1, (1 << exponent) * 3 / 2, (2 << exponent) - 1]
            {
                let index = bucket(value);
                let below = if index == 0 { None } else { Some(upper_end(index - 1)) };
                let upper = upper_end(index);
                assert!(upper >= value && below.is_none_or(|below| below < value), "{value}: {index}");
                assert!(upper - value <= value / 32, "{value} is counted as {upper}");
            }
        }
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut histogram = Histogram::default();
        for microseconds in 1..=1_000 {
            histogram.add(Duration::from_micros(microseconds));
        }
        for (share, expected) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found / expected - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert_eq!(histogram.longest(), Duration::from_millis(1));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn merged_counts_are_those_of_both() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.add(Duration::from_micros(10));
        other.add(Duration::from_micros(100));
        other.add(Duration::from_secs(3_600)); // beyond the last bucket
        one.merge(&other);
        assert_eq!(one.total, 3);
        assert_eq!(one.longest(), Duration::from_secs(3_600));
        assert!(one.quantile(0.6) < Duration::from_micros(105));
    }
}
