//! What traffic a peer's sessions carried, written by workers and read by the timers.
//!
//! All sessions of one peer share one [`Activity`]. Workers write it with relaxed atomics,
//! once per packet or once per batch; nothing here is a lock. Times are milliseconds since
//! the device was made, plus one, so that zero can mean "never".
//!
//! The device needs to hear of traffic only when it is not watching already. While a peer
//! has traffic, the device looks here on its own timers. When the peer falls quiet, it stops
//! those timers and sets a flag instead; the next record call finds the flag, clears it and
//! returns [`Attention::Wanted`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Whether the device wants to hear of the traffic just recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Attention {
    /// Nothing to do.
    NotWanted,
    /// First traffic after quiet: have `Device::note_activity` called soon.
    Wanted,
}

/// Times and volumes of a peer's traffic, all sessions together.
#[derive(Debug)]
#[repr(align(64))]
pub struct Activity {
    epoch: Instant,
    last_sent: AtomicU64,
    last_received: AtomicU64,
    /// First data sent since anything was last received; 0 when none.
    unanswered_send: AtomicU64,
    /// First data received since anything was last sent; 0 when none.
    unanswered_receive: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    attention: AtomicBool,
}

impl Activity {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            last_sent: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
            unanswered_send: AtomicU64::new(0),
            unanswered_receive: AtomicU64::new(0),
            sent_packets: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_packets: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            attention: AtomicBool::new(true),
        }
    }

    /// Records sealed datagrams: `bytes` of plaintext in `packets` datagrams, 0 bytes for a keepalive.
    ///
    /// Call it for every datagram sealed outside the device, once per packet or per batch.
    pub fn record_sent(&self, now: Instant, packets: u64, bytes: u64) -> Attention {
        let stamp = self.stamp(now);
        self.last_sent.store(stamp, Relaxed);
        clear(&self.unanswered_receive);
        if bytes > 0 {
            set_if_clear(&self.unanswered_send, stamp);
        }
        add(&self.sent_packets, packets);
        add(&self.sent_bytes, bytes);
        self.take_attention()
    }

    /// Records opened datagrams: `bytes` of plaintext in `packets` datagrams, 0 bytes for a keepalive.
    pub fn record_received(&self, now: Instant, packets: u64, bytes: u64) -> Attention {
        let stamp = self.stamp(now);
        self.last_received.store(stamp, Relaxed);
        clear(&self.unanswered_send);
        if bytes > 0 {
            set_if_clear(&self.unanswered_receive, stamp);
        }
        add(&self.received_packets, packets);
        add(&self.received_bytes, bytes);
        self.take_attention()
    }

    /// When the last datagram was sealed, keepalives included.
    #[must_use]
    pub fn last_sent(&self) -> Option<Instant> {
        self.instant(&self.last_sent)
    }

    /// When the last datagram was opened, keepalives included.
    #[must_use]
    pub fn last_received(&self) -> Option<Instant> {
        self.instant(&self.last_received)
    }

    /// Since when data has been sent without anything coming back.
    #[must_use]
    pub fn unanswered_send(&self) -> Option<Instant> {
        self.instant(&self.unanswered_send)
    }

    /// Since when data has been received without anything being sent back.
    #[must_use]
    pub fn unanswered_receive(&self) -> Option<Instant> {
        self.instant(&self.unanswered_receive)
    }

    /// Datagrams and plaintext bytes sent.
    #[must_use]
    pub fn sent(&self) -> (u64, u64) {
        (self.sent_packets.load(Relaxed), self.sent_bytes.load(Relaxed))
    }

    /// Datagrams and plaintext bytes received.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received_packets.load(Relaxed), self.received_bytes.load(Relaxed))
    }

    /// Asks the next record call to return [`Attention::Wanted`].
    pub(crate) fn ask_for_attention(&self) {
        self.attention.store(true, Relaxed);
    }

    /// A number that changes with every datagram.
    pub(crate) fn mark(&self) -> u64 {
        self.sent_packets.load(Relaxed).wrapping_add(self.received_packets.load(Relaxed))
    }

    /// Forgets unanswered data: a new handshake answers the question whether the peer is there.
    pub(crate) fn forgive(&self) {
        clear(&self.unanswered_send);
    }

    fn take_attention(&self) -> Attention {
        // The plain load keeps the common case free of a read-modify-write.
        if self.attention.load(Relaxed) && self.attention.swap(false, Relaxed) {
            Attention::Wanted
        } else {
            Attention::NotWanted
        }
    }

    fn stamp(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, stamp: &AtomicU64) -> Option<Instant> {
        let millis = stamp.load(Relaxed).checked_sub(1)?;
        self.epoch.checked_add(Duration::from_millis(millis))
    }
}

/// Writes only when needed, so that steady traffic does not dirty the word for nothing.
fn clear(stamp: &AtomicU64) {
    if stamp.load(Relaxed) != 0 {
        stamp.store(0, Relaxed);
    }
}

fn set_if_clear(stamp: &AtomicU64, value: u64) {
    if stamp.load(Relaxed) == 0 {
        stamp.store(value, Relaxed);
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_times_start_at_the_first_datagram() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let activity = Activity::new(start);
        assert_eq!(activity.record_sent(at(5), 1, 100), Attention::Wanted);
        assert_eq!(activity.record_sent(at(9), 1, 100), Attention::NotWanted);
        assert_eq!(activity.unanswered_send(), Some(at(5)));
        assert_eq!(activity.record_received(at(10), 1, 0), Attention::NotWanted);
        assert_eq!(activity.unanswered_send(), None);
        assert_eq!(activity.unanswered_receive(), None, "a keepalive needs no answer");
        assert_eq!(activity.record_received(at(20), 2, 300), Attention::NotWanted);
        assert_eq!(activity.unanswered_receive(), Some(at(20)));
        assert_eq!(activity.last_sent(), Some(at(9)));
        assert_eq!((activity.sent(), activity.received()), ((2, 200), (3, 300)));
        activity.ask_for_attention();
        assert_eq!(activity.record_sent(at(21), 1, 0), Attention::Wanted);
        assert_eq!(activity.unanswered_receive(), None, "a keepalive is an answer");
    }
}
