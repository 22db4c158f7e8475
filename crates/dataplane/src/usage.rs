//! How a flow is used: the one thing about it that all workers share.
//!
//! Each worker has the flow in a table of its own, because the two directions of a flow may run through different
//! workers. When it was last used, how its TCP connection stands and that it is over concern them all, so these lie in
//! atomics beside the tables. Ordering between them does not matter: a worker that sees another one's note a moment
//! late only keeps a flow that moment longer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use adit_packet::TcpFlags;

use crate::FlowCounters;
use crate::table::Connection;

/// Bits of the state word that are not time.
const FLAG_BITS: u32 = 8;
const CONNECTION: u64 = 0x1f;
const OVER: u64 = 0x80;

/// Last use, state and counters of one flow. Made with the flow, and the same for all workers.
#[derive(Debug, Default)]
pub struct FlowUsage {
    /// Milliseconds of the workers' common clock, then `OVER`, then the connection's state.
    state: AtomicU64,
    /// Packets and bytes, forward and then reverse. One direction runs through one worker, so that nobody adds at the
    /// same time; where a path changes at that very moment, a few packets may not be counted.
    counters: [[AtomicU64; 2]; 2],
}

impl FlowUsage {
    /// What the flow carried so far.
    #[must_use]
    pub fn counters(&self) -> FlowCounters {
        let [forward, reverse] = &self.counters;
        FlowCounters {
            forward_packets: forward[0].load(Relaxed),
            forward_bytes: forward[1].load(Relaxed),
            reverse_packets: reverse[0].load(Relaxed),
            reverse_bytes: reverse[1].load(Relaxed),
        }
    }

    /// Counts packets that pass.
    pub(crate) fn count(&self, reply: bool, packets: u64, bytes: u64) {
        let [all_packets, all_bytes] = &self.counters[usize::from(reply)];
        all_packets.store(all_packets.load(Relaxed) + packets, Relaxed);
        all_bytes.store(all_bytes.load(Relaxed) + bytes, Relaxed);
    }

    /// Notes that the flow begins, or began.
    pub(crate) fn begin(&self, now: u64) {
        self.change(now, |connection| connection);
    }

    /// Notes a packet; true when the connection begins to close with it.
    pub(crate) fn note(&self, now: u64, flags: TcpFlags, reply: bool) -> bool {
        let mut closes = false;
        self.change(now, |before| {
            let mut connection = before;
            connection.note(flags, reply);
            closes = connection != before && connection.is_closing();
            connection
        });
        closes
    }

    /// Ends the flow for all workers; true for the first who does.
    pub(crate) fn end(&self) -> bool {
        self.state.fetch_or(OVER, Relaxed) & OVER == 0
    }

    /// Whether the flow has ended. A worker that does not know yet may count a last few packets.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.load(Relaxed) & OVER != 0
    }

    pub(crate) fn connection(&self) -> Connection {
        connection(self.state.load(Relaxed))
    }

    /// Milliseconds of the workers' clock.
    pub(crate) fn last_use(&self) -> u64 {
        self.state.load(Relaxed) >> FLAG_BITS
    }

    fn change(&self, now: u64, mut next: impl FnMut(Connection) -> Connection) {
        let mut before = self.state.load(Relaxed);
        loop {
            let time = (before >> FLAG_BITS).max(now) << FLAG_BITS;
            let after = time | before & OVER | u64::from(next(connection(before)).bits());
            // Most packets come in the same millisecond as the one before, and change nothing.
            if after == before {
                return;
            }
            match self.state.compare_exchange_weak(before, after, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now_there) => before = now_there,
            }
        }
    }
}

const fn connection(state: u64) -> Connection {
    Connection::from_bits((state & CONNECTION) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_see_one_connection() {
        let usage = FlowUsage::default();
        usage.begin(7);
        assert!(!usage.note(9, TcpFlags::ACK, false));
        assert!(!usage.note(8, TcpFlags::ACK, true), "another worker's clock may be a turn behind");
        assert_eq!(usage.last_use(), 9);
        assert!(usage.note(10, TcpFlags::FIN, false));
        assert!(!usage.connection().is_over());
        assert!(usage.note(11, TcpFlags::FIN, true));
        assert!(usage.connection().is_over());
        usage.count(false, 2, 300);
        usage.count(true, 1, 40);
        let FlowCounters { forward_packets, forward_bytes, reverse_packets, reverse_bytes } =
            usage.counters();
        assert_eq!((forward_packets, forward_bytes, reverse_packets, reverse_bytes), (2, 300, 1, 40));
    }

    #[test]
    fn a_flow_ends_once() {
        let usage = FlowUsage::default();
        assert!(!usage.is_over());
        assert!(usage.end() && !usage.end());
        usage.note(5, TcpFlags::ACK, false);
        assert!(usage.is_over(), "a late packet does not bring it back");
    }
}
