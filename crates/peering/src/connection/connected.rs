//! Connected: packets flow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_protocol::peer::PeerMessage;
use adit_wireguard::{ExpiryReason, Session};

use super::candidates::SETTLE_AFTER;
use super::liveness::Liveness;
use super::mtu::PathMtu;
use super::{Connection, Context, Phase};
use crate::Role;
use crate::reset::Token;
use crate::{CloseReason, Event};

/// A ticket is sent again if nothing came back so soon after it.
const TICKET_REPEAT: Duration = Duration::from_secs(1);

/// A client renews the session of an idle connection at this age, so that the first packet
/// after a pause need not wait. WireGuard itself lets an unused session end at 180 s.
const RENEW_AFTER: Duration = Duration::from_secs(150);

/// What only a connected connection has.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) liveness: Liveness,
    /// When unused channels are given back; `None` once it is done.
    pub(super) settle_at: Option<Instant>,
    /// Client: when the session is renewed if nothing else did it.
    pub(super) renew_at: Option<Instant>,
    /// Gateway: when the ticket of the newest session is sent again.
    pub(super) ticket_repeat_at: Option<Instant>,
    /// Client: the token with which the gateway may disown the session in use.
    pub(super) token: Option<Token>,
    /// When a relayed connection looks for a direct path again.
    pub(super) upgrade_at: Option<Instant>,
    pub(super) mtu: PathMtu,
}

impl Connected {
    fn enter(now: Instant, message: u32) -> Self {
        Self {
            liveness: Liveness::new(now),
            settle_at: Some(now + SETTLE_AFTER),
            renew_at: None,
            ticket_repeat_at: None,
            token: None,
            upgrade_at: None,
            mtu: PathMtu::new(now, message),
        }
    }
}

impl Connection {
    /// There is a session to seal with, the first or a newer one.
    pub(crate) fn note_send_session(&mut self, context: &mut Context<'_>, session: &Arc<Session>) {
        let first = !self.is_connected();
        if first {
            self.phase = Phase::Connected(Box::new(Connected::enter(context.now, self.next_message)));
            self.copies = None;
            self.widen_at = None;
        }
        let renew_at = session.created() + RENEW_AFTER;
        if let Some(connected) = self.connected() {
            connected.token = None;
            connected.renew_at = (context.role == Role::Client).then_some(renew_at);
        }
        self.workers.waiting = Some(session.clone());
        if first {
            self.arrive(context);
        }
        self.publish(context);
        self.send_ticket(context);
        let repeat = context.resets.is_some().then(|| context.now + TICKET_REPEAT);
        if let Some(connected) = self.connected() {
            connected.ticket_repeat_at = repeat;
        }
    }

    /// Tells that the connection is there.
    fn arrive(&mut self, context: &mut Context<'_>) {
        if self.selected.is_none() {
            self.selected = self.best_path(context, None);
        }
        if let Some(pair) = self.selected {
            self.note_dependence(context, pair);
            if let Some(rtt) = self.paths.rtt(pair) {
                context.device.set_round_trip(self.peer, rtt);
            }
        }
        if let Some(path) = self.path_info(context.relays) {
            context.out.event(Event::Connected { id: self.id, path });
        }
        if context.role == Role::Client {
            self.reselect(context);
        }
        self.note_activity(context);
    }

    /// A session ended; if it waited for a path, it waits no more.
    pub(crate) fn note_session_removed(&mut self, receiver_index: u32) {
        self.workers.waiting.take_if(|session| session.receiver_index() == receiver_index);
    }

    /// WireGuard gave up, or let an unused session end.
    pub(crate) fn note_expired(&mut self, context: &mut Context<'_>, reason: ExpiryReason) {
        match (reason, &self.phase) {
            (ExpiryReason::HandshakeUnanswered, Phase::Checking(_)) => {
                self.closing = Some(CloseReason::IceFailed);
            }
            (ExpiryReason::HandshakeUnanswered, _) => self.closing = Some(CloseReason::WireGuardExpired),
            // The clock may have jumped over the renewal, as it does when a laptop sleeps.
            (ExpiryReason::Idle, _) if context.role == Role::Client => {
                context.device.initiate(context.now, self.peer);
            }
            (ExpiryReason::Idle, _) => {}
        }
    }

    pub(super) fn renew(&mut self, context: &mut Context<'_>) {
        if let Some(connected) = self.connected() {
            connected.renew_at = None;
        }
        context.device.initiate(context.now, self.peer);
    }

    fn send_ticket(&mut self, context: &mut Context<'_>) {
        let Some(resets) = context.resets else { return };
        let Some(session) = context.device.current_session(self.peer) else { return };
        let token = resets.token(session.receiver_index());
        // Without a session or path there is nobody to give it to; the repetition comes.
        let _ = self.send_message(context, &PeerMessage::ResetTicket { token });
    }

    pub(super) fn repeat_ticket(&mut self, context: &mut Context<'_>) {
        if let Some(connected) = self.connected() {
            connected.ticket_repeat_at = None;
        }
        let activity = context.device.activity(self.peer);
        if activity.is_some_and(|activity| activity.unanswered_send().is_some()) {
            self.send_ticket(context);
        }
    }
}
