//! What is printed: one JSON object for each command.

use std::time::Duration;

use serde_json::{Value, json};

use crate::flood::Answers;
use crate::histogram::Histogram;
use crate::load::{Arrivals, Direction, Load, Outcome};
use crate::opening::Opened;

/// A load and what became of it.
pub(crate) fn load(load: &Load, flows: usize, outcome: &Outcome) -> Value {
    let sum = outcome.sum();
    let seconds = outcome.duration.as_secs_f64();
    let mut report = arrivals(&sum, seconds);
    report["flows"] = json!(flows);
    report["size"] = json!(load.size);
    report["train"] = json!(load.train);
    report["control"] = json!(outcome.control);
    for (direction, each) in &outcome.each {
        let name = if *direction == Direction::Up { "up" } else { "down" };
        report[name] = arrivals(each, seconds);
    }
    report
}

fn arrivals(arrivals: &Arrivals, seconds: f64) -> Value {
    let tally = &arrivals.tally;
    let took = arrivals.last.as_secs_f64().max(seconds);
    json!({
        "sent": arrivals.sent,
        "refused": arrivals.refused,
        "received": tally.received,
        "offered_per_s": arrivals.sent as f64 / seconds,
        "received_per_s": tally.received as f64 / took,
        "loss": arrivals.loss(),
        "reordered": tally.reordered,
        "duplicates": tally.duplicates,
        "corrupt": tally.corrupt,
        "misdelivered": tally.misdelivered,
        "stale": tally.stale,
        "one_way_us": quantiles(&arrivals.delays),
    })
}

/// Allocations that were opened.
pub(crate) fn opened(count: usize, opened: &Opened) -> Value {
    json!({
        "allocations": count,
        "per_s": count as f64 / opened.took.as_secs_f64(),
        "each_us": quantiles(&opened.each),
    })
}

/// Questions and answers.
pub(crate) fn answers(answers: &Answers) -> Value {
    json!({
        "asked": answers.asked,
        "asked_bytes": answers.asked_bytes,
        "answers": answers.answers,
        "answer_bytes": answers.answer_bytes,
        "amplification": answers.amplification(),
        "amplification_on_the_wire": answers.amplification_on_the_wire(),
    })
}

fn quantiles(times: &Histogram) -> Value {
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let quantile = |share| microseconds(times.quantile(share));
    json!({
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
        "max": microseconds(times.longest()),
    })
}
