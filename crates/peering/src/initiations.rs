//! Initiations that were answered lately, so that copies cost no cryptography.
//!
//! A client sends copies of one initiation over many pairs. The first that arrives is
//! answered; a copy that comes by another pair gets the same response there, in case the
//! first pair works in one direction only. Only answered initiations are remembered, so a
//! stranger cannot fill the table.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::address::Pair;

const MAX_REMEMBERED: usize = 512;
const REMEMBERED_FOR: Duration = Duration::from_secs(5);
/// A response goes over at most this many pairs.
const MAX_PAIRS: usize = 16;

#[derive(Debug)]
struct Answer {
    response: Vec<u8>,
    pairs: Vec<Pair>,
}

/// What to do with an initiation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// It is new.
    First,
    /// It was answered, but not by this pair: send the response again.
    Again(Vec<u8>),
    /// It was answered by this very pair.
    Repeated,
}

/// Answered initiations with their responses.
#[derive(Debug, Default)]
pub(crate) struct Initiations {
    answers: BTreeMap<Vec<u8>, Answer>,
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl Initiations {
    /// Looks whether this very initiation was answered already.
    pub(crate) fn look_up(&mut self, now: Instant, pair: Pair, initiation: &[u8]) -> Copy {
        self.forget_old(now);
        let Some(answer) = self.answers.get_mut(initiation) else { return Copy::First };
        if answer.pairs.contains(&pair) || answer.pairs.len() >= MAX_PAIRS {
            return Copy::Repeated;
        }
        answer.pairs.push(pair);
        Copy::Again(answer.response.clone())
    }

    /// Remembers an authentic initiation and what was answered.
    pub(crate) fn remember(&mut self, now: Instant, pair: Pair, initiation: Vec<u8>, response: &[u8]) {
        if self.order.len() >= MAX_REMEMBERED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back((now, initiation.clone()));
        self.answers.insert(initiation, Answer { response: response.to_vec(), pairs: vec![pair] });
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front()
            && now.saturating_duration_since(*since) > REMEMBERED_FOR
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_recognised_and_forgotten_after_a_while() {
        let mut initiations = Initiations::default();
        let now = Instant::now();
        let pair =
            |port| Pair { local: "192.0.2.1:1".parse().unwrap(), remote: ([192, 0, 2, 2], port).into() };
        assert_eq!(initiations.look_up(now, pair(1), b"init"), Copy::First);
        initiations.remember(now, pair(1), b"init".to_vec(), b"resp");
        assert_eq!(initiations.look_up(now, pair(1), b"init"), Copy::Repeated);
        assert_eq!(initiations.look_up(now, pair(2), b"init"), Copy::Again(b"resp".to_vec()));
        assert_eq!(initiations.look_up(now, pair(2), b"init"), Copy::Repeated);
        let later = now + REMEMBERED_FOR + Duration::from_millis(1);
        assert_eq!(initiations.look_up(later, pair(1), b"init"), Copy::First);
        for number in 0..2 * MAX_REMEMBERED {
            initiations.remember(later, pair(1), number.to_be_bytes().to_vec(), b"resp");
        }
        assert_eq!((initiations.answers.len(), initiations.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
