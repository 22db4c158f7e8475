//! Timers: retries, keepalives, rekeying and the end of sessions.
//!
//! Timers that depend on traffic are set from [`crate::Activity`], which workers write. While
//! a peer has traffic the device looks there at least every 10 s. After two looks without
//! traffic it stops looking and asks for attention instead, so a quiet peer costs nothing.

use std::time::{Duration, Instant};

use rand::Rng;

use super::{Device, Event, ExpiryReason, PeerId, Transmit};
use crate::noise;
use crate::peer::{Attempt, Peer};
use crate::timer::Timer;
use crate::{
    KEEPALIVE_TIMEOUT, OVERHEAD, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
    REKEY_TIMEOUT_MIN,
};

/// Data sent and nothing received for this long: try a new handshake.
const NO_ANSWER_TIME: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);
/// How often a peer with traffic is looked at. Not longer than the shortest traffic timer.
const ACTIVITY_INTERVAL: Duration = KEEPALIVE_TIMEOUT;

impl Device {
    /// Starts a handshake now; it is retried until it completes or 20 s have passed.
    ///
    /// During an attempt the 20 s begin anew, and a new initiation leaves at once unless the
    /// last one is younger than 250 ms.
    pub fn initiate(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let recent = peer.attempt.as_mut().is_some_and(|attempt| {
            attempt.started = now;
            attempt.sends = attempt.sends.min(1);
            attempt.pending.is_some() && now.saturating_duration_since(attempt.sent) < REKEY_TIMEOUT_MIN
        });
        if recent {
            return;
        }
        peer.attempt.get_or_insert(Attempt {
            started: now,
            sent: now,
            sends: 0,
            pending: None,
            hurried: false,
        });
        self.send_initiation(now, id);
    }

    /// Tells that a worker saw [`Attention::Wanted`](crate::Attention::Wanted): traffic after quiet.
    pub fn note_activity(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.quiet = false;
        peer.traffic_mark = peer.activity.mark();
        let at = Some(now + ACTIVITY_INTERVAL);
        self.timers.set(&mut peer.deadlines, id, Timer::ActivityCheck, at);
        self.review(now, id);
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id, timer)) = self.timers.next().filter(|(at, ..)| *at <= now) {
            let Some(peer) = self.peers.get_mut(&id) else {
                debug_assert!(false, "{timer:?} of a removed peer at {at:?}");
                return;
            };
            self.timers.set(&mut peer.deadlines, id, timer, None);
            match timer {
                Timer::HandshakeRetry => self.retry(now, id),
                Timer::SessionExpiry => self.expire_sessions(now, id),
                Timer::ActivityCheck => self.check_activity(now, id),
                Timer::Keepalive | Timer::NoAnswer | Timer::Rekey => self.review(now, id),
            }
        }
    }

    fn retry(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(attempt) = &peer.attempt else { return };
        if now.saturating_duration_since(attempt.started) < REKEY_ATTEMPT_TIME {
            self.send_initiation(now, id);
            return;
        }
        if let Some(index) = peer.pending_index() {
            self.by_index.remove(&index);
        }
        peer.attempt = None;
        self.events.push_back(Event::PeerExpired { peer: id, reason: ExpiryReason::HandshakeUnanswered });
    }

    /// Sends a new initiation of the attempt under way, in place of the one before.
    pub(super) fn send_initiation(&mut self, now: Instant, id: PeerId) {
        let index = self.fresh_index();
        let timestamp = self.timestamps.next(now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(attempt) = &mut peer.attempt else { return };
        let stamp = (index, timestamp);
        let made = noise::initiate(&mut self.agreement, &mut self.random, &self.local, &peer.keys, stamp);
        // Peers with a low-order key are refused when they are added.
        let Ok((pending, mut message)) = made else { return };
        peer.cookies.sign(now, &mut message);
        if let Some(before) = attempt.pending.replace(pending) {
            self.by_index.remove(&before.index);
        }
        self.by_index.insert(index, id);
        attempt.sent = now;
        attempt.sends = attempt.sends.saturating_add(1);
        let (sends, end) = (attempt.sends, attempt.started + REKEY_ATTEMPT_TIME);
        let interval = peer.retry_interval(sends);
        // Up to a quarter more, so that two sides that collide do not collide again.
        let jitter = interval.mul_f64(self.random.random_range(0.0..0.25));
        let at = Some(end.min(now + interval + jitter));
        self.timers.set(&mut peer.deadlines, id, Timer::HandshakeRetry, at);
        self.counters.initiations_sent += 1;
        self.transmits.push_back(Transmit { peer: id, datagram: message.to_vec() });
    }

    pub(super) fn stop_retrying(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.timers.set(&mut peer.deadlines, id, Timer::HandshakeRetry, None);
    }

    pub(super) fn schedule_expiry(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let at = peer.sessions.next_expiry();
        self.timers.set(&mut peer.deadlines, id, Timer::SessionExpiry, at);
    }

    fn expire_sessions(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let had_current = peer.sessions.current.is_some();
        let expired = peer.sessions.take_expired(now);
        let idle = had_current && peer.sessions.current.is_none() && peer.attempt.is_none();
        self.drop_sessions(id, expired);
        self.schedule_expiry(id);
        if idle {
            self.events.push_back(Event::PeerExpired { peer: id, reason: ExpiryReason::Idle });
        }
    }

    /// Goes on watching a peer with traffic; lets a quiet one go.
    fn check_activity(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mark = peer.activity.mark();
        let moved = mark != std::mem::replace(&mut peer.traffic_mark, mark);
        let watch = moved || !peer.quiet;
        peer.quiet = !moved;
        if peer.quiet {
            // Asked one look before the last one: traffic that a worker records just now,
            // without seeing the flag yet, is still found by that look.
            peer.activity.ask_for_attention();
        }
        let at = watch.then(|| now + ACTIVITY_INTERVAL);
        self.timers.set(&mut peer.deadlines, id, Timer::ActivityCheck, at);
        self.review(now, id);
    }

    /// Does what traffic so far makes due and arms the timers for the rest.
    fn review(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.sessions.current.is_none() {
            return;
        }
        let keepalive_at = peer.activity.unanswered_receive().map(|since| since + KEEPALIVE_TIMEOUT);
        let later = keepalive_at.filter(|at| *at > now);
        self.timers.set(&mut peer.deadlines, id, Timer::Keepalive, later);
        let no_answer_at = peer.activity.unanswered_send().map(|since| since + NO_ANSWER_TIME);
        let jitter = Duration::from_millis(self.random.random_range(0..333));
        let later = no_answer_at.filter(|at| *at > now).map(|at| at + jitter);
        self.timers.set(&mut peer.deadlines, id, Timer::NoAnswer, later);
        let rekey_at = rekey_time(peer);
        self.timers.set(&mut peer.deadlines, id, Timer::Rekey, rekey_at.filter(|at| *at > now));

        let idle = peer.attempt.is_none();
        let unanswered = no_answer_at.is_some_and(|at| at <= now);
        let worn = rekey_at.is_some_and(|at| at <= now) && in_use(now, peer);
        if unanswered {
            peer.activity.forgive();
        }
        if keepalive_at.is_some_and(|at| at <= now) {
            self.send_keepalive(now, id);
        }
        if idle && (unanswered || worn) {
            self.initiate(now, id);
        }
    }

    pub(super) fn send_keepalive(&mut self, now: Instant, id: PeerId) {
        let mut datagram = vec![0; OVERHEAD];
        if self.seal(now, id, &mut datagram, 0).is_ok() {
            self.counters.keepalives_sent += 1;
            self.transmits.push_back(Transmit { peer: id, datagram });
        }
    }
}

/// When the sending session is to be replaced: only its initiator does that by age, so that
/// both sides do not do it at once; either does it before the counters run out.
fn rekey_time(peer: &Peer) -> Option<Instant> {
    let session = &peer.sessions.current.as_ref()?.session;
    if session.messages_sent() >= REKEY_AFTER_MESSAGES {
        return Some(session.created());
    }
    session.is_initiator().then(|| session.created() + REKEY_AFTER_TIME)
}

/// Whether there was traffic lately. A session that nobody uses is left to end.
fn in_use(now: Instant, peer: &Peer) -> bool {
    let last = peer.activity.last_sent().max(peer.activity.last_received());
    last.is_some_and(|last| now.saturating_duration_since(last) <= KEEPALIVE_TIMEOUT)
}
