//! The state of one peer: its sessions and the handshake in flight.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cookie::CookieJar;
use crate::noise::{PeerKeys, PendingInitiation};
use crate::tai64n::Tai64N;
use crate::timer::Deadlines;
use crate::{Activity, REJECT_AFTER_TIME, REKEY_TIMEOUT, REKEY_TIMEOUT_MIN, Session};

/// Names a peer of one device. Never used again after the peer is removed.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug)]
pub struct PeerId(u64);

impl PeerId {
    pub(crate) const fn from_raw(number: u64) -> Self {
        Self(number)
    }

    /// The number behind the name, for logs and for tables keyed by number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Sessions that may still open although a newer one exists. Two are enough for crossing
/// handshakes; the third leaves room for a rekey right after.
const RETIRING: usize = 3;
/// First retry interval when no round trip is known.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);

/// A handshake that we started and that is not complete.
pub(crate) struct Attempt {
    /// When the attempt began; it ends 20 s later.
    pub(crate) started: Instant,
    /// When the last initiation left.
    pub(crate) sent: Instant,
    /// Initiations sent since the attempt began.
    pub(crate) sends: u32,
    /// The last initiation. `None` after yielding to the peer's own initiation.
    pub(crate) pending: Option<PendingInitiation>,
    /// A cookie has already made us retry out of turn.
    pub(crate) hurried: bool,
}

/// A session and whether the workers have been told of it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) session: Arc<Session>,
    pub(crate) announced: bool,
}

/// The sessions of one peer.
///
/// `next` is one that we answered and that the peer has not used yet: it opens, but must not
/// seal. `current` seals. `retiring` only open.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) current: Option<Slot>,
    pub(crate) next: Option<Slot>,
    pub(crate) retiring: Vec<Slot>,
}

impl Sessions {
    pub(crate) fn by_index(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots().find(|slot| slot.session.receiver_index() == index)
    }

    pub(crate) fn is_next(&self, index: u32) -> bool {
        self.next.as_ref().is_some_and(|slot| slot.session.receiver_index() == index)
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.current.iter_mut().chain(self.next.iter_mut()).chain(self.retiring.iter_mut())
    }

    /// Makes `slot` the sending session and returns the slots that fell out.
    pub(crate) fn install(&mut self, slot: Slot) -> Vec<Slot> {
        // An unconfirmed session gives way, but still opens: the peer may be using it already.
        let older = [self.current.replace(slot), self.next.take()];
        self.retiring.extend(older.into_iter().flatten());
        let excess = self.retiring.len().saturating_sub(RETIRING);
        self.retiring.drain(..excess).collect()
    }

    /// The peer used the session that we answered: it becomes the sending one.
    pub(crate) fn confirm(&mut self) -> Vec<Slot> {
        match self.next.take() {
            Some(slot) => self.install(slot),
            None => Vec::new(),
        }
    }

    /// Takes out every session that has reached its end of life.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Slot> {
        let dead = |slot: &mut Slot| slot.session.is_expired(now);
        let mut expired: Vec<Slot> = self.retiring.extract_if(.., dead).collect();
        expired.extend(self.current.take_if(dead));
        expired.extend(self.next.take_if(dead));
        expired
    }

    pub(crate) fn take_all(&mut self) -> Vec<Slot> {
        let mut all = std::mem::take(&mut self.retiring);
        all.extend(self.current.take());
        all.extend(self.next.take());
        all
    }

    /// When the oldest session ends.
    pub(crate) fn next_expiry(&mut self) -> Option<Instant> {
        self.slots().map(|slot| slot.session.created() + REJECT_AFTER_TIME).min()
    }
}

/// Everything a device knows of one peer.
pub(crate) struct Peer {
    pub(crate) keys: PeerKeys,
    pub(crate) cookies: CookieJar,
    pub(crate) activity: Arc<Activity>,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) sessions: Sessions,
    pub(crate) round_trip: Option<Duration>,
    /// Newest timestamp of an initiation; older ones are replays.
    pub(crate) newest_timestamp: Option<Tai64N>,
    pub(crate) last_initiation: Option<Instant>,
    pub(crate) deadlines: Deadlines,
    /// `Activity::mark` at the last look.
    pub(crate) traffic_mark: u64,
    /// The last look found no traffic; one more and the watch ends.
    pub(crate) quiet: bool,
}

impl Peer {
    pub(crate) fn new(keys: PeerKeys, activity: Activity, newest_timestamp: Option<Tai64N>) -> Self {
        Self {
            cookies: CookieJar::new(&keys.public),
            keys,
            activity: Arc::new(activity),
            attempt: None,
            sessions: Sessions::default(),
            round_trip: None,
            newest_timestamp,
            last_initiation: None,
            deadlines: Deadlines::default(),
            traffic_mark: 0,
            quiet: false,
        }
    }

    /// Time from initiation number `sends` to the next, before jitter.
    pub(crate) fn retry_interval(&self, sends: u32) -> Duration {
        let first = self.round_trip.map_or(RETRY_UNKNOWN, |round_trip| round_trip.saturating_mul(2));
        let first = first.clamp(REKEY_TIMEOUT_MIN, REKEY_TIMEOUT);
        first.saturating_mul(1 << sends.saturating_sub(1).min(8)).min(REKEY_TIMEOUT)
    }

    pub(crate) fn pending_index(&self) -> Option<u32> {
        Some(self.attempt.as_ref()?.pending.as_ref()?.index)
    }
}
