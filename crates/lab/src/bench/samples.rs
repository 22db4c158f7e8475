//! What was measured, and the arithmetic on it.

use super::implementation::Implementation;

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Gbit/s of TCP payload at the receiver.
    Throughput,
    /// Processor seconds of both tunnel programs for each GB that arrived.
    CpuPerGigabyte,
    /// Datagrams a second that arrived.
    PacketRate,
    /// Processor time, in µs, of both tunnel programs for each datagram that arrived.
    CpuPerPacket,
    /// Datagrams that arrived after a later one.
    Reordered,
    /// Median one-way delay of datagrams in µs.
    OneWay,
    /// Median round trip in µs.
    RoundTrip,
    /// What the first datagram of a flow takes longer than the second, in µs (99th percentiles).
    NewFlowExtra,
    /// Context switches a second of the client's program.
    WakeUps,
    /// Peak resident memory of the client's program in MiB.
    ClientMemory,
    /// Peak resident memory of the gateway's program in MiB.
    GatewayMemory,
    /// Peak resident memory of the relay in MiB.
    RelayMemory,
}

impl Quantity {
    /// Its unit, as printed.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::CpuPerGigabyte => "s/GB",
            Self::PacketRate => "packets/s",
            Self::CpuPerPacket | Self::OneWay | Self::RoundTrip | Self::NewFlowExtra => "us",
            Self::Reordered => "packets",
            Self::WakeUps => "1/s",
            Self::ClientMemory | Self::GatewayMemory | Self::RelayMemory => "MiB",
        }
    }

    /// What it is, for the table of all figures.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::CpuPerGigabyte => "tunnel CPU",
            Self::PacketRate => "rate",
            Self::CpuPerPacket => "tunnel CPU a packet",
            Self::Reordered => "reordered",
            Self::OneWay => "one way, p50",
            Self::RoundTrip => "round trip, p50",
            Self::NewFlowExtra => "new flow, extra at p99",
            Self::WakeUps => "context switches",
            Self::ClientMemory => "peak memory, client",
            Self::GatewayMemory => "peak memory, gateway",
            Self::RelayMemory => "peak memory, relay",
        }
    }

    /// Whether more of it is better.
    pub(super) const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::PacketRate)
    }
}

/// One figure of one implementation in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Name of the case.
    pub case: &'static str,
    /// Round, from 1.
    pub round: u32,
    /// Whose figure it is.
    pub implementation: Implementation,
    /// What it is.
    pub quantity: Quantity,
    /// The figure.
    pub value: f64,
}

/// Everything measured in a run.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Figures of one series with their rounds, in the order in which they were measured.
    pub(super) fn series(
        &self,
        case: &str,
        quantity: Quantity,
        implementation: Implementation,
    ) -> Vec<(u32, f64)> {
        let is_wanted = |sample: &&Sample| {
            sample.case == case && sample.quantity == quantity && sample.implementation == implementation
        };
        self.0.iter().filter(is_wanted).map(|sample| (sample.round, sample.value)).collect()
    }

    /// Median of one series.
    pub(super) fn median(
        &self,
        case: &str,
        quantity: Quantity,
        implementation: Implementation,
    ) -> Option<f64> {
        median(&values(&self.series(case, quantity, implementation)))
    }

    /// Cases and quantities that were measured, each once, in the order of the first sample.
    pub(super) fn kinds(&self) -> Vec<(&'static str, Quantity)> {
        let mut kinds: Vec<(&str, Quantity)> = Vec::new();
        for sample in &self.0 {
            if !kinds.contains(&(sample.case, sample.quantity)) {
                kinds.push((sample.case, sample.quantity));
            }
        }
        kinds
    }

    /// Implementations that were measured, in order.
    pub(super) fn implementations(&self) -> Vec<Implementation> {
        let mut found: Vec<Implementation> = self.0.iter().map(|sample| sample.implementation).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The figures without their rounds.
pub(super) fn values(series: &[(u32, f64)]) -> Vec<f64> {
    series.iter().map(|(_, value)| *value).collect()
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// Smallest and largest; `None` of nothing.
pub fn spread(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some([least, most])
}

/// Ours divided by theirs, round by round; rounds that lack one of the two are left out, as is division by zero.
pub fn paired_ratios(ours: &[(u32, f64)], theirs: &[(u32, f64)]) -> Vec<f64> {
    let partner = |round: u32| theirs.iter().find(|(other, value)| *other == round && *value > 0.0);
    ours.iter().filter_map(|(round, value)| Some(value / partner(*round)?.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0]), Some([1.0, 4.0]));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn ratios_pair_what_was_measured_in_the_same_round() {
        let ours = [(1, 4.0), (2, 9.0), (3, 5.0)];
        let theirs = [(3, 2.5), (1, 2.0), (2, 0.0), (4, 1.0)];
        assert_eq!(paired_ratios(&ours, &theirs), [2.0, 2.0]);
    }

    #[test]
    fn series_are_told_apart_by_case_quantity_and_implementation() {
        let mut samples = Samples::default();
        let mut push = |case, quantity, implementation, value| {
            samples.push(Sample { case, round: 1, implementation, quantity, value });
        };
        push("tcp1", Quantity::Throughput, Implementation::Adit, 1.0);
        push("tcp1", Quantity::Throughput, Implementation::Raw, 2.0);
        push("tcp1", Quantity::CpuPerGigabyte, Implementation::Adit, 3.0);
        push("tcp10", Quantity::Throughput, Implementation::Adit, 4.0);
        assert_eq!(samples.series("tcp1", Quantity::Throughput, Implementation::Adit), [(1, 1.0)]);
        assert_eq!(samples.median("tcp10", Quantity::Throughput, Implementation::Adit), Some(4.0));
        assert_eq!(samples.kinds().len(), 3);
        assert_eq!(samples.implementations(), [Implementation::Adit, Implementation::Raw]);
    }
}
