//! The replay window of one session (RFC 6479: a ring of words instead of a shifted bitmap).

use crate::DropReason;

/// How far behind the newest counter a datagram may arrive.
pub(crate) const WINDOW: u64 = 8192;

const WORD_BITS: u64 = 64;
/// One word more than the window holds, since the newest word may be almost empty.
const WORDS: usize = (WINDOW / WORD_BITS) as usize + 1;

/// Which of the newest 8,192 counters were received.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    /// One past the newest accepted counter; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }

    /// One past the newest accepted counter; 0 before the first.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Says whether `counter` could be accepted. Changes nothing, so it may run before decryption.
    pub(crate) const fn check(&self, counter: u64) -> Result<(), DropReason> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > WINDOW {
            return Err(DropReason::BelowWindow);
        }
        let (word, bit) = position(counter);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(DropReason::Replayed) }
    }

    /// Marks `counter` as received. Call it only for authenticated datagrams that passed `check`.
    pub(crate) fn accept(&mut self, counter: u64) {
        if counter >= self.next {
            self.advance(counter);
        }
        let (word, bit) = position(counter);
        self.words[word] |= bit;
    }

    /// Clears the words between the newest counter so far and `counter`.
    fn advance(&mut self, counter: u64) {
        let newest_word = if self.next == 0 { 0 } else { (self.next - 1) / WORD_BITS };
        let fresh = (counter / WORD_BITS - newest_word).min(WORDS as u64);
        for step in 1..=fresh {
            let (word, _) = position((newest_word + step) * WORD_BITS);
            self.words[word] = 0;
        }
        self.next = counter.saturating_add(1);
    }
}

const fn position(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS % WORDS as u64) as usize, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same rule with a set of everything ever seen.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn receive(&mut self, counter: u64) -> Result<(), DropReason> {
            if self.seen.last().is_some_and(|newest| counter + WINDOW <= *newest) {
                return Err(DropReason::BelowWindow);
            }
            if self.seen.insert(counter) { Ok(()) } else { Err(DropReason::Replayed) }
        }
    }

    fn receive(window: &mut ReplayWindow, counter: u64) -> Result<(), DropReason> {
        window.check(counter)?;
        window.accept(counter);
        Ok(())
    }

    /// Runs of consecutive counters, some of them where the ring comes round to the same word.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let ring = WORDS as u64 * WORD_BITS;
        let edge = (0u64..6, 0u64..130, prop_oneof![Just(WINDOW), Just(ring)])
            .prop_map(|(turns, offset, turn)| turns * turn + offset);
        let start = prop_oneof![0u64..40_000, edge, 0u64..200];
        let run = (start, 1u64..100).prop_map(|(start, length)| start..start + length);
        prop::collection::vec(run, 1..20).prop_map(|runs| runs.into_iter().flatten().collect())
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(counters in counters(), base in prop_oneof![Just(0u64), Just(1u64 << 60)]) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            for counter in counters {
                let counter = base + counter;
                prop_assert_eq!(receive(&mut window, counter), model.receive(counter), "counter {}", counter);
            }
        }
    }

    #[test]
    fn the_window_is_exactly_8192_wide() {
        let mut window = ReplayWindow::new();
        assert_eq!(receive(&mut window, 8192), Ok(()));
        assert_eq!(receive(&mut window, 0), Err(DropReason::BelowWindow));
        assert_eq!(receive(&mut window, 1), Ok(()));
        assert_eq!(receive(&mut window, 1), Err(DropReason::Replayed));
        assert_eq!(receive(&mut window, u64::MAX - 1), Ok(()));
        assert_eq!(receive(&mut window, 8193), Err(DropReason::BelowWindow));
    }
}
