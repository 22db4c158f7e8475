//! One measurement: a test on one relay.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::case::{SINGLE_SIZE, TRAIN, TRAIN_SIZE, Test};
use super::contestant::{Contestant, Running};
use super::generator::{Arrivals, Generator, Load};
use crate::bench::usage;
use crate::process::Process;

/// Rates that every relay can carry, in datagrams a second.
const STEADY_BURSTS: f64 = 50_000.0;
const STEADY_SINGLES: f64 = 60_000.0;

/// Where a search begins, and how long a trial is.
const FIRST: f64 = 150_000.0;
const TRIAL_SECONDS: f64 = 1.2;

/// Flows of tests that do not say otherwise.
const FLOWS: u16 = 10;

const ALLOCATIONS: u16 = 2_000;
const AT_ONCE: u16 = 64;

/// Allocations that are there first, so that what a relay needs once is not counted; and those that are weighed.
const WARM_UP: u16 = 1_000;
const WEIGHED: u16 = 8_000;

/// Strangers that come first, and those whose traces are looked for.
const FEW_STRANGERS: u64 = 20_000;
const STRANGERS: u64 = 1_000_000;
const STRANGERS_PER_SECOND: f64 = 60_000.0;

/// Time for a relay to put its memory in order.
const SETTLE: Duration = Duration::from_secs(1);

/// Longest that the generator may take to give ten thousand allocations back.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

/// What a test gave: the name of each figure, and its value.
pub(super) type Figures = Vec<(String, f64)>;

/// A relay with the generator in front of it.
pub(super) struct Stand<'a> {
    pub(super) generator: Generator<'a>,
    pub(super) running: &'a Running,
    /// Length of a load.
    pub(super) seconds: f64,
    /// What "half load" is, in datagrams a second.
    pub(super) half: f64,
}

impl Stand<'_> {
    /// Performs the test.
    ///
    /// # Errors
    /// When nothing could be measured.
    pub(super) fn measure(&self, test: Test) -> Result<Figures> {
        match test {
            Test::Bursts(flows) => {
                let (arrivals, used) = self.load(&self.bursts(flows, STEADY_BURSTS), false)?;
                let figure = format!("bursts_dgrams_per_cpu_s_{flows}");
                Ok(vec![(figure, arrivals.received as f64 / used)])
            }
            Test::BurstRate => Ok(vec![("bursts_pps".to_owned(), self.burst_rate()?)]),
            Test::Singles => {
                let (arrivals, used) = self.load(&self.singles(), false)?;
                Ok(vec![("single_us_per_dgram".to_owned(), used / arrivals.received as f64 * 1e6)])
            }
            Test::SinglesWithKernel => {
                let (arrivals, used) = self.load(&self.singles(), true)?;
                Ok(vec![("xdp_dgrams_per_cpu_s_160".to_owned(), arrivals.received as f64 / used)])
            }
            Test::Latency => self.latency(),
            Test::Allocations => {
                let before = self.used(false)?;
                let rate = self.generator.allocate(ALLOCATIONS, AT_ONCE)?;
                let each = (self.used(false)? - before) / f64::from(ALLOCATIONS);
                let figures = [("allocations_per_s", rate), ("allocation_cpu_us", each * 1e6)];
                Ok(figures.map(|(name, value)| (name.to_owned(), value)).into())
            }
            Test::Memory => self.memory(),
            Test::Flood => self.flood(),
            Test::Amplification => self.amplification(),
        }
    }

    /// The highest rate of trains at 1 % loss.
    pub(super) fn burst_rate(&self) -> Result<f64> {
        self.generator.search(&Load { seconds: TRIAL_SECONDS, ..self.bursts(FLOWS, FIRST) })
    }

    fn bursts(&self, flows: u16, per_second: f64) -> Load {
        Load { flows, per_second, seconds: self.seconds, size: TRAIN_SIZE, train: TRAIN }
    }

    fn singles(&self) -> Load {
        let (flows, per_second, seconds) = (FLOWS, STEADY_SINGLES, self.seconds);
        Load { flows, per_second, seconds, size: SINGLE_SIZE, train: 1 }
    }

    /// A load, and the processor seconds that the relay used for it; those of its machine's kernel too, if asked for.
    fn load(&self, load: &Load, with_kernel: bool) -> Result<(Arrivals, f64)> {
        let before = self.used(with_kernel)?;
        let arrivals = self.generator.load(load)?;
        let used = self.used(with_kernel)? - before;
        self.note(&arrivals);
        Ok((arrivals, used))
    }

    /// Says what went wrong on the way, if anything did.
    fn note(&self, arrivals: &Arrivals) {
        let Arrivals { loss, reordered, duplicates, .. } = arrivals;
        if *loss > 0.01 || *reordered > 0 || *duplicates > 0 {
            let name = self.generator.site.contestant.name();
            println!("  NOTE: {name}: {:.2} % lost, {reordered} reordered, {duplicates} twice", loss * 100.0);
        }
    }

    fn used(&self, with_kernel: bool) -> Result<f64> {
        let process = usage::exact_cpu_seconds(self.process()?.pid())?;
        let kernel = if with_kernel { self.generator.site.kernel_seconds()? } else { 0.0 };
        Ok(process + kernel)
    }

    fn latency(&self) -> Result<Figures> {
        let load = self.bursts(FLOWS, self.half);
        let arrivals = self.generator.load(&load)?;
        if self.generator.site.contestant != Contestant::Direct {
            self.note(&arrivals);
        }
        let times = arrivals.one_way_us;
        Ok(vec![("one_way_p50".to_owned(), times.p50), ("one_way_p99".to_owned(), times.p99)])
    }

    fn memory(&self) -> Result<Figures> {
        let process = self.process()?;
        let mut warm_up = self.generator.hold(WARM_UP)?;
        std::thread::sleep(SETTLE);
        let before = process.resident_bytes()?;
        let mut weighed = self.generator.hold(WEIGHED)?;
        std::thread::sleep(SETTLE);
        let after = process.resident_bytes()?;
        weighed.stop(RELEASE_LIMIT)?;
        warm_up.stop(RELEASE_LIMIT)?;
        let grown = after.saturating_sub(before) as f64;
        Ok(vec![("bytes_per_allocation".to_owned(), grown / f64::from(WEIGHED))])
    }

    fn flood(&self) -> Result<Figures> {
        let process = self.process()?;
        self.generator.flood(FEW_STRANGERS, STRANGERS_PER_SECOND)?;
        std::thread::sleep(SETTLE);
        let before = process.resident_bytes()?;
        let (begin, cpu) = (std::time::Instant::now(), self.used(false)?);
        let answers = self.generator.flood(STRANGERS, STRANGERS_PER_SECOND)?;
        let took = begin.elapsed().as_secs_f64();
        let per_request = (self.used(false)? - cpu) / answers.asked as f64;
        std::thread::sleep(SETTLE);
        let after = process.resident_bytes()?;
        let name = self.generator.site.contestant.name();
        let share = 100.0 * answers.answers as f64 / answers.asked.max(1) as f64;
        println!("  NOTE: {name}: {share:.1} % of {} requests answered in {took:.0} s", answers.asked);
        Ok(vec![
            ("flood_rss_growth_bytes".to_owned(), after as f64 - before as f64),
            ("flood_us_per_request".to_owned(), per_request * 1e6),
            ("flood_amplification".to_owned(), answers.amplification),
        ])
    }

    /// The worst question counts.
    fn amplification(&self) -> Result<Figures> {
        let all = self.generator.amplification()?;
        for (question, answers) in &all {
            if answers.answers > 0 {
                let (bytes, wire) = (answers.amplification, answers.amplification_on_the_wire);
                println!("  {:<20} {question:<30} {bytes:.2} ({wire:.2} with headers)", "amplification");
            }
        }
        let worst = |of: fn(&super::generator::Answers) -> f64| {
            all.iter().map(|(_, answers)| of(answers)).max_by(f64::total_cmp).context("nothing was asked")
        };
        Ok(vec![
            ("reply_amplification".to_owned(), worst(|answers| answers.amplification)?),
            (
                "reply_amplification_on_the_wire".to_owned(),
                worst(|answers| answers.amplification_on_the_wire)?,
            ),
        ])
    }

    fn process(&self) -> Result<&Process> {
        let Some(process) = self.running.process() else { bail!("nothing runs here") };
        Ok(process)
    }
}
