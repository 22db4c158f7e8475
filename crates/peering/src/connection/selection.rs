//! Which path packets take, and who is told.
//!
//! The client decides: it takes the best path it knows and lets a keepalive follow, so that the
//! gateway hears of it at once. The gateway answers where the newest authenticated packet
//! came from. It has to: after a client roamed, the gateway's agent would for many seconds
//! still prefer a pair that is dead.

use std::time::Duration;

use adit_wireguard::OVERHEAD;

use super::candidates::WIDEN_AFTER;
use super::{Connection, Context};
use crate::Role;
use crate::address::{Pair, family};
use crate::{Event, Forwarding, Path};

/// How often a relayed connection with traffic looks for a direct path.
const UPGRADE_EVERY: Duration = Duration::from_secs(60);

impl Connection {
    /// An authenticated WireGuard message that is not a handshake came in over a pair.
    pub(crate) fn note_transport(&mut self, context: &mut Context<'_>, pair: Pair) {
        self.paths.note_heard(context.now, pair, self.class(context, pair));
        self.heard_on = Some(pair);
        if self.selected == Some(pair) {
            return;
        }
        match context.role {
            Role::Client if self.selected.is_none() => self.select(context, pair),
            // The gateway may have moved because we cannot be reached here any more.
            Role::Client => self.doubt_gently(context),
            Role::Gateway if self.paths.is_suspect(pair) => {}
            Role::Gateway => self.select(context, pair),
        }
    }

    /// An authentic response to our initiation came in over a pair.
    pub(crate) fn note_response(&mut self, context: &mut Context<'_>, pair: Pair) {
        self.paths.note_answer(context.now, pair, self.class(context, pair), None);
        if !self.is_connected() {
            // Both directions just worked, whatever ICE knows so far.
            self.selected = Some(pair);
            self.copies = None;
        }
    }

    /// The agent prefers a pair.
    pub(super) fn note_nominated(&mut self, context: &mut Context<'_>, pair: Pair) {
        self.nominated = Some(pair);
        if context.role == Role::Client {
            self.reselect(context);
        }
        let worse = self.selected.is_some_and(|selected| {
            selected != pair && self.ice.is_relayed(pair) && !self.ice.is_relayed(selected)
        });
        if worse && self.is_connected() {
            // The agent gave the direct pair up. Find out before it costs packets.
            self.doubt(context);
        }
    }

    /// Takes the best path if it is better than the present one.
    pub(super) fn reselect(&mut self, context: &mut Context<'_>) {
        let present = self.selected.filter(|pair| self.is_ours(context, pair.local));
        if let Some(best) = self.best_path(context, present)
            && self.selected != Some(best)
        {
            self.select(context, best);
        }
    }

    /// The best path that is known, and not one over a relay that leaves if there is another.
    pub(super) fn best_path(&self, context: &Context<'_>, present: Option<Pair>) -> Option<Pair> {
        self.paths.best(present, self.nominated, |pair| {
            self.ice.is_relayed(pair) && context.relays.is_leaving(pair)
        })
    }

    /// The path in use is gone with our end of it: takes another, proven or not.
    pub(super) fn replace_path(&mut self, context: &mut Context<'_>) {
        let proven = self.best_path(context, None);
        // The same end of the peer from a new address of ours is the best guess.
        let guess = self.selected.and_then(|before| {
            let local = context.locals.first(family(before.remote))?;
            Some(Pair { local, remote: before.remote })
        });
        if let Some(pair) = proven.or(guess).or_else(|| self.ice.pairs().first().copied()) {
            self.select(context, pair);
        }
        self.search(context);
    }

    /// Sends over `pair` from now on.
    pub(super) fn select(&mut self, context: &mut Context<'_>, pair: Pair) {
        self.selected = Some(pair);
        if !self.is_connected() {
            return;
        }
        if let Some(rtt) = self.paths.rtt(pair) {
            context.device.set_round_trip(self.peer, rtt);
        }
        self.publish(context);
        self.restart_mtu(context);
        if let Some(path) = self.path_info(context.relays) {
            context.out.event(Event::PathChanged { id: self.id, path });
        }
        if context.role == Role::Client {
            self.send_keepalive(context, pair);
        }
        self.note_dependence(context, pair);
        self.sync_channels(context);
    }

    /// A connection that depends on a relay prepares to use another, and looks for a direct
    /// path from time to time.
    pub(super) fn note_dependence(&mut self, context: &Context<'_>, pair: Pair) {
        let relayed = self.ice.is_relayed(pair);
        if relayed && context.relays.len() > self.relays.len() {
            self.widen_at.get_or_insert(context.now + WIDEN_AFTER);
        }
        if let Some(connected) = self.connected() {
            let at = connected.upgrade_at.unwrap_or(context.now + UPGRADE_EVERY);
            connected.upgrade_at = relayed.then_some(at);
        }
    }

    /// Checks every pair again, as the agent gives up those that once failed.
    pub(super) fn upgrade(&mut self, context: &Context<'_>) {
        let Some(connected) = self.connected() else { return };
        connected.upgrade_at = Some(context.now + UPGRADE_EVERY);
        if !connected.liveness.is_idle() {
            self.ice.recheck(context.now);
        }
    }

    pub(super) fn send_keepalive(&mut self, context: &mut Context<'_>, pair: Pair) {
        let mut datagram = vec![0; OVERHEAD];
        if context.device.seal(context.now, self.peer, &mut datagram, 0).is_ok() {
            context.send(pair, datagram);
        }
    }

    /// Tells workers of the path, and of a session that waited for it.
    pub(crate) fn publish(&mut self, context: &mut Context<'_>) {
        let Some(pair) = self.selected else { return };
        let path = if context.locals.contains(pair.local) {
            Some(Path { local: pair.local, remote: pair.remote, channel: None, stream: None })
        } else {
            context.relays.worker_path(pair, context.locals)
        };
        let Some(path) = path else { return };
        if self.workers.path.replace(path) != Some(path) {
            context.out.forwarding(Forwarding::PathChanged { id: self.id, path });
        }
        if let Some(session) = self.workers.waiting.take() {
            context.out.forwarding(Forwarding::SendSession { id: self.id, session });
        }
    }
}
