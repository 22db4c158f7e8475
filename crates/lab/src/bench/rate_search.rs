//! The highest rate at which at most one datagram in a hundred is lost.

use anyhow::{Result, bail};

/// Share of datagrams that may be lost.
const LOSS: f64 = 0.01;

/// A sender that falls short of the rate by more than this does not try it.
const OFFERED: f64 = 0.97;

/// Most trials of one search.
const TRIALS: u32 = 9;

/// The search ends when the rates that work and those that do not are this close.
const CLOSE: f64 = 1.08;

/// Growth while every rate works.
const GROWTH: f64 = 1.6;

/// What came of a load at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Datagrams a second that were sent.
    pub offered: f64,
    /// Datagrams a second that arrived.
    pub rate: f64,
    /// Share that did not, 0.0 to 1.0.
    pub loss: f64,
}

/// Searches from `first` on, in datagrams a second; returns the rate that arrived in the best trial that worked.
///
/// # Errors
/// When a trial cannot be made, or none works.
pub fn highest(first: f64, mut trial: impl FnMut(f64) -> Result<Trial>) -> Result<f64> {
    let (mut works, mut fails, mut best) = (0.0, None::<f64>, None);
    let mut rate = first;
    for _ in 0..TRIALS {
        let Trial { offered, rate: arrived, loss } = trial(rate)?;
        if loss <= LOSS && offered >= OFFERED * rate {
            works = rate;
            best = Some(arrived);
        } else {
            fails = Some(rate);
        }
        rate = match fails {
            None => rate * GROWTH,
            Some(fails) if works > 0.0 && fails / works < CLOSE => break,
            Some(fails) => f64::midpoint(works, fails),
        };
    }
    let Some(best) = best else { bail!("more than 1 % lost at any rate down to {rate:.0} a second") };
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries so many a second and drops the rest.
    fn path(capacity: f64) -> impl FnMut(f64) -> Result<Trial> {
        move |rate| {
            let arrived = rate.min(capacity);
            Ok(Trial { offered: rate, rate: arrived, loss: 1.0 - arrived / rate })
        }
    }

    #[test]
    fn capacities_far_from_the_first_guess_are_found() {
        for capacity in [5_000.0, 48_000.0, 119_000.0, 700_000.0] {
            let found = highest(120_000.0, path(capacity)).unwrap();
            assert!(found <= capacity && found > capacity * 0.9, "{found} of {capacity}");
        }
    }

    #[test]
    fn a_sender_that_cannot_keep_up_ends_the_search() {
        let mut slow = |rate: f64| {
            let offered = rate.min(150_000.0);
            Ok(Trial { offered, rate: offered, loss: 0.0 })
        };
        let found = highest(120_000.0, &mut slow).unwrap();
        assert!((130_000.0..=155_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_path_that_carries_nothing_has_no_rate() {
        highest(120_000.0, path(0.0)).unwrap_err();
    }
}
