//! Scenarios: named stories with measured outcomes, each run in a world of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::logs::{self, Expectations};
use crate::system::Programs;

/// A story that the lab can run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it shows, in one sentence.
    pub description: &'static str,
    /// The story; an error fails the run.
    pub run: fn(&mut Context) -> Result<()>,
}

/// A bound that a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most this much.
    AtMost(f64),
    /// At least this much.
    AtLeast(f64),
    /// This percentile of all samples is at most so much; judged in the summary, see [`crate::summary`].
    Percentile(u8, f64),
    /// Printed for people; any value will do.
    Shown,
}

impl Target {
    /// Whether one figure alone is acceptable.
    ///
    /// A percentile says nothing of a single sample, but one far beyond it is a defect and not bad luck.
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::Percentile(percent, bound) if percent > 50 => value <= bound * OUTLIER,
            // Half of the samples may be beyond a median's bound.
            Self::Percentile(_, bound) => value <= bound * OUTLIER_OF_MEDIAN,
            Self::Shown => true,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::AtMost(bound) => Some(format!("<= {bound}")),
            Self::AtLeast(bound) => Some(format!(">= {bound}")),
            Self::Percentile(percent, bound) => Some(format!("p{percent} <= {bound}")),
            Self::Shown => None,
        }
    }
}

/// A sample this many times beyond its percentile's bound fails its run by itself.
const OUTLIER: f64 = 5.0;

/// The same for a median.
const OUTLIER_OF_MEDIAN: f64 = 20.0;

/// One measured figure, as it is written to the JSON file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Scenario it belongs to.
    pub scenario: String,
    /// Run, from 1.
    pub run: u32,
    /// What was measured.
    pub metric: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// The bound, as text; `null` without one.
    pub target: Option<String>,
    /// Whether the bound is kept; a percentile's is kept unless the figure is far beyond it.
    pub ok: bool,
    /// The percentile and its bound, for the summary.
    #[serde(skip)]
    pub percentile: Option<(u8, f64)>,
}

/// What a scenario has at hand: programs, a log directory, and a place for its figures.
#[derive(Debug)]
pub struct Context {
    /// The programs under test.
    pub programs: Programs,
    /// Warnings and errors the scenario provokes.
    pub expectations: Expectations,
    scenario: String,
    run: u32,
    log_dir: PathBuf,
    metrics: Vec<Metric>,
}

impl Context {
    /// Directory for everything this run writes; it exists.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Records a figure and whether it keeps its bound.
    pub fn record(&mut self, metric: &str, value: f64, unit: &str, target: Target) {
        // A thousandth of a unit is finer than anything measured here.
        let value = (value * 1e3).round() / 1e3;
        self.metrics.push(Metric {
            scenario: self.scenario.clone(),
            run: self.run,
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
            target: target.text(),
            ok: target.is_met(value),
            percentile: if let Target::Percentile(percent, bound) = target {
                Some((percent, bound))
            } else {
                None
            },
        });
    }

    /// Records a time in milliseconds.
    pub fn record_time(&mut self, metric: &str, time: Duration, target: Target) {
        self.record(metric, time.as_secs_f64() * 1e3, "ms", target);
    }
}

/// How to run scenarios.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs under test.
    pub programs: Programs,
    /// Times each scenario runs.
    pub runs: u32,
    /// Directory for the logs of all runs.
    pub log_dir: PathBuf,
    /// File for the figures, one JSON object a line.
    pub json: Option<PathBuf>,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Scenario that ran.
    pub scenario: &'static str,
    /// Run, from 1.
    pub run: u32,
    /// Why it failed; `None` when it passed.
    pub failure: Option<String>,
    /// Its figures.
    pub metrics: Vec<Metric>,
}

impl Outcome {
    /// Whether the story ended well and every figure kept its bound.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && self.metrics.iter().all(|metric| metric.ok)
    }
}

/// Runs scenarios one after the other, printing each figure; logs of runs that pass are removed.
///
/// # Errors
/// When the log directory or the JSON file cannot be written; a failing scenario is an outcome.
pub fn run_all(scenarios: &[Scenario], plan: &Plan) -> Result<Vec<Outcome>> {
    let mut json = plan.json.as_ref().map(File::create).transpose().context("making the JSON file")?;
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        for run in 1..=plan.runs {
            let outcome = run_one(scenario, run, plan)?;
            for metric in &outcome.metrics {
                println!("  {}", line(metric));
                if let Some(file) = &mut json {
                    writeln!(file, "{}", serde_json::to_string(metric)?)?;
                }
            }
            if let Some(failure) = &outcome.failure {
                println!("  failed: {failure}");
            }
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn run_one(scenario: &Scenario, run: u32, plan: &Plan) -> Result<Outcome> {
    println!("{} (run {run} of {}): {}", scenario.name, plan.runs, scenario.description);
    let log_dir = plan.log_dir.join(format!("{}-{run}", scenario.name));
    if log_dir.exists() {
        fs::remove_dir_all(&log_dir)?;
    }
    fs::create_dir_all(&log_dir).with_context(|| format!("making {}", log_dir.display()))?;
    let mut context = Context {
        programs: plan.programs.clone(),
        expectations: Expectations::none(),
        scenario: scenario.name.to_owned(),
        run,
        log_dir: log_dir.clone(),
        metrics: Vec::new(),
    };
    let begin = Instant::now();
    let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (scenario.run)(&mut context)));
    let result = story.unwrap_or_else(|_| Err(anyhow::anyhow!("the scenario panicked")));
    let result = result.and_then(|()| logs::check(&log_dir, &context.expectations)?.require_clean());
    let took = begin.elapsed();
    context.record_time("whole run", took, Target::Shown);
    let passed = if result.is_ok() { 1.0 } else { 0.0 };
    context.record("passed", passed, "bool", Target::AtLeast(1.0));
    let failure = result.err().map(|error| format!("{error:#}; logs in {}", log_dir.display()));
    let outcome = Outcome { scenario: scenario.name, run, failure, metrics: context.metrics };
    if outcome.passed() {
        fs::remove_dir_all(&log_dir)?;
    }
    Ok(outcome)
}

fn line(metric: &Metric) -> String {
    let mark = if metric.ok { "ok  " } else { "FAIL" };
    let target = metric.target.as_deref().map(|target| format!("  ({target})")).unwrap_or_default();
    format!("{mark} {:<44} {:>12} {}{target}", metric.metric, metric.value, metric.unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Plan {
        let log_dir = std::env::temp_dir().join(format!("adit-lab-scenario-{name}-{}", std::process::id()));
        fs::create_dir_all(&log_dir).unwrap();
        let json = Some(log_dir.join("figures.json"));
        Plan { programs: Programs::new("/nowhere"), runs: 2, log_dir, json }
    }

    fn story(context: &mut Context) -> Result<()> {
        context.record_time("round trip", Duration::from_micros(40_250), Target::AtMost(50.0));
        context.record("delivered", 7.0, "packets", Target::Shown);
        Ok(())
    }

    #[test]
    fn figures_are_written_and_logs_of_good_runs_removed() {
        let plan = plan("good");
        let good = Scenario { name: "good", description: "Passes.", run: story };
        let outcomes = run_all(&[good], &plan).unwrap();
        assert!(outcomes.len() == 2 && outcomes.iter().all(Outcome::passed));
        let text = fs::read_to_string(plan.json.unwrap()).unwrap();
        let first = text.lines().next().unwrap();
        let expected = r#"{"scenario":"good","run":1,"metric":"round trip","value":40.25,"unit":"ms","target":"<= 50","ok":true}"#;
        assert_eq!(first, expected);
        assert_eq!(text.lines().count(), 8);
        assert!(!plan.log_dir.join("good-1").exists());
        fs::remove_dir_all(plan.log_dir).unwrap();
    }

    #[test]
    fn errors_panics_missed_bounds_and_bad_logs_fail_a_run() {
        let plan = Plan { runs: 1, json: None, ..plan("bad") };
        let stories: [fn(&mut Context) -> Result<()>; 4] = [
            |_| anyhow::bail!("no path"),
            |_| panic!("a defect of the scenario"),
            |context| {
                context.record("gap", 9.0, "ms", Target::AtMost(8.0));
                Ok(())
            },
            |context| Ok(fs::write(context.log_dir().join("aditd.log"), "free text\n")?),
        ];
        let bad = stories.map(|run| Scenario { name: "bad", description: "Fails.", run });
        let outcomes = run_all(&bad, &plan).unwrap();
        assert!(outcomes.iter().all(|outcome| !outcome.passed()), "{outcomes:?}");
        assert!(plan.log_dir.join("bad-1").exists());
        fs::remove_dir_all(plan.log_dir).unwrap();
    }
}
