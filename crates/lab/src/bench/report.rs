//! The tables at the end: verdicts for whoever asks whether the targets are met, and all medians for whoever asks why.

use std::fmt::Write as _;

use super::implementation::Implementation;
use super::metric::Line;
use super::samples::Samples;

/// The verdicts, one line each.
pub fn verdicts(lines: &[Line]) -> String {
    let mut table = format!(
        "{:<34} {:>11} {:<9} {:<13} {:>11} {:>7} {:>17} {:>9}\n",
        "metric", "ours", "", "peer", "theirs", "ratio", "spread", "target"
    );
    for line in lines {
        let spread = line.spread.map(|[least, most]| format!("{}..{}", short(least), short(most)));
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{:<34} {:>11} {:<9} {:<13} {:>11} {:>7} {:>17} {:>9}  {}",
            line.metric,
            optional(line.value),
            line.unit,
            line.peer.unwrap_or("-"),
            optional(line.peer_value),
            optional(line.ratio),
            spread.as_deref().unwrap_or("-"),
            line.target.as_deref().unwrap_or("-"),
            verdict(line),
        );
    }
    table
}

const fn verdict(line: &Line) -> &'static str {
    match (&line.target, line.ok, line.value) {
        (None, ..) => "",
        (Some(_), true, _) => "met",
        (Some(_), false, None) => "NOT MEASURED",
        (Some(_), false, Some(_)) => "MISSED",
    }
}

/// Medians of everything by everybody: a row for each case and quantity, a column for each implementation.
pub fn medians(samples: &Samples) -> String {
    let columns = samples.implementations();
    let mut table = format!("{:<20} {:<21} {:<9}", "case", "quantity", "");
    for column in &columns {
        let _ = write!(table, " {:>13}", column.name());
    }
    for (case, quantity) in samples.kinds() {
        let _ = write!(table, "\n{case:<20} {:<21} {:<9}", quantity.label(), quantity.unit());
        for column in &columns {
            let cell = |column: &Implementation| optional(samples.median(case, quantity, *column));
            let _ = write!(table, " {:>13}", cell(column));
        }
    }
    table.push('\n');
    table
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), short)
}

/// Three or four significant digits, whatever the size.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Quantity, Sample};
    use super::*;

    #[test]
    fn numbers_keep_what_matters_of_them() {
        let shown = [0.0, 0.1234, 1.234, 12.34, 48_000.4].map(short);
        assert_eq!(shown, ["0.00", "0.123", "1.23", "12.3", "48000"]);
    }

    #[test]
    fn a_verdict_says_met_missed_or_not_measured() {
        let line = |value: Option<f64>, target: Option<&str>, ok| Line {
            bench: "tunnel",
            metric: "m".to_owned(),
            value,
            unit: "us",
            peer: None,
            peer_value: None,
            ratio: None,
            spread: None,
            target: target.map(str::to_owned),
            ok,
        };
        let lines = [
            line(Some(1.0), Some("<= 2"), true),
            line(Some(3.0), Some("<= 2"), false),
            line(None, Some("<= 2"), false),
            line(Some(3.0), None, true),
        ];
        let table = verdicts(&lines);
        let last: Vec<&str> =
            table.lines().skip(1).map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
        assert_eq!(last, ["met", "MISSED", "NOT MEASURED", ""]);
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let mut samples = Samples::default();
        for (case, implementation) in [("tcp1", Implementation::Adit), ("tcp10", Implementation::Raw)] {
            let quantity = Quantity::Throughput;
            samples.push(Sample { case, round: 1, implementation, quantity, value: 2.5 });
        }
        let table = medians(&samples);
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["case", "quantity", "adit", "raw"]);
        assert_eq!(rows[1], ["tcp1", "throughput", "Gbit/s", "2.50", "-"]);
        assert_eq!(rows[2], ["tcp10", "throughput", "Gbit/s", "-", "2.50"]);
    }
}
