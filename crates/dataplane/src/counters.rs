//! What a worker counted since it was made.

use crate::DropReason;

/// Packets and bytes each way, and drops by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inner packets sealed and given out for sending.
    pub sent_packets: u64,
    /// Their bytes, without tunnel overhead.
    pub sent_bytes: u64,
    /// Inner packets opened and given out for delivery.
    pub received_packets: u64,
    /// Their bytes, without tunnel overhead.
    pub received_bytes: u64,
    /// Keepalives received.
    pub keepalives: u64,
    /// Packets given to the control thread for want of a flow.
    pub misses: u64,
    /// Datagrams given to the control thread.
    pub not_mine: u64,
    /// Flows evicted because the table was full.
    pub evictions: u64,
    /// `FlowEnded` events lost because nobody drained them.
    pub events_lost: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Packets and datagrams dropped for one reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// All reasons with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    pub(crate) const fn note_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}
