//! Growing, jittered pauses between attempts.

use std::time::Duration;

use rand::Rng as _;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// The pauses between attempts: 250 ms, doubling to 30 s, each shortened by up to a half.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next attempt may come soon again.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now; never less than `at_least`, which the portal asked for. Even then
    /// the pauses of many peers differ, so that they do not all come back in the same moment.
    pub(crate) fn pause(&mut self, at_least: Option<Duration>) -> Duration {
        let longest = self.next;
        self.next = (self.next * 2).min(LONGEST);
        let jittered = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        at_least.map_or(jittered, |least| {
            let least = least.min(LONGEST * 20);
            least + least.min(LONGEST).mul_f64(rand::rng().random_range(0.0..=0.25)) + jittered
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new();
        assert!(backoff.pause(None) <= FIRST);
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            longest = longest.max(backoff.pause(None));
        }
        assert!(longest <= LONGEST && longest >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause(None) <= FIRST);
    }

    #[test]
    fn peers_that_were_told_the_same_come_back_apart() {
        let pause = || Backoff::new().pause(Some(Duration::from_secs(60)));
        let pauses: std::collections::BTreeSet<Duration> = (0..10).map(|_| pause()).collect();
        assert!(pauses.len() > 1);
    }

    #[test]
    fn the_portal_may_ask_for_more_but_not_for_ever() {
        let mut backoff = Backoff::new();
        assert!(backoff.pause(Some(Duration::from_secs(90))) >= Duration::from_secs(90));
        assert!(backoff.pause(Some(Duration::from_secs(1 << 40))) <= LONGEST * 22);
    }
}
