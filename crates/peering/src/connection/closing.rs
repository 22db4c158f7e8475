//! Closing: the last words, and leaving nothing behind.
//!
//! A goodbye is sealed like any packet, so nobody else can forge it. One goes on the path in
//! use and one on every other path; nothing is resent or acknowledged. Without a session there
//! is nothing to seal with, and the peer finds out by itself.

use std::time::Duration;

use adit_protocol::peer::{GoodbyeReason, PeerMessage};

use super::{Connection, Context};

/// Goodbyes sent at most.
const MAX_GOODBYES: usize = 16;

impl Connection {
    /// Says goodbye on every path.
    pub(crate) fn say_goodbye(
        &mut self,
        context: &mut Context<'_>,
        reason: GoodbyeReason,
        retry_after: Option<Duration>,
    ) {
        let millis = |after: Duration| u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        let message = PeerMessage::Goodbye { reason, retry_after_ms: retry_after.map(millis) };
        let id = self.next_message_id();
        let Ok(packet) = self.encode(id, &message) else { return };
        let others = self.paths.validated().filter(|pair| Some(*pair) != self.selected);
        let pairs: Vec<_> = self.selected.into_iter().chain(others).take(MAX_GOODBYES).collect();
        for pair in pairs {
            // Best effort: without a session there is nobody to tell.
            let _ = self.seal_and_send(context, pair, &packet);
        }
    }

    /// Gives everything back that others keep for this connection.
    pub(crate) fn leave(self, context: &mut Context<'_>) {
        for (key, peer) in &self.held {
            context.relays.release(*key, *peer, self.id);
        }
        context.transactions.forget(self.id);
        context.device.remove_peer(self.peer);
    }
}
