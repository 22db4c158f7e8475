//! Responses kept until their TTL ends.
//!
//! Whole messages are kept, with the places of their TTLs, which count down in the copies handed out. Both the number
//! of messages and their bytes are bounded; what would expire first goes first. The key holds everything in a query
//! that may change the response, so a client that asks for DNSSEC records and one that does not never see each other's
//! answers. Queries with EDNS options (cookies, client subnets) are neither answered from here nor kept.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use domain::base::ToName as _;

use crate::query::Query;
use crate::response::Response;

const MAXIMUM_ENTRIES: usize = 4096;
const MAXIMUM_BYTES: usize = 4 << 20;

/// Responses by question.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Keys by expiry; the number tells entries apart that expire together.
    by_expiry: BTreeMap<(Instant, u64), Key>,
    next_number: u64,
    bytes: usize,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    /// The name in wire form and lower case, type, and the flags that matter.
    question: Box<[u8]>,
}

#[derive(Debug)]
struct Entry {
    message: Vec<u8>,
    ttl_offsets: Vec<u16>,
    stored: Instant,
    expiry: (Instant, u64),
}

impl Key {
    fn new(query: &Query<'_>) -> Option<Self> {
        if query.edns().is_some_and(|edns| edns.has_options) {
            return None;
        }
        let name: domain::base::Name<Vec<u8>> = query.qname().try_to_canonical_name().ok()?;
        let mut question = name.into_octets();
        question.extend_from_slice(&query.rtype().to_int().to_be_bytes());
        let header = query.message().header();
        let edns = match query.edns() {
            None => 0,
            Some(edns) => 1 | u8::from(edns.dnssec_ok) << 1,
        };
        question.push(
            edns | u8::from(header.rd()) << 2 | u8::from(header.cd()) << 3 | u8::from(header.ad()) << 4,
        );
        Some(Self { question: question.into() })
    }
}

impl Cache {
    /// The kept response to `query`, with the query's identifier and spelling of the name, and TTLs counted down.
    pub fn get(&mut self, now: Instant, query: &Query<'_>) -> Option<Vec<u8>> {
        let key = Key::new(query)?;
        let entry = self.entries.get(&key)?;
        if entry.expiry.0 <= now {
            self.remove(&key);
            return None;
        }
        let mut message = entry.message.clone();
        let age = u32::try_from(now.saturating_duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        for offset in &entry.ttl_offsets {
            let start = usize::from(*offset);
            let ttl = message.get_mut(start..start + 4).and_then(|field| field.first_chunk_mut::<4>());
            if let Some(ttl) = ttl {
                *ttl = u32::from_be_bytes(*ttl).saturating_sub(age).to_be_bytes();
            }
        }
        take_over_question(&mut message, query.bytes());
        Some(message)
    }

    pub(crate) fn insert(&mut self, now: Instant, query: &Query<'_>, response: &Response<'_>, bytes: &[u8]) {
        let (Some(key), Some(lifetime)) = (Key::new(query), response.lifetime()) else { return };
        self.remove(&key);
        let expiry = (now + Duration::from_secs(lifetime.seconds.into()), self.next_number);
        self.next_number += 1;
        let entry = Entry { message: bytes.to_vec(), ttl_offsets: lifetime.ttl_offsets, stored: now, expiry };
        self.bytes += entry.size(&key);
        self.by_expiry.insert(expiry, key.clone());
        self.entries.insert(key, entry);
        self.make_room(now);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Kept responses, expired ones included until their place is needed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        while let Some((expiry, key)) = self.by_expiry.first_key_value() {
            let full = self.entries.len() > MAXIMUM_ENTRIES || self.bytes > MAXIMUM_BYTES;
            if !full && expiry.0 > now {
                return;
            }
            let key = key.clone();
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.size(key);
            self.by_expiry.remove(&entry.expiry);
        }
    }
}

impl Entry {
    fn size(&self, key: &Key) -> usize {
        self.message.len() + self.ttl_offsets.len() * size_of::<u16>() + 2 * key.question.len()
    }
}

/// Gives a response the identifier of `query` and, where they differ in case only, its spelling of the name.
pub(crate) fn take_over_question(response: &mut [u8], query: &[u8]) {
    const HEADER: usize = 12;
    if let (Some(to), Some(from)) = (response.get_mut(..2), query.get(..2)) {
        to.copy_from_slice(from);
    }
    // The first question's name is never compressed: it runs up to the root label.
    let end =
        query.get(HEADER..).and_then(|name| name.iter().position(|byte| *byte == 0)).map(|end| HEADER + end);
    let Some(end) = end else { return };
    if let (Some(to), Some(from)) = (response.get_mut(HEADER..end), query.get(HEADER..end))
        && to.eq_ignore_ascii_case(from)
    {
        to.copy_from_slice(from);
    }
}
