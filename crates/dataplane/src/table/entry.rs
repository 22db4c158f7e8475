//! One entry: a flow or a cached refusal.

use std::sync::Arc;
use std::time::Duration;

use super::key::PackedKey;
use super::lifetime::Connection;
use super::list::{Lane, Link};
use crate::{DropReason, Flow, FlowKey, FlowUsage, GrantId, Origin, PeerId};

/// What happens to packets of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They pass, in both directions.
    Pass {
        /// What the flow rests on.
        grant: GrantId,
    },
    /// They pass, in both directions, and go on in the other IP family.
    Translate {
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

impl Verdict {
    /// What the flow rests on; none for a refusal.
    pub(crate) const fn grant(self) -> Option<GrantId> {
        match self {
            Self::Pass { grant } | Self::Translate { grant } => Some(grant),
            Self::Refuse { .. } => None,
        }
    }
}

/// An entry of the flow table.
///
/// Next hops and rewrites are not stored: both follow from the two keys.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Forward, then reply. A refusal has its only key in both places.
    pub(crate) keys: [PackedKey; 2],
    pub(crate) verdict: Verdict,
    /// None for a refusal, which is not used.
    pub(crate) usage: Option<Arc<FlowUsage>>,
    /// Tells this entry from earlier ones with the same number.
    pub(crate) generation: u32,
    /// The wheel bucket in which it is.
    pub(crate) bucket: u16,
    /// The control thread may still have packets of this flow, which must not be overtaken.
    pub(crate) is_held: bool,
    /// Whether the two keys differ by more than direction.
    pub(crate) translated: bool,
    pub(crate) links: [Link; Lane::COUNT],
}

const _: () = assert!(
    size_of::<Option<Entry>>() + size_of::<FlowUsage>() <= 256 - 48,
    "an entry with its use (which the allocator makes 64 bytes) and its index must stay within 256 bytes"
);

impl Entry {
    /// A flow whose first packets may still be on their way.
    pub(crate) fn flow(flow: &Flow, usage: Arc<FlowUsage>) -> Self {
        let translated = flow.key.tuple() != flow.reply_key.tuple().reversed();
        let keys = [flow.key, flow.reply_key];
        let grant = flow.grant;
        let verdict =
            if flow.changes_family() { Verdict::Translate { grant } } else { Verdict::Pass { grant } };
        Self { translated, usage: Some(usage), is_held: true, ..Self::new(keys, verdict) }
    }

    pub(crate) fn refusal(key: FlowKey, reason: DropReason, until: u64) -> Self {
        Self::new([key, key], Verdict::Refuse { reason, until })
    }

    fn new(keys: [FlowKey; 2], verdict: Verdict) -> Self {
        Self {
            keys: keys.map(|key| PackedKey::new(&key)),
            verdict,
            usage: None,
            generation: 0,
            bucket: 0,
            is_held: false,
            translated: false,
            links: [Link::UNLINKED; Lane::COUNT],
        }
    }

    /// How many of the keys are in the index.
    pub(crate) const fn key_count(&self) -> usize {
        match self.verdict {
            Verdict::Pass { .. } | Verdict::Translate { .. } => 2,
            Verdict::Refuse { .. } => 1,
        }
    }

    /// The one peer that the entry has to do with.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.keys.iter().find_map(|key| match key.origin() {
            Origin::Peer(peer) => Some(peer),
            Origin::Local => None,
        })
    }

    /// When it ends if no packet comes, in milliseconds; long ago if another worker has ended it.
    pub(crate) fn deadline(&self) -> u64 {
        match (&self.usage, self.verdict) {
            (Some(usage), _) if usage.is_over() => 0,
            (Some(usage), _) => {
                let lifetime = usage.connection().lifetime(self.keys[0].protocol());
                usage.last_use().saturating_add(millis(lifetime))
            }
            (None, Verdict::Refuse { until, .. }) => until,
            (None, Verdict::Pass { .. } | Verdict::Translate { .. }) => 0, // there is none: a flow is made with its use
        }
    }

    /// How its connection stands.
    pub(crate) fn connection(&self) -> Connection {
        self.usage.as_ref().map_or(Connection::from_bits(0), |usage| usage.connection())
    }

    /// Counts packets that pass.
    pub(crate) fn count(&self, reply: bool, packets: u64, bytes: u64) {
        if let Some(usage) = &self.usage {
            usage.count(reply, packets, bytes);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
