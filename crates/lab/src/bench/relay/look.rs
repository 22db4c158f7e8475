//! A short look at our relay under load, without any rival: what the scenario `relay-load` judges.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::case::{SINGLE_SIZE, TRAIN, TRAIN_SIZE};
use super::contestant::{Contestant, Coturns, Running};
use super::generator::{Arrivals, Generator, Load};
use super::ground::Ground;
use crate::system::{Programs, StateDir};

/// Slow enough for a machine that does other things as well.
const PER_SECOND: f64 = 10_000.0;

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Loads by name, and what became of each.
    pub(crate) loads: Vec<(&'static str, Arrivals)>,
    /// Bytes of payload that come back for one of a stranger's, by question.
    pub(crate) amplification: Vec<(String, f64)>,
    /// Growth of resident memory by fifty thousand strangers, in bytes.
    pub(crate) growth: f64,
}

/// Raises a world with our relay alone, and looks.
///
/// # Errors
/// When the relay does not work.
pub(crate) fn look(programs: &Programs, log_dir: &Path) -> Result<Look> {
    let ground = Ground::raise(&[Contestant::Adit], log_dir)?;
    let site = ground.sites.first().context("a world without a relay")?;
    let state = StateDir::create()?;
    let running = Running::start(site, &Coturns::default(), programs, &state)?;
    let process = running.process().context("no relay runs")?;
    let generator = Generator { ground: &ground, site, programs };
    let load = |flows, size, train| Load { flows, per_second: PER_SECOND, seconds: 1.0, size, train };
    let loads = [
        ("trains, 1 flow", load(1, TRAIN_SIZE, TRAIN)),
        ("trains, 100 flows", load(100, TRAIN_SIZE, TRAIN)),
        ("single datagrams", load(10, SINGLE_SIZE, 1)),
    ];
    let loads = loads.iter().map(|(name, load)| Ok((*name, generator.load(load)?)));
    let loads = loads.collect::<Result<Vec<_>>>()?;
    let amplification = generator.amplification()?.into_iter();
    let amplification = amplification.map(|(question, answers)| (question, answers.amplification)).collect();
    generator.flood(5_000, PER_SECOND)?;
    let before = process.resident_bytes()?;
    generator.flood(50_000, 2.0 * PER_SECOND)?;
    let growth = process.resident_bytes()? as f64 - before as f64;
    Ok(Look { loads, amplification, growth })
}
