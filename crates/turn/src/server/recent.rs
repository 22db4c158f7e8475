//! Answers that must be given again although what they answered is gone.
//!
//! A request may arrive twice, and the answer to the second copy must leave client and server as if
//! there had been one (RFC 8489, section 6.3.1). Most requests can simply be carried out again. Two
//! cannot: one that deleted its own allocation, and the Allocate request of a deleted allocation, which
//! would make another one. Their answers are kept for as long as a client may repeat a request.
//!
//! The table has a fixed size; an answer may be overwritten by another one, and is then a 437.

use super::endpoint::{ClientKey, HashKey};
use crate::stun::TransactionId;
use std::hash::Hasher as _;
use std::time::{Duration, Instant};

/// A client repeats a request for at most 39.5 s (RFC 8489, section 6.2.1).
const KEPT: Duration = Duration::from_secs(40);
const CAPACITY: usize = 1024;

#[derive(Clone, Debug)]
struct Answer {
    given_at: Instant,
    client: ClientKey,
    user: Box<str>,
    request: TransactionId,
    datagram: Box<[u8]>,
}

/// The last answers of that kind; they were all given to verified users.
#[derive(Debug)]
pub(super) struct RecentAnswers {
    answers: Vec<Option<Answer>>,
    key: HashKey,
}

impl RecentAnswers {
    pub(super) fn new(key: HashKey) -> Self {
        Self { answers: vec![None; CAPACITY], key }
    }

    pub(super) fn remember(
        &mut self,
        now: Instant,
        client: ClientKey,
        user: &str,
        request: TransactionId,
        datagram: &[u8],
    ) {
        let place = self.place(client, request);
        let (user, datagram) = (user.into(), datagram.into());
        self.answers[place] = Some(Answer { given_at: now, client, user, request, datagram });
    }

    /// The answer that this user got to this request.
    pub(super) fn find(
        &self,
        now: Instant,
        client: ClientKey,
        user: &str,
        request: TransactionId,
    ) -> Option<&[u8]> {
        let answer = self.answers[self.place(client, request)].as_ref()?;
        let same = answer.request == request && answer.client == client && *answer.user == *user;
        let is_young = now.saturating_duration_since(answer.given_at) <= KEPT;
        (same && is_young).then_some(&answer.datagram)
    }

    fn place(&self, client: ClientKey, TransactionId(id): TransactionId) -> usize {
        let mut hasher = self.key.hasher();
        hasher.write_u64(client.hash(self.key, 0));
        hasher.write(&id);
        hasher.finish() as usize % CAPACITY
    }
}
