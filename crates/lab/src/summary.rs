//! What many samples of a figure come to: median, 95th percentile and worst, held against its target.
//!
//! A target such as "at most 300 ms at the 95th percentile" cannot be judged from one run. All samples of
//! a scenario's figure, over all runs, are one distribution; it is judged once there are [`ENOUGH`] of them, and only
//! shown before. Percentiles are by nearest rank: the 95th of 20 samples is the second worst.

use std::fmt;

use crate::scenario::Outcome;

/// Samples without which a percentile is not judged.
pub const ENOUGH: usize = 20;

/// One figure of one scenario over all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The scenario.
    pub scenario: &'static str,
    /// The figure.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The samples, sorted.
    samples: Vec<f64>,
    percentile: u8,
    bound: f64,
}

impl Summary {
    /// The value that `percent` of the samples do not exceed.
    pub fn percentile(&self, percent: u8) -> f64 {
        let rank = (self.samples.len() * usize::from(percent)).div_ceil(100).max(1);
        self.samples.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// Whether the target is met; `None` while there are too few samples.
    pub fn verdict(&self) -> Option<bool> {
        (self.samples.len() >= ENOUGH).then(|| self.percentile(self.percentile) <= self.bound)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "too few samples",
        };
        write!(
            formatter,
            "{:<22} {:<22} n {:>4}  p50 {:>8.1}  p95 {:>8.1}  p99 {:>8.1}  max {:>8.1} {}  (p{} <= {}: {verdict})",
            self.scenario,
            self.metric,
            self.samples.len(),
            self.percentile(50),
            self.percentile(95),
            self.percentile(99),
            self.percentile(100),
            self.unit,
            self.percentile,
            self.bound,
        )
    }
}

/// Every figure that has a percentile as its target, in the order of the first sample.
pub fn of(outcomes: &[Outcome]) -> Vec<Summary> {
    let mut summaries: Vec<Summary> = Vec::new();
    for outcome in outcomes {
        for metric in &outcome.metrics {
            let Some((percentile, bound)) = metric.percentile else { continue };
            let known = summaries
                .iter_mut()
                .find(|summary| summary.scenario == outcome.scenario && summary.metric == metric.metric);
            match known {
                Some(summary) => summary.samples.push(metric.value),
                None => summaries.push(Summary {
                    scenario: outcome.scenario,
                    metric: metric.metric.clone(),
                    unit: metric.unit.clone(),
                    samples: vec![metric.value],
                    percentile,
                    bound,
                }),
            }
        }
    }
    for summary in &mut summaries {
        summary.samples.sort_unstable_by(f64::total_cmp);
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(count: u32, bound: f64) -> Summary {
        let samples = (1..=count).map(f64::from).collect();
        Summary {
            scenario: "s",
            metric: "outage_ms".to_owned(),
            unit: "ms".to_owned(),
            samples,
            percentile: 95,
            bound,
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let twenty = summary(20, 19.0);
        assert_eq!(
            (twenty.percentile(50), twenty.percentile(95), twenty.percentile(100)),
            (10.0, 19.0, 20.0)
        );
        assert_eq!(summary(1, 0.0).percentile(50), 1.0);
    }

    #[test]
    fn one_of_twenty_may_be_beyond_and_fewer_are_not_judged() {
        assert_eq!(summary(20, 19.0).verdict(), Some(true));
        assert_eq!(summary(20, 18.5).verdict(), Some(false));
        assert_eq!(summary(19, 1.0).verdict(), None);
    }
}
