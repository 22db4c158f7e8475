//! Deadlines of all peers in one ordered queue.
//!
//! Setting, clearing and firing cost the logarithm of the number of armed timers; nothing is
//! ever scanned per peer.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::PeerId;

/// The timers that a peer can have; each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Timer {
    /// Send the initiation again, or give up.
    HandshakeRetry,
    /// Acknowledge received data.
    Keepalive,
    /// Data was sent and nothing came back: try a new handshake.
    NoAnswer,
    /// The current session is old enough to be replaced.
    Rekey,
    /// The oldest session ends.
    SessionExpiry,
    /// Look whether a peer with traffic still has any.
    ActivityCheck,
}

impl Timer {
    const COUNT: usize = 6;

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HandshakeRetry => "wireguard handshake retry",
            Self::Keepalive => "wireguard keepalive",
            Self::NoAnswer => "wireguard no answer",
            Self::Rekey => "wireguard rekey",
            Self::SessionExpiry => "wireguard session expiry",
            Self::ActivityCheck => "wireguard activity check",
        }
    }
}

/// The deadlines of one peer, kept with the peer so that a change finds the old one.
#[derive(Debug, Default)]
pub(crate) struct Deadlines([Option<Instant>; Timer::COUNT]);

/// All armed timers in the order of their deadlines.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue(BTreeSet<(Instant, PeerId, Timer)>);

const ALL: [Timer; Timer::COUNT] = [
    Timer::HandshakeRetry,
    Timer::Keepalive,
    Timer::NoAnswer,
    Timer::Rekey,
    Timer::SessionExpiry,
    Timer::ActivityCheck,
];

impl TimerQueue {
    /// Arms, moves or (with `None`) clears one timer.
    pub(crate) fn set(&mut self, deadlines: &mut Deadlines, peer: PeerId, timer: Timer, at: Option<Instant>) {
        let slot = &mut deadlines.0[timer as usize];
        if *slot == at {
            return;
        }
        if let Some(before) = slot.take() {
            self.0.remove(&(before, peer, timer));
        }
        if let Some(at) = at {
            self.0.insert((at, peer, timer));
        }
        *slot = at;
    }

    /// Clears every timer of a peer.
    pub(crate) fn clear(&mut self, deadlines: &mut Deadlines, peer: PeerId) {
        for timer in ALL {
            self.set(deadlines, peer, timer, None);
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<(Instant, PeerId, Timer)> {
        self.0.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timer_is_armed_once_and_cleared_without_trace() {
        let now = Instant::now();
        let at = |millis| Some(now + Duration::from_millis(millis));
        let (mut queue, mut deadlines) = (TimerQueue::default(), Deadlines::default());
        let peer = PeerId::from_raw(1);
        queue.set(&mut deadlines, peer, Timer::Rekey, at(10));
        queue.set(&mut deadlines, peer, Timer::Keepalive, at(5));
        queue.set(&mut deadlines, peer, Timer::Rekey, at(2));
        assert_eq!(queue.next().map(|(at, _, timer)| (Some(at), timer)), Some((at(2), Timer::Rekey)));
        assert_eq!(queue.0.len(), 2);
        queue.set(&mut deadlines, peer, Timer::Rekey, None);
        assert_eq!(queue.next().map(|(_, _, timer)| timer), Some(Timer::Keepalive));
        queue.clear(&mut deadlines, peer);
        assert_eq!(queue.next(), None);
        assert!(deadlines.0.iter().all(Option::is_none));
    }
}
