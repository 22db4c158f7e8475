//! Queries that upstream resolvers answer.
//!
//! Every query of a client becomes one or more attempts. An attempt has an unpredictable identifier of its own, and only
//! a response with that identifier and the same question counts (RFC 5452, 9). If an upstream stays silent for
//! [`ATTEMPT`], fails, or says it cannot answer, the next one is asked; responses to earlier attempts are still welcome.
//! A truncated response is asked for again over TCP. After [`QUERY`] the client gets the best failure there is.
//!
//! The caller sends each [`UpstreamQuery`] from a fresh source port to its server and reports what came back. When
//! [`Forwarder::handle_response`] refuses a response, it should go on listening: the real one may follow a forged one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::answer::{self, Records};
use crate::cache::{Cache, take_over_question};
use crate::query::{Query, Transport};
use crate::response::Response;

/// How long one upstream may take before the next is asked as well.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long a client waits in all; most give up at five seconds themselves.
const QUERY: Duration = Duration::from_secs(5);
/// Attempts for one query, retries over TCP not counted.
const MAXIMUM_ATTEMPTS: usize = 4;
/// Queries under way.
const MAXIMUM_PENDING: usize = 1024;

/// Names one attempt.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UpstreamId(pub u64);

/// A message to send to an upstream resolver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamQuery {
    /// To report the outcome with.
    pub id: UpstreamId,
    /// Whom to ask.
    pub server: SocketAddr,
    /// How to ask; over TCP the caller adds the two bytes of length.
    pub transport: Transport,
    /// The DNS message.
    pub message: Vec<u8>,
}

/// Why an upstream gave no response.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum UpstreamFailure {
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It could not be reached.
    #[error("not reachable")]
    Unreachable,
}

/// Why a response was not taken; the attempt goes on.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum ResponseError {
    /// The attempt is over, or never was.
    #[error("nobody waits for this response")]
    Unknown,
    /// The identifier or the question is not what was sent.
    #[error("response does not belong to the query")]
    NotTheAnswer,
    /// It is no DNS message.
    #[error("response is malformed")]
    Malformed,
}

/// A response for a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer<T> {
    /// What the caller said about the query.
    pub token: T,
    /// The DNS message, within the limit of the client's transport.
    pub message: Vec<u8>,
}

/// The machine; `T` is what the caller needs to bring an answer home.
#[derive(Debug)]
pub struct Forwarder<T> {
    random: ChaCha20Rng,
    upstreams: Vec<SocketAddr>,
    /// Index of the upstream that answered last: it is asked first.
    preferred: usize,
    cache: Cache,
    pending: HashMap<u64, Pending<T>>,
    attempts: HashMap<UpstreamId, u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    next_number: u64,
    queries: VecDeque<UpstreamQuery>,
    answers: VecDeque<Answer<T>>,
}

/// A client's query under way.
#[derive(Debug)]
struct Pending<T> {
    token: T,
    message: Vec<u8>,
    transport: Transport,
    give_up: Instant,
    /// This query's entry among the deadlines.
    wake: Instant,
    first_upstream: usize,
    /// Who is asked instead of the upstreams.
    delegates: Option<Vec<SocketAddr>>,
    made: usize,
    waiting: Vec<Attempt>,
    /// A response that is better than none.
    failure: Option<Vec<u8>>,
}

#[derive(Copy, Clone, Debug)]
struct Attempt {
    id: UpstreamId,
    server: SocketAddr,
    transport: Transport,
    dns_id: u16,
}

impl<T> Forwarder<T> {
    /// Without upstreams, every query fails.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            random: ChaCha20Rng::from_seed(seed),
            upstreams: Vec::new(),
            preferred: 0,
            cache: Cache::default(),
            pending: HashMap::new(),
            attempts: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_number: 0,
            queries: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Replaces the upstreams, in order of preference; if they differ, kept responses are forgotten.
    pub fn set_upstreams(&mut self, upstreams: Vec<SocketAddr>) {
        if self.upstreams != upstreams {
            self.upstreams = upstreams;
            self.preferred = 0;
            self.cache.clear();
        }
    }

    /// Forgets kept responses.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// Takes a client's query that came over `transport`.
    pub fn forward(&mut self, now: Instant, query: &Query<'_>, transport: Transport, token: T) {
        self.begin(now, query, transport, token, None);
    }

    /// As [`forward`](Self::forward), but `servers` are asked instead of the upstreams, and nobody else.
    pub fn delegate(
        &mut self,
        now: Instant,
        query: &Query<'_>,
        transport: Transport,
        token: T,
        servers: &[SocketAddr],
    ) {
        self.begin(now, query, transport, token, Some(servers));
    }

    fn begin(
        &mut self,
        now: Instant,
        query: &Query<'_>,
        transport: Transport,
        token: T,
        delegates: Option<&[SocketAddr]>,
    ) {
        if let Some(kept) = self.cache.get(now, query) {
            self.answer(query, transport, token, kept);
            return;
        }
        if delegates.unwrap_or(&self.upstreams).is_empty() || self.pending.len() >= MAXIMUM_PENDING {
            self.fail(query, transport, token, None);
            return;
        }
        let number = self.take_number();
        let pending = Pending {
            token,
            message: query.bytes().to_vec(),
            transport,
            give_up: now + QUERY,
            wake: now + ATTEMPT,
            first_upstream: if delegates.is_some() { 0 } else { self.preferred },
            delegates: delegates.map(<[SocketAddr]>::to_vec),
            made: 0,
            waiting: Vec::new(),
            failure: None,
        };
        self.deadlines.insert((pending.wake, number));
        self.pending.insert(number, pending);
        self.ask_next(number);
    }

    /// Takes the outcome of an attempt.
    ///
    /// # Errors
    ///
    /// [`ResponseError`] when the response is not believed; the attempt goes on then.
    pub fn handle_response(
        &mut self,
        now: Instant,
        id: UpstreamId,
        outcome: Result<&[u8], UpstreamFailure>,
    ) -> Result<(), ResponseError> {
        let number = *self.attempts.get(&id).ok_or(ResponseError::Unknown)?;
        let pending = self.pending.get_mut(&number).ok_or(ResponseError::Unknown)?;
        let at = pending.waiting.iter().position(|attempt| attempt.id == id).ok_or(ResponseError::Unknown)?;
        let attempt = pending.waiting[at];
        let message = std::mem::take(&mut pending.message);
        let outcome = self.judge(now, &attempt, &message, outcome);
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.message = message;
        }
        self.conclude(now, number, attempt, outcome?);
        Ok(())
    }

    fn judge(
        &mut self,
        now: Instant,
        attempt: &Attempt,
        query: &[u8],
        outcome: Result<&[u8], UpstreamFailure>,
    ) -> Result<Outcome, ResponseError> {
        let Ok(bytes) = outcome else { return Ok(Outcome::Failure(None)) };
        let query = Query::parse(query).map_err(|_| ResponseError::Unknown)?;
        let response = Response::check(bytes, attempt.dns_id, &query)?;
        if response.is_truncated() && attempt.transport == Transport::Udp {
            return Ok(Outcome::Truncated);
        }
        if response.is_failure() {
            return Ok(Outcome::Failure(Some(bytes.to_vec())));
        }
        self.cache.insert(now, &query, &response, bytes);
        Ok(Outcome::Answer(bytes.to_vec()))
    }

    fn conclude(&mut self, now: Instant, number: u64, attempt: Attempt, outcome: Outcome) {
        self.attempts.remove(&attempt.id);
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.waiting.retain(|other| other.id != attempt.id);
        match outcome {
            Outcome::Answer(message) => {
                if let Some(at) = self.upstreams.iter().position(|upstream| *upstream == attempt.server) {
                    self.preferred = at;
                }
                self.finish(number, Some(message));
            }
            Outcome::Truncated => {
                self.reschedule(number, now + ATTEMPT);
                self.ask(number, attempt.server, Transport::Tcp);
            }
            Outcome::Failure(response) => {
                pending.failure = response.or(pending.failure.take());
                self.after_failure(now, number);
            }
        }
    }

    /// Asks an upstream that was not asked yet; without one, the query ends with its last attempt.
    fn after_failure(&mut self, now: Instant, number: u64) {
        let Some(pending) = self.pending.get(&number) else { return };
        let servers = pending.delegates.as_ref().unwrap_or(&self.upstreams);
        if pending.made < servers.len().min(MAXIMUM_ATTEMPTS) {
            self.reschedule(number, now + ATTEMPT);
            self.ask_next(number);
        } else if pending.waiting.is_empty() {
            self.finish(number, None);
        }
    }

    /// Ends attempts and queries whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((wake, number)) = self.deadlines.first().copied().filter(|(wake, _)| *wake <= now) {
            let Some(pending) = self.pending.get(&number) else {
                self.deadlines.remove(&(wake, number));
                continue;
            };
            if now >= pending.give_up {
                self.finish(number, None);
                continue;
            }
            let more = pending.made < MAXIMUM_ATTEMPTS;
            self.reschedule(number, now + ATTEMPT);
            if more {
                self.ask_next(number);
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.first().map(|(wake, _)| (*wake, "DNS query"))
    }

    /// The next message to send upstream.
    pub fn poll_upstream_query(&mut self) -> Option<UpstreamQuery> {
        self.queries.pop_front()
    }

    /// The next response for a client.
    pub fn poll_answer(&mut self) -> Option<Answer<T>> {
        self.answers.pop_front()
    }

    /// Queries under way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn ask_next(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let at = pending.first_upstream + pending.made;
        pending.made += 1;
        let servers = pending.delegates.as_ref().unwrap_or(&self.upstreams);
        match servers.get(at % servers.len().max(1)).copied() {
            Some(server) => self.ask(number, server, Transport::Udp),
            None => self.finish(number, None),
        }
    }

    fn ask(&mut self, number: u64, server: SocketAddr, transport: Transport) {
        let id = UpstreamId(self.take_number());
        let dns_id: u16 = self.random.random();
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let mut message = pending.message.clone();
        if let Some(field) = message.first_chunk_mut::<2>() {
            *field = dns_id.to_be_bytes();
        }
        pending.waiting.push(Attempt { id, server, transport, dns_id });
        self.attempts.insert(id, number);
        self.queries.push_back(UpstreamQuery { id, server, transport, message });
    }

    fn reschedule(&mut self, number: u64, wake: Instant) {
        if let Some(pending) = self.pending.get_mut(&number) {
            self.deadlines.remove(&(pending.wake, number));
            pending.wake = wake.min(pending.give_up);
            self.deadlines.insert((pending.wake, number));
        }
    }

    fn finish(&mut self, number: u64, message: Option<Vec<u8>>) {
        let Some(pending) = self.pending.remove(&number) else { return };
        self.deadlines.remove(&(pending.wake, number));
        for attempt in &pending.waiting {
            self.attempts.remove(&attempt.id);
        }
        let Ok(query) = Query::parse(&pending.message) else { return };
        match message {
            Some(message) => self.answer(&query, pending.transport, pending.token, message),
            None => self.fail(&query, pending.transport, pending.token, pending.failure),
        }
    }

    /// Answers with an upstream's error response, or one of our own.
    fn fail(&mut self, query: &Query<'_>, transport: Transport, token: T, response: Option<Vec<u8>>) {
        match response.map_or_else(|| answer::response(query, Rcode::SERVFAIL, Records::None), Ok) {
            Ok(message) => self.answer(query, transport, token, message),
            Err(_) => drop(token),
        }
    }

    fn answer(&mut self, query: &Query<'_>, transport: Transport, token: T, mut message: Vec<u8>) {
        if message.len() > query.response_limit(transport) {
            let rcode = Rcode::masked_from_int(message.get(3).copied().unwrap_or_default());
            let Ok(truncated) = answer::truncated(query, rcode) else { return };
            message = truncated;
        }
        take_over_question(&mut message, query.bytes());
        self.answers.push_back(Answer { token, message });
    }

    const fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// What became of an attempt.
enum Outcome {
    Answer(Vec<u8>),
    Truncated,
    /// With the response that said so, if there was one.
    Failure(Option<Vec<u8>>),
}
