//! What is known about the pairs of one connection, and which is best.
//!
//! A pair becomes a *path* when something we sent over it was answered authentically: a check, a
//! probe, a handshake. A path that stops answering while another answers is *suspect* until
//! it answers again.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::address::Pair;

/// Pairs remembered per connection; the one silent for longest gives way.
const MAX_PATHS: usize = 32;

/// A path that answered nothing for so long is no path any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90);

/// What is between the two ends, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A relay, and a byte stream to it.
    Stream,
    /// At least one relay.
    Relay,
    /// Nothing.
    Direct,
}

/// One pair with its history.
#[derive(Clone, Debug)]
struct Entry {
    pair: Pair,
    class: Class,
    answered: Option<Instant>,
    heard: Instant,
    rtt: Option<Duration>,
    suspect: bool,
}

/// Greater is better. Fields in the order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    trusted: bool,
    stays: bool,
    class: Class,
    nominated: bool,
}

/// All pairs of a connection that said something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    entries: Vec<Entry>,
}

impl Paths {
    /// Something authentic came in over a pair.
    pub(crate) fn note_heard(&mut self, now: Instant, pair: Pair, class: Class) {
        self.entry(now, pair, class).heard = now;
    }

    /// Something we sent was answered over a pair. True if the pair was no path before.
    pub(crate) fn note_answer(
        &mut self,
        now: Instant,
        pair: Pair,
        class: Class,
        rtt: Option<Duration>,
    ) -> bool {
        let entry = self.entry(now, pair, class);
        let news = entry.answered.is_none() || entry.suspect;
        entry.heard = now;
        entry.answered = Some(now);
        entry.suspect = false;
        if let Some(sample) = rtt {
            // RFC 6298, section 2: seven parts old, one part new.
            entry.rtt = Some(entry.rtt.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
        }
        news
    }

    fn entry(&mut self, now: Instant, pair: Pair, class: Class) -> &mut Entry {
        if let Some(index) = self.entries.iter().position(|entry| entry.pair == pair) {
            return &mut self.entries[index];
        }
        if self.entries.len() >= MAX_PATHS {
            let silent = (0..self.entries.len()).min_by_key(|index| self.entries[*index].heard);
            self.entries.swap_remove(silent.unwrap_or(0));
        }
        self.entries.push(Entry { pair, class, answered: None, heard: now, rtt: None, suspect: false });
        let last = self.entries.len() - 1;
        &mut self.entries[last]
    }

    /// The path stopped answering while another did not.
    pub(crate) fn mark_suspect(&mut self, pair: Pair) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.pair == pair) {
            entry.suspect = true;
        }
    }

    /// Forgets pairs that start at an address which is ours no more.
    pub(crate) fn forget_local(&mut self, local: SocketAddr) {
        self.entries.retain(|entry| entry.pair.local != local);
    }

    /// Forgets pairs that end at an address which is the peer's no more.
    pub(crate) fn forget_remote(&mut self, remote: SocketAddr) {
        self.entries.retain(|entry| entry.pair.remote != remote);
    }

    /// Forgets what has been silent for long, except the pair in use.
    pub(crate) fn forget_old(&mut self, now: Instant, selected: Option<Pair>) {
        self.entries.retain(|entry| {
            Some(entry.pair) == selected || now.saturating_duration_since(entry.heard) < FORGOTTEN_AFTER
        });
    }

    /// When the peer was last heard, on any pair.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.heard).max()
    }

    /// Every path, the pairs that answered.
    pub(crate) fn validated(&self) -> impl Iterator<Item = Pair> + '_ {
        self.entries.iter().filter(|entry| entry.answered.is_some()).map(|entry| entry.pair)
    }

    pub(crate) fn is_validated(&self, pair: Pair) -> bool {
        self.validated().any(|other| other == pair)
    }

    pub(crate) fn is_suspect(&self, pair: Pair) -> bool {
        self.entries.iter().any(|entry| entry.pair == pair && entry.suspect)
    }

    /// The smoothed round trip of a pair.
    pub(crate) fn rtt(&self, pair: Pair) -> Option<Duration> {
        self.entries.iter().find(|entry| entry.pair == pair)?.rtt
    }

    /// The path to use: the present one unless another is better by kind.
    ///
    /// Trusted before suspect, those that stay before those over a relay that is `leaving`, direct before
    /// relayed, datagrams to the relay before a stream, nominated by ICE before others, then the shorter round trip.
    /// Round trips alone do not move a connection: they waver.
    pub(crate) fn best(
        &self,
        present: Option<Pair>,
        nominated: Option<Pair>,
        leaving: impl Fn(Pair) -> bool,
    ) -> Option<Pair> {
        let rank = |entry: &Entry| Rank {
            trusted: !entry.suspect,
            stays: !leaving(entry.pair),
            class: entry.class,
            nominated: Some(entry.pair) == nominated,
        };
        let paths = || self.entries.iter().filter(|entry| entry.answered.is_some());
        let best = paths().max_by_key(|entry| {
            let rtt = entry.rtt.unwrap_or(Duration::MAX);
            (rank(entry), Reverse(rtt))
        })?;
        match paths().find(|entry| Some(entry.pair) == present) {
            Some(present) if rank(present) >= rank(best) => Some(present.pair),
            _ => Some(best.pair),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(port: u16) -> Pair {
        Pair { local: ([192, 0, 2, 1], 1).into(), remote: ([192, 0, 2, 2], port).into() }
    }

    fn none_leaves(_: Pair) -> bool {
        false
    }

    const DIRECT: Class = Class::Direct;
    const RELAY: Class = Class::Relay;
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_over_a_relay_that_leaves_is_used_only_where_there_is_no_other() {
        let now = Instant::now();
        let mut paths = Paths::default();
        let leaving = |other: Pair| other == pair(1);
        paths.note_answer(now, pair(1), RELAY, Some(MS));
        assert_eq!(paths.best(Some(pair(1)), Some(pair(1)), leaving), Some(pair(1)));
        paths.note_answer(now, pair(2), RELAY, Some(9 * MS));
        assert_eq!(paths.best(Some(pair(1)), Some(pair(1)), leaving), Some(pair(2)));
        paths.mark_suspect(pair(2));
        assert_eq!(paths.best(Some(pair(2)), None, leaving), Some(pair(1)), "alive for now beats maybe dead");
    }

    #[test]
    fn direct_beats_relayed_and_the_present_path_stays_among_equals() {
        let now = Instant::now();
        let mut paths = Paths::default();
        assert_eq!(paths.best(None, None, none_leaves), None);
        paths.note_heard(now, pair(9), DIRECT);
        assert_eq!(paths.best(None, None, none_leaves), None, "hearing is not being heard");
        assert!(paths.note_answer(now, pair(1), RELAY, Some(5 * MS)));
        assert_eq!(paths.best(None, None, none_leaves), Some(pair(1)));
        paths.note_answer(now, pair(2), DIRECT, Some(50 * MS));
        assert_eq!(paths.best(Some(pair(1)), None, none_leaves), Some(pair(2)));
        assert!(paths.note_answer(now, pair(3), DIRECT, Some(40 * MS)));
        assert_eq!(paths.best(Some(pair(2)), None, none_leaves), Some(pair(2)), "faster alone is no reason");
        assert_eq!(paths.best(None, None, none_leaves), Some(pair(3)));
        assert_eq!(paths.best(Some(pair(2)), Some(pair(3)), none_leaves), Some(pair(3)), "nomination is");
        assert_eq!(
            paths.best(Some(pair(2)), Some(pair(1)), none_leaves),
            Some(pair(2)),
            "but not of a relayed pair"
        );
    }

    #[test]
    fn a_suspect_path_yields_until_it_answers() {
        let now = Instant::now();
        let mut paths = Paths::default();
        paths.note_answer(now, pair(1), RELAY, Some(5 * MS));
        paths.note_answer(now, pair(2), DIRECT, Some(5 * MS));
        paths.mark_suspect(pair(2));
        assert_eq!(paths.best(Some(pair(2)), Some(pair(2)), none_leaves), Some(pair(1)));
        assert!(paths.note_answer(now, pair(2), DIRECT, None), "that is news");
        assert_eq!(paths.best(Some(pair(1)), None, none_leaves), Some(pair(2)));
        paths.forget_remote(pair(2).remote);
        assert_eq!(paths.best(Some(pair(2)), None, none_leaves), Some(pair(1)));
    }

    #[test]
    fn a_stream_is_the_last_resort() {
        let now = Instant::now();
        let mut paths = Paths::default();
        paths.note_answer(now, pair(1), Class::Stream, Some(MS));
        assert_eq!(paths.best(None, None, none_leaves), Some(pair(1)));
        paths.note_answer(now, pair(2), RELAY, Some(90 * MS));
        assert_eq!(
            paths.best(Some(pair(1)), Some(pair(1)), none_leaves),
            Some(pair(2)),
            "even if it is nominated and faster"
        );
        paths.mark_suspect(pair(2));
        assert_eq!(paths.best(Some(pair(2)), None, none_leaves), Some(pair(1)), "but better than none");
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut paths = Paths::default();
        for port in 1..=1000 {
            paths.note_heard(now + MS * u32::from(port), pair(port), DIRECT);
        }
        assert_eq!(paths.entries.len(), MAX_PATHS);
        paths.forget_old(now + FORGOTTEN_AFTER + MS * 1000, Some(pair(1000)));
        assert_eq!(paths.entries.len(), 1);
    }
}
