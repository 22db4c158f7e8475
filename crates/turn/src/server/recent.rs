//! Answers that must be given again although what they answered is gone.
//!
//! Most retransmitted requests can simply be carried out again. A request that deleted its own
//! allocation cannot, so its answer is kept for as long as a client may repeat it.

use super::Client;
use super::response::Reply;
use crate::stun::TransactionId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A client repeats a request for at most 39.5 s (RFC 8489, section 6.2.1).
const KEPT: Duration = Duration::from_secs(40);
const CAPACITY: usize = 256;

#[derive(Debug)]
struct Answer {
    given_at: Instant,
    client: Client,
    request: TransactionId,
    datagram: Vec<u8>,
}

/// The last few answers of that kind; they were all given to verified users.
#[derive(Debug, Default)]
pub(super) struct RecentAnswers(VecDeque<Answer>);

impl RecentAnswers {
    pub(super) fn remember(&mut self, now: Instant, client: Client, request: TransactionId, reply: &Reply) {
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(Answer { given_at: now, client, request, datagram: reply.datagram.clone() });
    }

    pub(super) fn find(&mut self, now: Instant, client: Client, request: TransactionId) -> Option<Reply> {
        let old = |answer: &Answer| now.saturating_duration_since(answer.given_at) > KEPT;
        while self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        let same = |answer: &&Answer| answer.request == request && answer.client == client;
        let answer = self.0.iter().find(same)?;
        Some(Reply { error: None, datagram: answer.datagram.clone() })
    }
}
