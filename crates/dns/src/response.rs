//! Responses from upstream resolvers: whether to believe them, and for how long.

use domain::base::iana::{Opcode, Rcode, Rtype};
use domain::base::{Message, ParsedName};
use domain::rdata::Soa;

use crate::forwarder::ResponseError;
use crate::query::Query;

/// A response that answers the question that was asked.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Response<'a> {
    message: Message<&'a [u8]>,
}

/// How long a response may be kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Lifetime {
    pub(crate) seconds: u32,
    /// Where in the message the TTLs are, which count down while it is kept.
    pub(crate) ttl_offsets: Vec<u16>,
}

/// Positive answers are asked for again at least once a day, whatever their TTL says.
const LONGEST_POSITIVE: u32 = 86_400;
/// RFC 2308, 5 recommends one to three hours at most for "does not exist".
const LONGEST_NEGATIVE: u32 = 3600;

impl<'a> Response<'a> {
    /// Checks that `bytes` answer `query`, which was sent with the identifier `id` (RFC 5452, 9.1).
    pub(crate) fn check(bytes: &'a [u8], id: u16, query: &Query<'_>) -> Result<Self, ResponseError> {
        let message = Message::from_octets(bytes).map_err(|_| ResponseError::Malformed)?;
        let header = message.header();
        if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
            return Err(ResponseError::NotTheAnswer);
        }
        let question = message.sole_question().map_err(|_| ResponseError::NotTheAnswer)?;
        let asked = query.message().sole_question().map_err(|_| ResponseError::NotTheAnswer)?;
        if question != asked {
            return Err(ResponseError::NotTheAnswer);
        }
        Ok(Self { message })
    }

    pub(crate) fn rcode(&self) -> Rcode {
        self.message.header().rcode()
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.message.header().tc()
    }

    /// Whether the next upstream may do better.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN)
    }

    /// How long the response may be kept; none if not at all (RFC 2308, RFC 2181 8).
    pub(crate) fn lifetime(&self) -> Option<Lifetime> {
        if self.is_truncated() || self.is_failure() {
            return None;
        }
        let (ttl_offsets, shortest) = self.ttls()?;
        let has_answers = self.message.header_counts().ancount() > 0;
        let seconds = if self.rcode() == Rcode::NOERROR && has_answers {
            shortest?.min(LONGEST_POSITIVE)
        } else {
            self.negative_ttl()?.min(shortest?).min(LONGEST_NEGATIVE)
        };
        (seconds > 0).then_some(Lifetime { seconds, ttl_offsets })
    }

    /// The place of every TTL, and the shortest of them; none if a record is malformed.
    fn ttls(&self) -> Option<(Vec<u16>, Option<u32>)> {
        let mut offsets = Vec::new();
        let mut shortest: Option<u32> = None;
        let mut section = Some(self.message.answer().ok()?);
        while let Some(mut records) = section {
            loop {
                let start = records.pos();
                let Some(record) = records.next() else { break };
                let record = record.ok()?;
                // The TTL field of an OPT record holds flags (RFC 6891, 6.1.3).
                if record.rtype() == Rtype::OPT {
                    continue;
                }
                let offset = skip_name(self.message.as_slice(), start)? + 4;
                offsets.push(u16::try_from(offset).ok()?);
                let ttl = effective(record.ttl().as_secs());
                shortest = Some(shortest.map_or(ttl, |shortest| shortest.min(ttl)));
            }
            section = records.next_section().ok()?;
        }
        Some((offsets, shortest))
    }

    /// What the SOA record says about negative answers (RFC 2308, 5); without one they are not kept.
    fn negative_ttl(&self) -> Option<u32> {
        let mut soas = self.message.authority().ok()?.limit_to::<Soa<ParsedName<_>>>();
        let record = soas.next()?.ok()?;
        Some(effective(record.ttl().as_secs()).min(effective(record.data().minimum().as_secs())))
    }
}

/// A TTL with the highest bit set means zero (RFC 2181, 8).
const fn effective(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// The offset behind the name at `at`, which ends with the root label or a compression pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}
