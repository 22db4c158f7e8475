//! The flow table: one entry per flow, found by either of its keys.
//!
//! Bounded: when it is full, a new entry takes the place of the one with the least time left
//! among a few that a moving hand points at, so refusals and idle flows go first. Nothing
//! here ever scans the table: expiry walks a [`wheel`], revocation a [`list`].

mod entry;
mod held;
mod index;
mod key;
mod lifetime;
mod list;
mod slab;
mod wheel;

use std::collections::VecDeque;
use std::sync::Arc;

use adit_packet::TcpFlags;

use held::{Held, Waiting};
use index::Index;
use key::PackedKey;
use list::{Lane, List};
use slab::Slab;
use wheel::Wheel;

use crate::hasher::{SeededMap, SeededState};
use crate::{DropReason, EndCause, Event, Flow, FlowKey, FlowUsage, GrantId, Origin, PeerId};

pub(crate) use entry::{Entry, Verdict};
pub(crate) use lifetime::Connection;

/// Entries that are compared when one must go.
const EVICTION_SAMPLE: u32 = 32;
/// Entries that one call of [`FlowTable::expire`] deals with.
const EXPIRY_BATCH: usize = 1024;
/// The longest that an entry is not looked at, in milliseconds: another worker may have ended it.
const LOOK_AGAIN: u64 = 15 * 60 * 1000;
/// `FlowEnded` events kept for the control thread.
const EVENTS: usize = 4096;
/// The most entries a table may be told to hold; numbers must fit into the index with a direction bit.
const LARGEST: usize = 1 << 24;

/// Names an entry and a direction; stale once the entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) number: u32,
    generation: u32,
    /// Whether packets are replies.
    pub(crate) reply: bool,
}

/// Flows and cached refusals.
#[derive(Debug)]
pub(crate) struct FlowTable {
    entries: Slab<Entry>,
    index: Index,
    wheel: Wheel,
    grants: SeededMap<GrantId, List>,
    peers: SeededMap<PeerId, List>,
    state: SeededState,
    /// What was found last: packets of one flow come together.
    recent: Option<(FlowKey, Handle)>,
    capacity: usize,
    hand: u32,
    generation: u32,
    events: VecDeque<Event>,
    held: Held,
    pub(crate) events_lost: u64,
    pub(crate) evictions: u64,
}

impl FlowTable {
    pub(crate) fn new(state: SeededState, capacity: usize) -> Self {
        Self {
            entries: Slab::new(),
            index: Index::new(),
            wheel: Wheel::new(),
            grants: SeededMap::with_hasher(state.clone()),
            peers: SeededMap::with_hasher(state.clone()),
            held: Held::new(state.clone()),
            state,
            recent: None,
            capacity: capacity.clamp(1, LARGEST),
            hand: 0,
            generation: 0,
            events: VecDeque::new(),
            events_lost: 0,
            evictions: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The entry with this key, if its time is not over at `now` (milliseconds).
    pub(crate) fn lookup(&mut self, now: u64, key: &FlowKey) -> Option<(Handle, &mut Entry)> {
        if let Some((_, handle)) = self.recent.filter(|(recent, _)| recent == key)
            && self.get(now, handle).is_some()
        {
            return self.entries.get_mut(handle.number).map(|entry| (handle, entry));
        }
        let (number, reply) = self.find(key)?;
        self.alive(now, number)?;
        let entry = self.entries.get_mut(number)?;
        let handle = Handle { number, generation: entry.generation, reply };
        self.recent = Some((*key, handle));
        Some((handle, entry))
    }

    /// The entry that a handle names, if it still exists and its time is not over.
    pub(crate) fn get(&mut self, now: u64, handle: Handle) -> Option<&mut Entry> {
        if self.entries.get(handle.number)?.generation != handle.generation {
            return None;
        }
        self.alive(now, handle.number)?;
        self.entries.get_mut(handle.number)
    }

    /// Ends an entry whose time is over although the wheel has not come to it.
    fn alive(&mut self, now: u64, number: u32) -> Option<()> {
        let entry = self.entries.get(number)?;
        if entry.deadline() > now {
            return Some(());
        }
        let cause = natural_end(entry);
        self.remove(number, cause);
        None
    }

    /// Notes a packet of a flow: its time starts anew, with the lifetime of its new state.
    pub(crate) fn note_use(&mut self, now: u64, handle: Handle, flags: TcpFlags) {
        let Some(entry) = self.entries.get_mut(handle.number) else { return };
        let closes = entry.usage.as_ref().is_some_and(|usage| usage.note(now, flags, handle.reply));
        // A later end is found when the wheel comes round; an earlier one must be put there.
        if closes {
            self.unschedule(handle.number);
            self.schedule(now, handle.number);
        }
    }

    /// Installs a flow in place of whatever has one of its keys.
    pub(crate) fn install(&mut self, now: u64, flow: &Flow, usage: Arc<FlowUsage>) -> Result<(), DropReason> {
        if !flow.is_consistent() {
            return Err(DropReason::InconsistentFlow);
        }
        usage.begin(now);
        let number = self.insert(now, Entry::flow(flow, usage));
        if let Some(overtaken) = self.held.push(number, self.generation) {
            self.release(overtaken);
        }
        Ok(())
    }

    /// Says which held entry's packet is about to be a miss, if it is one's.
    pub(crate) const fn note_held(&mut self, number: Option<u32>) {
        self.held.note(number);
    }

    /// Notes that the control thread was given the packet that was a miss last.
    pub(crate) fn note_miss(&mut self) {
        self.held.note_miss();
    }

    /// Lets the packets of flows pass of which the control thread has none left.
    pub(crate) fn flush(&mut self, misses: u64) {
        while let Some(waiting) = self.held.pop(misses) {
            self.release(waiting);
        }
    }

    fn release(&mut self, waiting: Waiting) {
        if let Some(entry) = self.entries.get_mut(waiting.number)
            && entry.generation == waiting.generation
        {
            entry.is_held = false;
        }
    }

    /// Caches a refusal until `until`, in place of whatever has its key.
    pub(crate) fn refuse(&mut self, now: u64, key: FlowKey, reason: DropReason, until: u64) {
        if until > now {
            self.insert(now, Entry::refusal(key, reason, until));
        }
    }

    pub(crate) fn revoke(&mut self, grant: GrantId) {
        while let Some(number) = self.grants.get(&grant).and_then(|list| list.first()) {
            self.remove(number, EndCause::Revoked);
        }
    }

    pub(crate) fn forget(&mut self, peer: PeerId) {
        while let Some(number) = self.peers.get(&peer).and_then(|list| list.first()) {
            self.remove(number, EndCause::PeerGone);
        }
    }

    /// Makes everything of one peer another's; counters and lifetimes go on.
    pub(crate) fn rename_peer(&mut self, now: u64, from: PeerId, to: PeerId) {
        if from == to {
            return;
        }
        while let Some(number) = self.peers.get(&from).and_then(|list| list.first()) {
            let Some(mut entry) = self.take(number) else { return };
            for key in &mut entry.keys {
                if key.origin() == Origin::Peer(from) {
                    *key = PackedKey::new(&FlowKey { origin: Origin::Peer(to), ..key.unpack() });
                }
            }
            entry.is_held = false;
            self.insert(now, entry);
        }
    }

    /// Makes everything that rests on one grant rest on another.
    pub(crate) fn rename_grant(&mut self, now: u64, from: GrantId, to: GrantId) {
        if from == to {
            return;
        }
        while let Some(number) = self.grants.get(&from).and_then(|list| list.first()) {
            let Some(mut entry) = self.take(number) else { return };
            match &mut entry.verdict {
                Verdict::Pass { grant } | Verdict::Translate { grant } => *grant = to,
                Verdict::Refuse { .. } => {}
            }
            entry.is_held = false;
            self.insert(now, entry);
        }
    }

    /// When entries have to be looked at next, in milliseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_second().map(|second| second * 1000)
    }

    /// Ends what is over at `now`; stops after a bounded number of entries.
    pub(crate) fn expire(&mut self, now: u64) {
        for _ in 0..EXPIRY_BATCH {
            let Some(second) = self.wheel.next_second().filter(|second| second * 1000 <= now) else {
                self.wheel.advance(now / 1000);
                return;
            };
            self.wheel.advance(second);
            let bucket = self.wheel.bucket_for(second * 1000);
            let Some(number) = self.wheel.list(bucket).first() else { return };
            let Some(entry) = self.entries.get(number) else { return };
            if entry.deadline() <= now {
                let cause = natural_end(entry);
                self.remove(number, cause);
            } else {
                // It was used meanwhile: its deadline lies behind `now`, so in another bucket.
                self.unschedule(number);
                self.schedule(now, number);
            }
        }
    }

    fn find(&self, key: &FlowKey) -> Option<(u32, bool)> {
        let packed = PackedKey::new(key);
        let matches = |value: u32| {
            self.entries.get(value >> 1).is_some_and(|entry| entry.keys[(value & 1) as usize] == packed)
        };
        let value = self.index.find(self.state.hash_flow(key), matches)?;
        Some((value >> 1, value & 1 == 1))
    }

    fn insert(&mut self, now: u64, mut entry: Entry) -> u32 {
        if self.entries.len() == 0 {
            // Nobody turns an empty wheel.
            self.wheel.advance(now / 1000);
        }
        for position in 0..entry.key_count() {
            if let Some((number, _)) = self.find(&entry.keys[position].unpack()) {
                self.remove(number, EndCause::Replaced);
            }
        }
        if self.entries.len() >= self.capacity {
            self.evict();
        }
        self.generation = self.generation.wrapping_add(1);
        entry.generation = self.generation;
        let (keys, key_count) = (entry.keys, entry.key_count());
        let (verdict, peer) = (entry.verdict, entry.peer());
        let number = self.entries.insert(entry);
        for (direction, key) in keys.iter().enumerate().take(key_count) {
            self.index.insert(self.state.hash_flow(&key.unpack()), number << 1 | direction as u32);
        }
        if let Some(grant) = verdict.grant() {
            self.grants.entry(grant).or_insert(List::EMPTY).push(&mut self.entries, Lane::Grant, number);
        }
        if let Some(peer) = peer {
            self.peers.entry(peer).or_insert(List::EMPTY).push(&mut self.entries, Lane::Peer, number);
        }
        self.schedule(now, number);
        number
    }

    fn remove(&mut self, number: u32, cause: EndCause) {
        let Some(entry) = self.take(number) else { return };
        // Each worker ends it; the first one tells.
        if let Some(usage) = entry.usage
            && usage.end()
        {
            self.tell(Event::FlowEnded { key: entry.keys[0].unpack(), cause, counters: usage.counters() });
        }
    }

    /// Takes an entry out of the table and of every list.
    fn take(&mut self, number: u32) -> Option<Entry> {
        self.unschedule(number);
        let entry = self.entries.get(number)?;
        let (keys, key_count) = (entry.keys, entry.key_count());
        let (verdict, peer) = (entry.verdict, entry.peer());
        if let Some(grant) = verdict.grant() {
            leave(&mut self.grants, &grant, &mut self.entries, Lane::Grant, number);
        }
        if let Some(peer) = peer {
            leave(&mut self.peers, &peer, &mut self.entries, Lane::Peer, number);
        }
        for (direction, key) in keys.iter().enumerate().take(key_count) {
            self.index.remove(self.state.hash_flow(&key.unpack()), number << 1 | direction as u32);
        }
        self.entries.remove(number)
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS {
            self.events_lost += 1;
        } else {
            self.events.push_back(event);
        }
    }

    /// Makes room for one entry.
    fn evict(&mut self) {
        let span = self.entries.span();
        let mut victim: Option<(u64, u32)> = None;
        for _ in 0..EVICTION_SAMPLE.min(span) {
            self.hand = (self.hand + 1) % span;
            if let Some(entry) = self.entries.get(self.hand) {
                let candidate = (entry.deadline(), self.hand);
                victim = Some(victim.map_or(candidate, |best| best.min(candidate)));
            }
        }
        if let Some((_, number)) = victim {
            self.evictions += 1;
            self.remove(number, EndCause::Evicted);
        }
    }

    fn schedule(&mut self, now: u64, number: u32) {
        let Some(entry) = self.entries.get_mut(number) else { return };
        let bucket = self.wheel.bucket_for(entry.deadline().min(now + LOOK_AGAIN));
        entry.bucket = bucket;
        self.wheel.list(bucket).push(&mut self.entries, Lane::Wheel, number);
        self.wheel.refresh(bucket);
    }

    fn unschedule(&mut self, number: u32) {
        let Some(bucket) = self.entries.get(number).map(|entry| entry.bucket) else { return };
        self.wheel.list(bucket).remove(&mut self.entries, Lane::Wheel, number);
        self.wheel.refresh(bucket);
    }
}

/// What an entry whose time is over ended of.
fn natural_end(entry: &Entry) -> EndCause {
    if entry.connection().is_over() { EndCause::Closed } else { EndCause::Idle }
}

/// Takes an entry out of the list under `key`, and the list out of the map when it is empty.
fn leave<K: std::hash::Hash + Eq>(
    lists: &mut SeededMap<K, List>,
    key: &K,
    entries: &mut Slab<Entry>,
    lane: Lane,
    number: u32,
) {
    if let Some(list) = lists.get_mut(key) {
        list.remove(entries, lane, number);
        if list.first().is_none() {
            lists.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
