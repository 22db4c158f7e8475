//! The example program `turn-load`: what it is told, and what it says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::contestant::{Contestant, GENERATOR, SECRET};
use super::ground::{CLIENTS, Ground, Site};
use crate::process::{self, Process, Spawn};
use crate::system::{Programs, Relay};

/// Longest run: a flood of a million at twenty thousand a second is the longest of all.
const LIMIT: Duration = Duration::from_secs(120);

/// Longest time until ten thousand allocations are open.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// One load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) flows: u16,
    pub(super) per_second: f64,
    pub(super) seconds: f64,
    pub(super) size: usize,
    pub(super) train: usize,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Arrivals {
    pub(super) received: u64,
    pub(crate) loss: f64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
    pub(super) corrupt: u64,
    pub(super) misdelivered: u64,
    pub(crate) one_way_us: Quantiles,
}

/// Times in µs.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(super) p99: f64,
}

/// What came back for questions of strangers.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Answers {
    pub(super) asked: u64,
    pub(super) answers: u64,
    pub(super) amplification: f64,
    pub(super) amplification_on_the_wire: f64,
}

#[derive(Debug, Deserialize)]
struct Rate {
    rate: f64,
}

#[derive(Debug, Deserialize)]
struct Allocated {
    per_s: f64,
}

/// The generator in front of one relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator<'a> {
    pub(super) ground: &'a Ground,
    pub(super) site: &'a Site,
    pub(super) programs: &'a Programs,
}

impl Generator<'_> {
    /// Sends a load through the relay, half of it each way.
    ///
    /// # Errors
    /// When nothing arrives, or what arrives is not what was sent.
    pub(super) fn load(&self, load: &Load) -> Result<Arrivals> {
        let arrivals: Arrivals = self.run("load", &self.load_words(load))?;
        let Arrivals { received, corrupt, misdelivered, .. } = arrivals;
        if received == 0 || corrupt > 0 || misdelivered > 0 {
            bail!("{}: {arrivals:?}", self.site.contestant.name());
        }
        Ok(arrivals)
    }

    /// The highest rate at 1 % loss, in datagrams a second.
    pub(super) fn search(&self, load: &Load) -> Result<f64> {
        Ok(self.run::<Rate>("search", &self.load_words(load))?.rate)
    }

    /// Allocations a second.
    pub(super) fn allocate(&self, count: u16, at_once: u16) -> Result<f64> {
        let words = [self.place(), vec!["--count".to_owned(), count.to_string()]].concat();
        let words = [words, vec!["--at-once".to_owned(), at_once.to_string()]].concat();
        Ok(self.run::<Allocated>("allocate", &words)?.per_s)
    }

    /// Opens allocations that stay until the process is stopped.
    pub(super) fn hold(&self, count: u16) -> Result<Process> {
        let spawn = Spawn::new("turn-load", self.programs.example(GENERATOR.1))
            .arg("allocate")
            .args(self.place())
            .args(["--count", &count.to_string(), "--hold"]);
        let mut process = self.ground.generator.spawn(&spawn)?;
        process.wait_for_output("per_s", HOLD_LIMIT)?;
        Ok(process)
    }

    /// Asks as so many strangers.
    pub(super) fn flood(&self, count: u64, per_second: f64) -> Result<Answers> {
        let words = [self.strangers(), vec!["--count".to_owned(), count.to_string()]].concat();
        self.run("flood", &[words, vec!["--rate".to_owned(), per_second.to_string()]].concat())
    }

    /// What comes back for each kind of question, by its name.
    pub(super) fn amplification(&self) -> Result<Vec<(String, Answers)>> {
        let answers: std::collections::BTreeMap<String, Answers> =
            self.run("amplification", &self.strangers())?;
        Ok(answers.into_iter().collect())
    }

    fn run<T: DeserializeOwned>(&self, command: &str, words: &[String]) -> Result<T> {
        let mut program = self.ground.generator.command(self.programs.example(GENERATOR.1));
        program.arg(command).args(words);
        let finished = process::finish(program, LIMIT).context("starting turn-load")?;
        if !finished.success() {
            bail!("turn-load {command} ended with {}: {}", finished.status, finished.complaint());
        }
        serde_json::from_str(&finished.stdout)
            .with_context(|| format!("turn-load printed {}", finished.stdout))
    }

    fn relay(&self) -> String {
        SocketAddr::new(self.site.address.v4.into(), Relay::PORT).to_string()
    }

    fn place(&self) -> Vec<String> {
        let peers = self.site.peers.to_string();
        let mut words = vec!["--clients", CLIENTS, "--peers", &peers];
        let relay = self.relay();
        if self.site.contestant != Contestant::Direct {
            words.extend(["--relay", &relay, "--secret", SECRET]);
        }
        words.into_iter().map(str::to_owned).collect()
    }

    fn strangers(&self) -> Vec<String> {
        let relay = self.relay();
        ["--relay", &relay, "--strangers", CLIENTS].map(str::to_owned).to_vec()
    }

    fn load_words(&self, load: &Load) -> Vec<String> {
        let Load { flows, per_second, seconds, size, train } = load;
        let options = [
            ("--flows", flows.to_string()),
            ("--rate", per_second.to_string()),
            ("--seconds", seconds.to_string()),
            ("--size", size.to_string()),
            ("--train", train.to_string()),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        self.place().into_iter().chain(options).collect()
    }
}
