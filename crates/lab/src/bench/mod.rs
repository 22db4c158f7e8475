//! The race: our system and others over the same wire, at the same time, round by round.
//!
//! The method, which keeps a noisy machine from deciding the outcome:
//!
//! - All implementations are up at once in one world; each owns a resource address.
//! - For each round, for each case, each implementation is measured in turn, every other round in the opposite order.
//!   What counts is the median of the ratios within rounds.
//! - Processor time comes from `/proc/PID/stat` of both ends; it repeats better than throughput does.
//! - Everybody runs at the same nice level, and with MTU and threads as it comes. Our gateway translates addresses and
//!   our client enforces access; nobody else does.

mod affinity;
mod case;
pub mod client;
mod contestant;
mod ground;
mod implementation;
mod iperf;
pub mod load;
mod measure;
mod metric;
pub mod rate_search;
pub mod relay;
mod report;
mod samples;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use case::{ALL, Case};
pub use contestant::{Program, ROD};
pub use implementation::Implementation;
pub use metric::{Bound, Line, Metric, rounded};
pub use report::{medians, short, verdicts};
pub use samples::{Quantity, Sample, Samples, median, paired_ratios, spread};

use case::{Field, Setting, Test};
use contestant::{Adit, Contestant};
use ground::Ground;
use measure::Figures;

use crate::process::Process;
use crate::system::Programs;

/// How long to look whether the machine is quiet, and how many processors may be busy on one that is.
const LOOK_AROUND: Duration = Duration::from_millis(500);
const QUIET: f64 = 0.2;

/// What to measure, and with what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Our programs.
    pub programs: Programs,
    /// Programs of peers that were found.
    pub found: Vec<Program>,
    /// Peers that shall take part.
    pub peers: Vec<Implementation>,
    /// Cases to run.
    pub cases: Vec<Case>,
    /// Times that each case runs.
    pub rounds: u32,
    /// Length of one throughput measurement.
    pub seconds: u32,
    /// Directory for the logs of all programs.
    pub log_dir: PathBuf,
}

/// Runs all cases, printing each figure; returns all of them and the verdicts.
///
/// A peer that does not start, and a measurement that fails, are reported and left out.
///
/// # Errors
/// When our own system does not work.
pub fn run(plan: &Plan) -> Result<(Samples, Vec<Line>)> {
    let mut samples = Samples::default();
    for setting in Setting::ALL {
        let cases: Vec<Case> = plan.cases.iter().filter(|case| case.setting == setting).copied().collect();
        if !cases.is_empty() {
            let arena = Arena::raise(setting, &cases, plan)
                .with_context(|| format!("the world for `{}`", setting.name()))?;
            arena.race(&cases, plan, &mut samples)?;
            arena.close()?;
        }
    }
    let lines =
        metric::metrics(&plan.cases, &plan.peers).iter().map(|metric| metric.judge(&samples)).collect();
    Ok((samples, lines))
}

/// A world with everybody in it. Programs end before the world does.
struct Arena {
    contestants: Vec<Contestant>,
    iperf: Process,
    adit: Adit,
    ground: Ground,
}

impl Arena {
    fn raise(setting: Setting, cases: &[Case], plan: &Plan) -> Result<Self> {
        println!("world `{}`", setting.name());
        warn_of_others()?;
        let log_dir = plan.log_dir.join(setting.name().replace(", ", "-"));
        let ground = Ground::raise(setting, &log_dir)?;
        let adit = Adit::start(&ground, &plan.programs)?;
        let iperf = affinity::on(ground.gateway_processor(), || iperf::serve(&ground.resource))?;
        let mut contestants = vec![adit.contestant(Implementation::Adit)?];
        let has = |field| cases.iter().any(|case| case.field == field);
        for (field, implementation) in
            [(Field::ByName, Implementation::AditByName), (Field::Relayed, Implementation::AditRelayed)]
        {
            if has(field) {
                contestants.push(adit.contestant(implementation)?);
            }
        }
        let peers = if has(Field::Everybody) { &plan.peers[..] } else { &[] };
        for peer in peers {
            match contestant::start_peer(*peer, &ground, &plan.found, &plan.programs, adit.state()) {
                Ok(contestant) => contestants.push(contestant),
                Err(error) => println!("  {} does not take part: {error:#}", peer.name()),
            }
        }
        Ok(Self { contestants, iperf, adit, ground })
    }

    fn race(&self, cases: &[Case], plan: &Plan, samples: &mut Samples) -> Result<()> {
        for round in 1..=plan.rounds {
            for case in cases {
                for (implementation, figures) in self.run_case(case, round, plan.seconds)? {
                    print(round, case.name, implementation, &figures);
                    record(samples, case.name, round, implementation, &figures);
                }
            }
        }
        for contestant in &self.contestants {
            let figures = measure::memory(contestant)?;
            record(samples, metric::MEMORY, 1, contestant.implementation, &figures);
        }
        Ok(())
    }

    fn run_case(&self, case: &Case, round: u32, seconds: u32) -> Result<Vec<(Implementation, Figures)>> {
        let mut field: Vec<&Contestant> =
            self.contestants.iter().filter(|one| takes_part(case.field, one.implementation)).collect();
        if round.is_multiple_of(2) {
            field.reverse();
        }
        let names = field.iter().map(|contestant| contestant.implementation);
        if case.test == Test::Idle {
            return Ok(names.zip(measure::idle(&field, seconds)?).collect());
        }
        let mut all = Vec::new();
        for contestant in field {
            match measure::measure(case.test, contestant, &self.ground, seconds) {
                Ok(figures) => all.push((contestant.implementation, figures)),
                Err(error) => {
                    println!(
                        "  {round:>2}  {:<20} {:<14} failed: {error:#}",
                        case.name,
                        contestant.implementation.name()
                    );
                }
            }
        }
        Ok(all)
    }

    fn close(self) -> Result<()> {
        let Self { contestants, iperf, adit, ground } = self;
        drop((contestants, iperf));
        adit.close()?;
        drop(ground);
        Ok(())
    }
}

/// Says so when others use this machine: figures are worth less then.
fn warn_of_others() -> Result<()> {
    let (busy, processors) = usage::busy_processors(LOOK_AROUND)?;
    if busy > QUIET {
        println!("  NOTE: {busy:.1} of {processors:.0} processors are busy with other work");
    }
    Ok(())
}

fn takes_part(field: Field, implementation: Implementation) -> bool {
    match field {
        Field::Everybody => {
            !matches!(implementation, Implementation::AditByName | Implementation::AditRelayed)
        }
        Field::Ours => implementation == Implementation::Adit,
        Field::ByName => matches!(implementation, Implementation::Adit | Implementation::AditByName),
        Field::Relayed => matches!(implementation, Implementation::Adit | Implementation::AditRelayed),
    }
}

fn print(round: u32, case: &str, implementation: Implementation, figures: &Figures) {
    let shown: Vec<String> = figures
        .iter()
        .map(|(quantity, value)| format!("{} {}", report::short(*value), quantity.unit()))
        .collect();
    println!("  {round:>2}  {case:<20} {:<14} {}", implementation.name(), shown.join("  "));
}

fn record(
    samples: &mut Samples,
    case: &'static str,
    round: u32,
    implementation: Implementation,
    figures: &Figures,
) {
    for (quantity, value) in figures {
        samples.push(Sample { case, round, implementation, quantity: *quantity, value: *value });
    }
}
