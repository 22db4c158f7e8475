//! Samples that a measuring program prints, and what becomes of them.

use adit_lab::bench::{Bound, Line, median, paired_ratios, rounded, spread};
use anyhow::{Context as _, Result};

/// How samples name our own programs.
const OURS: &str = "adit";

/// One printed sample.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    figure: String,
    whose: String,
    round: u32,
    value: f64,
}

/// Everything that was printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    /// Takes lines of figure, whose it is, round and value. `round` takes the place of the printed ones, for a program
    /// that is run anew for each round.
    ///
    /// # Errors
    /// When a line is something else.
    pub(super) fn add(&mut self, printed: &str, round: Option<u32>) -> Result<()> {
        for line in printed.lines() {
            let mut sample = parse(line).with_context(|| format!("`{line}` is no sample"))?;
            sample.round = round.unwrap_or(sample.round);
            self.0.push(sample);
        }
        Ok(())
    }

    /// Adds a sample that was not printed.
    pub(super) fn push(&mut self, figure: &str, whose: &str, round: u32, value: f64) {
        self.0.push(Sample { figure: figure.to_owned(), whose: whose.to_owned(), round, value });
    }

    fn series(&self, figure: &str, whose: &str) -> Vec<(u32, f64)> {
        let is_wanted = |sample: &&Sample| sample.figure == figure && sample.whose == whose;
        self.0.iter().filter(is_wanted).map(|sample| (sample.round, sample.value)).collect()
    }
}

fn parse(line: &str) -> Option<Sample> {
    let mut words = line.split_whitespace();
    let (figure, whose) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (round, value) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(Sample { figure, whose, round, value })
}

/// A figure to report.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    name: String,
    sample: String,
    unit: &'static str,
    ours: &'static str,
    peer: Option<&'static str>,
    bound: Option<Bound>,
}

impl Figure {
    /// A figure of our own, from samples of the same name.
    pub(super) fn new(name: impl Into<String>, unit: &'static str) -> Self {
        let name = name.into();
        Self { sample: name.clone(), name, unit, ours: OURS, peer: None, bound: None }
    }

    /// From samples of another name.
    pub(super) fn from(mut self, sample: impl Into<String>) -> Self {
        self.sample = sample.into();
        self
    }

    /// Whose figure it is, if not our own.
    pub(super) const fn of(mut self, ours: &'static str) -> Self {
        self.ours = ours;
        self
    }

    /// Whom it is compared with.
    pub(super) const fn against(mut self, peer: &'static str) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The target, for the ratio where there is a peer.
    pub(super) const fn bound(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    /// Whom it needs besides our own programs as they usually run.
    pub(super) fn rivals(&self) -> impl Iterator<Item = &'static str> {
        let ours = (self.ours != OURS).then_some(self.ours);
        ours.into_iter().chain(self.peer)
    }

    /// Holds what was measured against the target.
    pub(super) fn judge(&self, bench: &'static str, samples: &Samples) -> Line {
        let values = |series: &[(u32, f64)]| series.iter().map(|(_, value)| *value).collect::<Vec<f64>>();
        let ours = samples.series(&self.sample, self.ours);
        let theirs = self.peer.map(|peer| samples.series(&self.sample, peer)).unwrap_or_default();
        let ratios = paired_ratios(&ours, &theirs);
        let (value, ratio) = (median(&values(&ours)), median(&ratios));
        let judged = if self.peer.is_some() { ratio } else { value };
        let range = if self.peer.is_some() { spread(&ratios) } else { spread(&values(&ours)) };
        Line {
            bench,
            metric: self.name.clone(),
            value: value.map(rounded),
            unit: self.unit,
            peer: self.peer,
            peer_value: median(&values(&theirs)).map(rounded),
            ratio: ratio.map(rounded),
            spread: range.map(|ends| ends.map(rounded)),
            target: self.bound.map(Bound::text),
            ok: self.bound.is_none_or(|bound| judged.is_some_and(|judged| bound.is_met(judged))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str =
        "rate adit 1 300\nrate other 1 100\nrate adit 2 400\nrate other 2 200\nrate adit 3 500\n";

    #[test]
    fn ratios_are_of_single_rounds() {
        let mut samples = Samples::default();
        samples.add(PRINTED, None).unwrap();
        let figure = Figure::new("rate", "1/s").against("other").bound(Bound::AtLeast(2.5));
        let line = figure.judge("handshake", &samples);
        assert_eq!((line.value, line.peer_value, line.ratio), (Some(400.0), Some(150.0), Some(2.5)));
        assert_eq!((line.spread, line.ok), (Some([2.0, 3.0]), true));
        let alone = Figure::new("rate", "1/s").bound(Bound::AtMost(399.0)).judge("scale", &samples);
        assert_eq!((alone.ratio, alone.spread, alone.ok), (None, Some([300.0, 500.0]), false));
    }

    #[test]
    fn what_was_not_printed_is_not_good_enough() {
        let line = Figure::new("rate", "1/s").bound(Bound::AtLeast(0.0)).judge("scale", &Samples::default());
        assert_eq!((line.value, line.ok), (None, false));
    }

    #[test]
    fn rounds_can_be_given_and_other_lines_are_refused() {
        let mut samples = Samples::default();
        samples.add("rate adit 1 300\n", Some(7)).unwrap();
        assert_eq!(samples.series("rate", "adit"), [(7, 300.0)]);
        for wrong in ["rate adit 1", "rate adit one 3", "rate adit 1 3 4"] {
            assert!(samples.add(wrong, None).is_err(), "{wrong}");
        }
    }
}
