//! What each kind of message does to the device.
//!
//! Order of work for handshake messages, cheapest first: MAC1, load and MAC2, the source's
//! token bucket, and only then key agreement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Device, Event, PeerId, Received};
use crate::message::{
    COOKIE_REPLY_LENGTH, INITIATION_LENGTH, RESPONSE_LENGTH, cookie_reply, data, initiation, read_u32,
    response,
};
use crate::noise::{self, ProvenInitiation, TransportKeys};
use crate::peer::{Peer, Slot};
use crate::session::{Session, SessionParts};
use crate::{Attention, DropReason};

/// Initiations of one peer must lie at least this far apart.
const INITIATION_SPACING: Duration = Duration::from_millis(20);

/// What the cheap checks say of a handshake message.
enum Admission {
    /// Go on to key agreement.
    Granted,
    /// We are under load and the source must show a cookie first.
    CookieRequired(Vec<u8>),
}

impl Device {
    /// The checks that cost no key agreement. Both handshake messages carry the sender's
    /// index at the same place.
    fn admit(&mut self, now: Instant, source: SocketAddr, message: &[u8]) -> Result<Admission, DropReason> {
        if !self.issuer.mac1_is_valid(message) {
            return Err(DropReason::InvalidMac1);
        }
        if !self.load.count(now) {
            return Ok(Admission::Granted);
        }
        if !self.issuer.mac2_is_valid(now, source, message) {
            let sender = read_u32(message, initiation::SENDER);
            let reply = self.issuer.reply(now, source, message, sender, &mut self.random);
            self.counters.cookie_replies_sent += 1;
            return Ok(Admission::CookieRequired(reply.to_vec()));
        }
        if !self.sources.allow(now, source) {
            return Err(DropReason::RateLimited);
        }
        Ok(Admission::Granted)
    }

    pub(super) fn receive_initiation(
        &mut self,
        now: Instant,
        source: SocketAddr,
        message: &[u8; INITIATION_LENGTH],
    ) -> Result<Received, DropReason> {
        if let Admission::CookieRequired(reply) = self.admit(now, source, message)? {
            return Ok(Received::Handshake { peer: None, reply: Some(reply) });
        }
        let claim = noise::read_claim(&mut self.agreement, &self.local, message)?;
        let id = *self.by_key.get(&claim.claimed).ok_or(DropReason::UnknownPeer)?;
        let peer = self.peers.get_mut(&id).ok_or(DropReason::UnknownPeer)?;
        let proven = noise::prove_claim(claim, &peer.keys, message)?;
        guard_replay(now, peer, &proven)?;
        let reply = self.answer(now, id, proven)?;
        Ok(Received::Handshake { peer: Some(id), reply: Some(reply) })
    }

    /// Answers a proven initiation and keeps the session as `next` until the peer uses it.
    fn answer(&mut self, now: Instant, id: PeerId, proven: ProvenInitiation) -> Result<Vec<u8>, DropReason> {
        let index = self.fresh_index();
        let peer = self.peers.get_mut(&id).ok_or(DropReason::UnknownPeer)?;
        let answer = noise::respond(&mut self.agreement, &mut self.random, &peer.keys, proven, index)?;
        // When both sides initiate at once, the smaller public key prevails: the other side
        // gives its own initiation up, so that both end with the same session.
        if self.local.public() > &peer.keys.public
            && let Some(pending) = peer.attempt.as_mut().and_then(|attempt| attempt.pending.take())
        {
            self.by_index.remove(&pending.index);
        }
        let mut message = answer.message;
        peer.cookies.sign(now, &mut message);
        let session = make_session(now, id, peer, answer.keys, (index, answer.remote_index), false);
        let replaced = peer.sessions.next.replace(Slot { session: Arc::new(session), announced: false });
        self.by_index.insert(index, id);
        self.counters.responses_sent += 1;
        self.drop_sessions(id, replaced.into_iter().collect());
        self.schedule_expiry(id);
        Ok(message.to_vec())
    }

    pub(super) fn receive_response(
        &mut self,
        now: Instant,
        source: SocketAddr,
        message: &[u8; RESPONSE_LENGTH],
    ) -> Result<Received, DropReason> {
        if let Admission::CookieRequired(reply) = self.admit(now, source, message)? {
            return Ok(Received::Handshake { peer: None, reply: Some(reply) });
        }
        let index = read_u32(message, response::RECEIVER);
        let id = *self.by_index.get(&index).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.get_mut(&id).ok_or(DropReason::UnknownReceiver)?;
        let pending = peer.attempt.as_ref().and_then(|attempt| attempt.pending.as_ref());
        let pending = pending.filter(|pending| pending.index == index).ok_or(DropReason::UnknownReceiver)?;
        let keys = noise::complete(&mut self.agreement, &self.local, pending, &peer.keys, message)?;
        let remote_index = read_u32(message, response::SENDER);
        let session = Arc::new(make_session(now, id, peer, keys, (index, remote_index), true));
        peer.attempt = None;
        let dropped = peer.sessions.install(Slot { session: session.clone(), announced: true });
        self.announce(id, &session);
        self.established(now, id, &session, dropped);
        // The responder may not send before it has received data in the new session.
        self.send_keepalive(now, id);
        Ok(Received::Handshake { peer: Some(id), reply: None })
    }

    pub(super) fn receive_cookie(
        &mut self,
        now: Instant,
        message: &[u8; COOKIE_REPLY_LENGTH],
    ) -> Result<Received, DropReason> {
        let index = read_u32(message, cookie_reply::RECEIVER);
        let id = *self.by_index.get(&index).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.get_mut(&id).ok_or(DropReason::UnknownReceiver)?;
        peer.cookies.accept(now, message)?;
        self.counters.cookies_received += 1;
        let hurry = peer.attempt.as_mut().filter(|attempt| !attempt.hurried).map(|attempt| {
            attempt.hurried = true;
        });
        // The cookie is of use at once; waiting for the timer would only add delay.
        if hurry.is_some() {
            self.send_initiation(now, id);
        }
        Ok(Received::Handshake { peer: Some(id), reply: None })
    }

    pub(super) fn receive_data(&mut self, now: Instant, message: &mut [u8]) -> Result<Received, DropReason> {
        let index = read_u32(message, data::RECEIVER);
        let id = *self.by_index.get(&index).ok_or(DropReason::UnknownReceiver)?;
        let peer = self.peers.get_mut(&id).ok_or(DropReason::UnknownReceiver)?;
        let slot = peer.sessions.by_index(index).ok_or(DropReason::UnknownReceiver)?;
        let session = slot.session.clone();
        if session.is_expired(now) {
            return Err(DropReason::SessionExpired);
        }
        let plaintext = session.open_in_place(message)?;
        let fresh = !std::mem::replace(&mut slot.announced, true);
        let attention = session.activity().record_received(now, 1, plaintext.len() as u64);
        if fresh {
            self.announce(id, &session);
        }
        self.confirm(now, id, &session);
        if attention == Attention::Wanted {
            self.note_activity(now, id);
        }
        Ok(Received::Data { peer: id, session, plaintext })
    }

    /// Data in the `next` session proves that the peer has it too (key confirmation).
    fn confirm(&mut self, now: Instant, id: PeerId, session: &Arc<Session>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.sessions.is_next(session.receiver_index()) {
            return;
        }
        if let Some(index) = peer.pending_index() {
            self.by_index.remove(&index);
        }
        peer.attempt = None;
        let dropped = peer.sessions.confirm();
        self.established(now, id, session, dropped);
    }

    /// A session became the sending one: tell it and set the timers anew.
    fn established(&mut self, now: Instant, id: PeerId, session: &Arc<Session>, dropped: Vec<Slot>) {
        self.counters.handshakes_completed += 1;
        session.activity().forgive();
        self.events.push_back(Event::SendSessionChanged { peer: id, session: session.clone() });
        self.drop_sessions(id, dropped);
        self.schedule_expiry(id);
        self.stop_retrying(id);
        self.note_activity(now, id);
    }
}

/// Refuses initiations that are replays or come too fast, and remembers this one.
fn guard_replay(now: Instant, peer: &mut Peer, proven: &ProvenInitiation) -> Result<(), DropReason> {
    if peer.newest_timestamp.is_some_and(|newest| proven.timestamp <= newest) {
        return Err(DropReason::StaleTimestamp);
    }
    if peer.last_initiation.is_some_and(|last| now.saturating_duration_since(last) < INITIATION_SPACING) {
        return Err(DropReason::InitiationFlood);
    }
    peer.newest_timestamp = Some(proven.timestamp);
    peer.last_initiation = Some(now);
    Ok(())
}

fn make_session(
    now: Instant,
    id: PeerId,
    peer: &Peer,
    keys: TransportKeys,
    (receiver_index, remote_index): (u32, u32),
    initiator: bool,
) -> Session {
    Session::new(SessionParts {
        peer: id,
        receiver_index,
        remote_index,
        initiator,
        created: now,
        send_key: keys.send,
        receive_key: keys.receive,
        activity: peer.activity.clone(),
    })
}
