//! One entry: a flow or a cached refusal.

use std::time::Duration;

use super::lifetime::Connection;
use super::list::{Lane, Link};
use crate::{DropReason, Flow, FlowCounters, FlowKey, GrantId, Origin, PeerId};

/// What happens to packets of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They pass, in both directions.
    Pass {
        /// What the flow rests on.
        grant: GrantId,
    },
    /// They are dropped; the entry has no reply direction.
    Refuse {
        /// Why.
        reason: DropReason,
        /// Until when, in milliseconds of the worker's clock.
        until: u64,
    },
}

/// An entry of the flow table.
///
/// Next hops and rewrites are not stored: both follow from the two keys.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Forward, then reply. A refusal has its only key in both places.
    pub(crate) keys: [FlowKey; 2],
    pub(crate) verdict: Verdict,
    pub(crate) counters: FlowCounters,
    /// Milliseconds of the worker's clock.
    pub(crate) last_use: u64,
    /// Tells this entry from earlier ones with the same number.
    pub(crate) generation: u32,
    /// The wheel bucket in which it is.
    pub(crate) bucket: u16,
    pub(crate) connection: Connection,
    /// The control thread may still have packets of this flow, which must not be overtaken.
    pub(crate) is_held: bool,
    /// Whether the two keys differ by more than direction.
    pub(crate) translated: bool,
    pub(crate) links: [Link; Lane::COUNT],
}

const _: () =
    assert!(size_of::<Option<Entry>>() <= 256 - 32, "an entry with its index must stay within 256 bytes");

impl Entry {
    pub(crate) fn flow(flow: &Flow, now: u64) -> Self {
        let translated = flow.key.tuple() != flow.reply_key.tuple().reversed();
        let keys = [flow.key, flow.reply_key];
        Self { translated, ..Self::new(keys, Verdict::Pass { grant: flow.grant }, now) }
    }

    pub(crate) const fn refusal(key: FlowKey, reason: DropReason, until: u64, now: u64) -> Self {
        Self::new([key, key], Verdict::Refuse { reason, until }, now)
    }

    const fn new(keys: [FlowKey; 2], verdict: Verdict, now: u64) -> Self {
        Self {
            keys,
            verdict,
            counters: FlowCounters {
                forward_packets: 0,
                forward_bytes: 0,
                reverse_packets: 0,
                reverse_bytes: 0,
            },
            last_use: now,
            generation: 0,
            bucket: 0,
            connection: Connection::NEW,
            is_held: false,
            translated: false,
            links: [Link::UNLINKED; Lane::COUNT],
        }
    }

    /// How many of the keys are in the index.
    pub(crate) const fn key_count(&self) -> usize {
        match self.verdict {
            Verdict::Pass { .. } => 2,
            Verdict::Refuse { .. } => 1,
        }
    }

    /// The one peer that the entry has to do with.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.keys.iter().find_map(|key| match key.origin {
            Origin::Peer(peer) => Some(peer),
            Origin::Local => None,
        })
    }

    /// When it ends if no packet comes, in milliseconds.
    pub(crate) fn deadline(&self) -> u64 {
        match self.verdict {
            Verdict::Pass { .. } => self.last_use.saturating_add(millis(self.lifetime())),
            Verdict::Refuse { until, .. } => until,
        }
    }

    const fn lifetime(&self) -> Duration {
        self.connection.lifetime(self.keys[0].protocol)
    }

    /// Counts packets that pass.
    pub(crate) const fn count(&mut self, reply: bool, packets: u64, bytes: u64) {
        let FlowCounters { forward_packets, forward_bytes, reverse_packets, reverse_bytes } =
            &mut self.counters;
        if reply {
            *reverse_packets += packets;
            *reverse_bytes += bytes;
        } else {
            *forward_packets += packets;
            *forward_bytes += bytes;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
