//! The relay race: our relay and others on machines of their own, loaded by one generator, round by round.
//!
//! The method is that of the tunnel race ([`super`]): all relays are up at once, each case is measured on one after the
//! other, every other round in the opposite order, and ratios are of single rounds. Half of each load goes from clients
//! to peers and half from peers to clients.
//!
//! Whose processor time is what:
//!
//! - Time of a relay is that of its process, all threads, user and system, in nanoseconds as the scheduler counts it.
//!   The kernel here works off a datagram that crosses a cable in the context of whoever sent it. So a relay's time
//!   holds what it receives by system call, and everything that its sending causes up to the receiver's socket; and the
//!   generator's holds the way up to the relay's socket. This is alike for all relays.
//! - For XDP it would be wrong: no process takes part. So the case `xdp` has the interfaces receive in kernel threads of
//!   their own, and the time of the thread on the relay's machine counts as the relay's, for every contestant.

mod case;
mod contestant;
mod generator;
mod ground;
mod look;
mod measure;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use case::{ALL, Case};
pub use contestant::{Contestant, Coturns, GENERATOR, ROD};
pub(crate) use look::look;

use case::Test;
use contestant::Running;
use generator::Generator;
use ground::{Ground, Site};
use measure::{Figures, Stand};

use super::report::short;
use super::warn_of_others;
use crate::system::{Programs, StateDir};

/// Half load where Debian's coturn does not take part, in datagrams a second.
const USUAL_HALF: f64 = 50_000.0;

/// What to measure, and with what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Our programs and examples.
    pub programs: Programs,
    /// Builds of coturn that were found.
    pub coturns: Coturns,
    /// Peers that shall take part.
    pub peers: Vec<Contestant>,
    /// Cases to run.
    pub cases: Vec<Case>,
    /// Times that each case runs.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// Directory for the logs of all programs.
    pub log_dir: PathBuf,
}

/// One figure of one relay in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub figure: String,
    /// Of whom.
    pub whose: Contestant,
    /// Round, from 1.
    pub round: u32,
    /// The figure.
    pub value: f64,
}

/// Runs all cases, printing each figure, and returns them.
///
/// A peer that does not start, and a measurement that fails, are reported and left out.
///
/// # Errors
/// When our own relay does not work.
pub fn run(plan: &Plan) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    // Interfaces that receive in threads are others: such cases have a world of their own.
    for with_threads in [false, true] {
        let is_of_this_world = |case: &&Case| (case.test == Test::SinglesWithKernel) == with_threads;
        let cases: Vec<Case> = plan.cases.iter().filter(is_of_this_world).copied().collect();
        if !cases.is_empty() {
            let arena = Arena::raise(&cases, plan, with_threads)?;
            arena.race(&cases, plan, &mut samples)?;
        }
    }
    Ok(samples)
}

/// A world with everybody in it. Programs end before the world does.
struct Arena {
    relays: Vec<Running>,
    ground: Ground,
    _state: StateDir,
}

impl Arena {
    fn raise(cases: &[Case], plan: &Plan, with_threads: bool) -> Result<Self> {
        let world = if with_threads { "kernel threads receive" } else { "fast" };
        println!("world `{world}`");
        warn_of_others()?;
        let takes_part = |contestant: &Contestant| {
            let is_wanted = !Contestant::PEERS.contains(contestant) || plan.peers.contains(contestant);
            is_wanted && cases.iter().any(|case| case.test.is_for(*contestant))
        };
        let contestants: Vec<Contestant> = Contestant::ALL.into_iter().filter(takes_part).collect();
        let mut ground = Ground::raise(&contestants, &plan.log_dir.join(world.replace(' ', "-")))?;
        let state = StateDir::create()?;
        let (mut relays, mut sites) = (Vec::new(), Vec::new());
        for site in std::mem::take(&mut ground.sites) {
            let started = Self::start(&site, plan, &state, with_threads);
            match started {
                Ok(relay) => {
                    relays.push(relay);
                    sites.push(site);
                }
                Err(error) if site.contestant == Contestant::Adit => return Err(error),
                Err(error) => println!("  {} does not take part: {error:#}", site.contestant.name()),
            }
        }
        ground.sites = sites;
        Ok(Self { relays, ground, _state: state })
    }

    fn start(site: &Site, plan: &Plan, state: &StateDir, with_threads: bool) -> Result<Running> {
        if with_threads {
            site.prepare_for_xdp()?;
        }
        let running = Running::start(site, &plan.coturns, &plan.programs, state)?;
        if with_threads {
            // After the start, since a program that is attached makes queues anew.
            site.receive_in_threads()?;
        }
        Ok(running)
    }

    fn race(&self, cases: &[Case], plan: &Plan, samples: &mut Vec<Sample>) -> Result<()> {
        for round in 1..=plan.rounds {
            let mut half = None;
            let is_last = round == plan.rounds;
            for case in cases.iter().filter(|case| is_last || !case.test.is_made_once()) {
                if case.test == Test::Latency && half.is_none() {
                    half = self.coturn_rate(plan).map(|rate| rate / 2.0);
                }
                for (whose, figures) in self.run_case(case, round, plan, half.unwrap_or(USUAL_HALF)) {
                    print(round, case.name, whose, &figures);
                    if whose == Contestant::Coturn {
                        half = rate_of(&figures).map(|rate| rate / 2.0).or(half);
                    }
                    let sample = |(figure, value)| Sample { figure, whose, round, value };
                    samples.extend(figures.into_iter().map(sample));
                }
            }
        }
        self.require_ours()
    }

    /// All contestants of a case, with what was measured of them.
    fn run_case(&self, case: &Case, round: u32, plan: &Plan, half: f64) -> Vec<(Contestant, Figures)> {
        let mut field: Vec<(&Site, &Running)> = self
            .ground
            .sites
            .iter()
            .zip(&self.relays)
            .filter(|(site, _)| case.test.is_for(site.contestant))
            .collect();
        if round.is_multiple_of(2) {
            field.reverse();
        }
        let mut all = Vec::new();
        for (site, running) in field {
            let whose = site.contestant;
            match self.stand(site, running, plan, half).measure(case.test) {
                Ok(figures) => all.push((whose, figures)),
                Err(error) => {
                    println!("  {round:>2}  {:<14} {:<11} failed: {error:#}", case.name, whose.name())
                }
            }
        }
        if case.test == Test::Latency {
            add_latency(&mut all);
        }
        all
    }

    fn stand<'a>(&'a self, site: &'a Site, running: &'a Running, plan: &'a Plan, half: f64) -> Stand<'a> {
        let generator = Generator { ground: &self.ground, site, programs: &plan.programs };
        Stand { generator, running, seconds: plan.seconds.into(), half }
    }

    /// What Debian's coturn carries, where no case of this round has said it.
    fn coturn_rate(&self, plan: &Plan) -> Option<f64> {
        let mut sites = self.ground.sites.iter().zip(&self.relays);
        let (site, running) = sites.find(|(site, _)| site.contestant == Contestant::Coturn)?;
        self.stand(site, running, plan, USUAL_HALF).burst_rate().ok()
    }

    /// Our relay has outlived it all.
    fn require_ours(&self) -> Result<()> {
        for (site, relay) in self.ground.sites.iter().zip(&self.relays) {
            if let (Running::Adit(_), Some(process)) = (relay, relay.process()) {
                let name = site.contestant.name();
                process.resident_bytes().with_context(|| format!("{name} did not survive the race"))?;
            }
        }
        Ok(())
    }
}

fn rate_of(figures: &Figures) -> Option<f64> {
    figures.iter().find(|(figure, _)| figure == "bursts_pps").map(|(_, rate)| *rate)
}

/// What a relay adds to the time that the cables and the generator take alone.
fn add_latency(all: &mut [(Contestant, Figures)]) {
    let Some(direct) =
        all.iter().find(|(whose, _)| *whose == Contestant::Direct).map(|(_, figures)| figures.clone())
    else {
        return;
    };
    for (_, figures) in all.iter_mut().filter(|(whose, _)| *whose != Contestant::Direct) {
        for ((name, value), (_, base)) in figures.iter_mut().zip(&direct) {
            *name = name.replace("one_way", "added_latency");
            *value = (*value - base).max(0.0);
        }
    }
}

fn print(round: u32, case: &str, whose: Contestant, figures: &Figures) {
    let shown: Vec<String> =
        figures.iter().map(|(figure, value)| format!("{figure} {}", short(*value))).collect();
    println!("  {round:>2}  {case:<14} {:<11} {}", whose.name(), shown.join("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_latency_is_what_is_beyond_the_direct_way() {
        let figures = |p50, p99| vec![("one_way_p50".to_owned(), p50), ("one_way_p99".to_owned(), p99)];
        let mut all =
            vec![(Contestant::Adit, figures(30.0, 90.0)), (Contestant::Direct, figures(10.0, 100.0))];
        add_latency(&mut all);
        let [(_, adit), (_, direct)] = &all[..] else { panic!("two") };
        assert_eq!(adit[0], ("added_latency_p50".to_owned(), 20.0));
        assert_eq!(adit[1], ("added_latency_p99".to_owned(), 0.0));
        assert_eq!(direct[0].0, "one_way_p50");
    }

    #[test]
    fn half_load_is_taken_from_the_rate() {
        assert_eq!(rate_of(&vec![("other".to_owned(), 1.0), ("bursts_pps".to_owned(), 2.0)]), Some(2.0));
        assert_eq!(rate_of(&Vec::new()), None);
    }
}
