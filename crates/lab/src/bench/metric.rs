//! What the figures are held against, and the verdicts.
//!
//! A ratio is the median of the ratios of single rounds: in a round all implementations are measured within seconds
//! of each other, so that a disturbed minute hurts both sides of each ratio and not the comparison.

use serde::Serialize;

use super::case::{Case, Field, Test};
use super::implementation::Implementation;
use super::samples::{Quantity, Samples, median, paired_ratios, spread, values};

/// Pseudo case under which peak memory is filed; it is read when all cases of a setting are through.
pub(super) const MEMORY: &str = "rss";

/// Whom a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Nobody: the figure itself counts.
    Nobody,
    /// The best of the products in the same case.
    Best,
    /// This one.
    One(Implementation),
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more is good.
    AtLeast(f64),
    /// This or less is good.
    AtMost(f64),
}

impl Bound {
    /// Whether a value keeps the bound.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    /// The bound as it is printed.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// One comparison. Its bound is for the ratio where there is a rival, and else for the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    name: String,
    case: &'static str,
    quantity: Quantity,
    ours: Implementation,
    rival: Rival,
    bound: Option<Bound>,
    /// Whether the worst round counts, and not the median.
    worst: bool,
}

/// A verdict, as it is written to the JSON file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The group.
    pub bench: &'static str,
    /// What was measured.
    pub metric: String,
    /// Our median; `null` when nothing could be measured.
    pub value: Option<f64>,
    /// Unit of both values.
    pub unit: &'static str,
    /// Whom it is compared with.
    pub peer: Option<&'static str>,
    /// The peer's median.
    pub peer_value: Option<f64>,
    /// Median of ours divided by the peer's, round by round.
    pub ratio: Option<f64>,
    /// Least and greatest of these ratios, or of the values when there is no peer.
    pub spread: Option<[f64; 2]>,
    /// The bound, as text: for the ratio where there is a peer, and else for the value.
    pub target: Option<String>,
    /// Whether the bound is kept; one that cannot be judged is not.
    pub ok: bool,
}

impl Metric {
    fn new(name: impl Into<String>, case: &'static str, quantity: Quantity) -> Self {
        let (ours, rival) = (Implementation::Adit, Rival::Nobody);
        Self { name: name.into(), case, quantity, ours, rival, bound: None, worst: false }
    }

    const fn of(mut self, ours: Implementation) -> Self {
        self.ours = ours;
        self
    }

    const fn against(mut self, rival: Rival) -> Self {
        self.rival = rival;
        self
    }

    const fn bound(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    const fn worst(mut self) -> Self {
        self.worst = true;
        self
    }

    /// Holds what was measured against the target.
    pub(super) fn judge(&self, samples: &Samples) -> Line {
        let ours = samples.series(self.case, self.quantity, self.ours);
        let range = spread(&values(&ours));
        let value = if self.worst { range.map(|[_, most]| most) } else { median(&values(&ours)) };
        let rival = self.rival(samples);
        let theirs = rival.map(|rival| samples.series(self.case, self.quantity, rival)).unwrap_or_default();
        let ratios = paired_ratios(&ours, &theirs);
        let ratio = median(&ratios);
        let judged = if self.rival == Rival::Nobody { value } else { ratio };
        Line {
            bench: "tunnel",
            metric: self.name.clone(),
            value: value.map(rounded),
            unit: self.quantity.unit(),
            peer: rival.map(Implementation::name),
            peer_value: median(&values(&theirs)).map(rounded),
            ratio: ratio.map(rounded),
            spread: if self.rival == Rival::Nobody { range } else { spread(&ratios) }
                .map(|ends| ends.map(rounded)),
            target: self.bound.map(Bound::text),
            ok: self.bound.is_none_or(|bound| judged.is_some_and(|judged| bound.is_met(judged))),
        }
    }

    /// Who is compared with; the best of the field is the one with the best median.
    fn rival(&self, samples: &Samples) -> Option<Implementation> {
        let score = |rival: &Implementation| samples.median(self.case, self.quantity, *rival);
        match self.rival {
            Rival::Nobody => None,
            Rival::One(rival) => score(&rival).map(|_| rival),
            Rival::Best => {
                let scored = Implementation::FIELD.into_iter().filter(|rival| score(rival).is_some());
                let by_score = |a: &Implementation, b: &Implementation| {
                    score(a).unwrap_or(f64::NAN).total_cmp(&score(b).unwrap_or(f64::NAN))
                };
                if self.quantity.more_is_better() { scored.max_by(by_score) } else { scored.min_by(by_score) }
            }
        }
    }

    /// Without its rival, when nobody of that kind takes part; `None` when nothing of it is left.
    fn among(self, peers: &[Implementation]) -> Option<Self> {
        match self.rival {
            Rival::One(rival) if !rival.is_ours() && !peers.contains(&rival) => None,
            Rival::Best if Implementation::FIELD.iter().all(|rival| !peers.contains(rival)) => {
                Some(Self { rival: Rival::Nobody, bound: None, ..self })
            }
            _ => Some(self),
        }
    }
}

/// The value as it is written: a ten-thousandth of a unit is finer than anything measured here.
pub fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Every comparison that these cases and peers allow.
pub(super) fn metrics(cases: &[Case], peers: &[Implementation]) -> Vec<Metric> {
    let of_cases = cases.iter().flat_map(of_case);
    of_cases.chain(of_memory(cases)).filter_map(|metric| metric.among(peers)).collect()
}

fn of_case(case: &Case) -> Vec<Metric> {
    use Bound::{AtLeast, AtMost};
    let name = case.name;
    match (case.field, case.test) {
        (Field::ByName, _) => {
            vec![share(name, "dns_resource_share", Implementation::AditByName, 0.97)]
        }
        (Field::Ours, _) => {
            vec![Metric::new("new_flow_extra_p99_us", name, Quantity::NewFlowExtra).bound(AtMost(100.0))]
        }
        (Field::Relayed, _) => vec![share(name, "relayed_share", Implementation::AditRelayed, 0.80)],
        (Field::Everybody, Test::Tcp { .. }) => of_tcp(name),
        (Field::Everybody, Test::UdpSearch) => {
            vec![Metric::new(name, name, Quantity::PacketRate).against(Rival::Best).bound(AtLeast(1.5))]
        }
        (Field::Everybody, Test::UdpSteady) => vec![
            Metric::new(name, name, Quantity::CpuPerPacket)
                .against(Rival::One(Implementation::Boringtun))
                .bound(AtMost(0.75)),
            Metric::new("reordered", name, Quantity::Reordered).bound(AtMost(0.0)).worst(),
        ],
        (Field::Everybody, Test::PingLoaded) => vec![
            Metric::new("ping_loaded_p50_us", name, Quantity::RoundTrip)
                .against(Rival::One(Implementation::WireguardGo))
                .bound(AtMost(0.6)),
        ],
        (Field::Everybody, Test::PingIdle) => vec![
            Metric::new("ping_idle_p50_us", name, Quantity::RoundTrip)
                .against(Rival::One(Implementation::Boringtun))
                .bound(AtMost(1.0)),
        ],
        (Field::Everybody, Test::NewFlows) => Vec::new(),
        (Field::Everybody, Test::Idle) => {
            vec![Metric::new("idle_wakeups_per_s", name, Quantity::WakeUps).bound(AtMost(2.0))]
        }
    }
}

/// Least ratio of our throughput to the best of the field.
fn tcp_bound(case: &str) -> Option<f64> {
    match case {
        "tcp1" => Some(1.8),
        "tcp1_reverse" => Some(1.5),
        "tcp10" => Some(1.6),
        "tcp10_reverse" => Some(1.4),
        "tcp1_pinned" => Some(1.2),
        "tcp1_gro" | "tcp1_seg" => Some(2.0),
        _ => None,
    }
}

fn of_tcp(case: &'static str) -> Vec<Metric> {
    let speed = Metric::new(case, case, Quantity::Throughput).against(Rival::Best);
    vec![
        Metric { bound: tcp_bound(case).map(Bound::AtLeast), ..speed },
        Metric::new(format!("cpu_s_per_gb_{case}"), case, Quantity::CpuPerGigabyte)
            .against(Rival::Best)
            .bound(Bound::AtMost(0.55)),
        Metric::new(format!("share_of_rod_{case}"), case, Quantity::Throughput)
            .against(Rival::One(Implementation::Rod))
            .bound(Bound::AtLeast(0.85)),
    ]
}

/// What of our plain throughput is left in another case of use.
fn share(case: &'static str, name: &str, ours: Implementation, least: f64) -> Metric {
    Metric::new(name, case, Quantity::Throughput)
        .of(ours)
        .against(Rival::One(Implementation::Adit))
        .bound(Bound::AtLeast(least))
}

fn of_memory(cases: &[Case]) -> Vec<Metric> {
    let metric = |name, ours, quantity| {
        Metric::new(name, MEMORY, quantity).of(ours).bound(Bound::AtMost(32.0)).worst()
    };
    let mut metrics = vec![
        metric("rss_mib_aditd", Implementation::Adit, Quantity::ClientMemory),
        metric("rss_mib_gateway", Implementation::Adit, Quantity::GatewayMemory),
    ];
    if cases.iter().any(|case| case.field == Field::Relayed) {
        metrics.push(metric("rss_mib_relay", Implementation::AditRelayed, Quantity::RelayMemory));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::super::case;
    use super::super::samples::Sample;
    use super::*;

    fn samples(figures: &[(Implementation, &[f64])]) -> Samples {
        let mut samples = Samples::default();
        for (implementation, values) in figures {
            for (round, value) in (1..).zip(*values) {
                let quantity = Quantity::Throughput;
                let value = *value;
                samples.push(Sample {
                    case: "tcp1",
                    round,
                    implementation: *implementation,
                    quantity,
                    value,
                });
            }
        }
        samples
    }

    fn named(name: &str) -> Vec<Case> {
        case::ALL.iter().filter(|case| case.name == name).copied().collect()
    }

    fn tcp1() -> Metric {
        of_tcp("tcp1").remove(0)
    }

    #[test]
    fn the_best_of_the_field_is_the_rival_and_raw_and_rod_are_not_of_it() {
        let samples = samples(&[
            (Implementation::Adit, &[4.0, 3.0, 8.0]),
            (Implementation::Raw, &[9.0, 9.0, 9.0]),
            (Implementation::Rod, &[8.0, 8.0, 8.0]),
            (Implementation::Gotatun, &[1.0, 1.0, 1.0]),
            (Implementation::WireguardGo, &[2.0, 2.0, 2.0]),
        ]);
        let line = tcp1().judge(&samples);
        let expected = Line {
            bench: "tunnel",
            metric: "tcp1".to_owned(),
            value: Some(4.0),
            unit: "Gbit/s",
            peer: Some("wireguard-go"),
            peer_value: Some(2.0),
            ratio: Some(2.0),
            spread: Some([1.5, 4.0]),
            target: Some(">= 1.8".to_owned()),
            ok: true,
        };
        assert_eq!(line, expected);
    }

    #[test]
    fn a_target_that_is_missed_or_cannot_be_judged_is_not_met() {
        let slow =
            samples(&[(Implementation::Adit, &[3.0, 3.0]), (Implementation::WireguardGo, &[2.0, 2.0])]);
        assert!(!tcp1().judge(&slow).ok);
        let alone = tcp1().judge(&samples(&[(Implementation::Adit, &[3.0])]));
        assert_eq!((alone.value, alone.ratio, alone.ok), (Some(3.0), None, false));
        let nothing = tcp1().judge(&Samples::default());
        assert_eq!((nothing.value, nothing.spread, nothing.ok), (None, None, false));
    }

    #[test]
    fn less_is_better_where_it_costs_something() {
        let mut samples = Samples::default();
        for (implementation, value) in
            [(Implementation::Adit, 3.0), (Implementation::WireguardGo, 6.0), (Implementation::Nebula, 9.0)]
        {
            let (case, quantity) = ("tcp1", Quantity::CpuPerGigabyte);
            samples.push(Sample { case, round: 1, implementation, quantity, value });
        }
        let line = of_tcp("tcp1")[1].judge(&samples);
        assert_eq!((line.peer, line.ratio, line.ok), (Some("wireguard-go"), Some(0.5), true));
    }

    #[test]
    fn the_worst_round_counts_where_one_is_one_too_many() {
        let mut samples = Samples::default();
        for (round, value) in [(1, 0.0), (2, 0.0), (3, 2.0)] {
            let (case, quantity) = ("udp64_us_per_packet", Quantity::Reordered);
            samples.push(Sample { case, round, implementation: Implementation::Adit, quantity, value });
        }
        let case = named("udp64_us_per_packet");
        let line = of_case(&case[0])[1].judge(&samples);
        assert_eq!((line.value, line.spread, line.ok), (Some(2.0), Some([0.0, 2.0]), false));
    }

    #[test]
    fn without_rivals_there_is_nothing_to_judge() {
        let cases = named("tcp1");
        let names = |peers: &[Implementation]| {
            metrics(&cases, peers).into_iter().map(|metric| (metric.name, metric.bound.is_some())).collect()
        };
        let alone: Vec<(String, bool)> = names(&[Implementation::Raw]);
        assert_eq!(alone[..2], [("tcp1".to_owned(), false), ("cpu_s_per_gb_tcp1".to_owned(), false)]);
        assert!(alone[2].0.starts_with("rss_mib"));
        let all: Vec<(String, bool)> = names(&Implementation::PEERS);
        assert_eq!(all[2], ("share_of_rod_tcp1".to_owned(), true));
    }

    #[test]
    fn every_case_has_a_metric() {
        for case in case::ALL {
            assert!(!of_case(case).is_empty(), "{}", case.name);
        }
    }
}
