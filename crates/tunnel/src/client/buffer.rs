//! Packets of one resource that wait for an authorization, a connection or a name.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit_packet::{FlowTuple, PacketView};

/// The most packets that wait per resource.
pub(crate) const MAX_PACKETS: usize = 128;
/// The most bytes that wait per resource.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// How long a packet waits at most: its sender has sent it again by then.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);

/// A packet that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// When it is dropped.
    pub(crate) until: Instant,
    /// The IP packet.
    pub(crate) packet: Vec<u8>,
    /// Set for packets that open a TCP connection; a retransmission takes the place of the first.
    opens: Option<FlowTuple>,
}

impl Waiting {
    /// A packet that starts to wait at `now`.
    pub(crate) fn new(now: Instant, packet: &[u8], view: &PacketView) -> Self {
        let opens = view.tcp_flags().opens_connection().then(|| view.flow()).flatten();
        Self { until: now + MAX_WAIT, packet: packet[..view.total_length()].to_vec(), opens }
    }
}

/// A bounded queue, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct PacketQueue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl PacketQueue {
    /// Adds a packet; returns how many older ones had to go because of the bounds.
    ///
    /// The oldest go first: they are the ones that their senders have given up on.
    pub(crate) fn push(&mut self, packet: Waiting) -> usize {
        if let Some(flow) = packet.opens
            && let Some(at) = self.waiting.iter().position(|present| present.opens == Some(flow))
            && let Some(replaced) = self.waiting.remove(at)
        {
            self.bytes -= replaced.packet.len();
        }
        self.bytes += packet.packet.len();
        self.waiting.push_back(packet);
        let mut dropped = 0;
        while self.waiting.len() > MAX_PACKETS || self.bytes > MAX_BYTES {
            dropped += usize::from(self.pop().is_some());
        }
        dropped
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let packet = self.waiting.pop_front()?;
        self.bytes -= packet.packet.len();
        Some(packet)
    }

    /// Takes the oldest packet if its time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Waiting> {
        if self.next_expiry()? > now {
            return None;
        }
        self.pop()
    }

    /// When the oldest packet's time is over.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        // A packet that came back from a flush keeps its time, and the order: see `take_all`.
        self.waiting.front().map(|packet| packet.until)
    }

    /// Takes everything, oldest first.
    pub(crate) fn take_all(&mut self) -> VecDeque<Waiting> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
