//! Copies of the initiation, sent ahead of any proof that a pair works.
//!
//! Waiting for a check before the handshake would cost a round trip. So the client sends each
//! new initiation over every pair at once, and again over a pair as soon as the peer is
//! heard there, for the first copy may have met a NAT that was still closed. The initiation
//! is no bigger than one and a half checks, and each pair sees at most two copies.

use std::collections::BTreeSet;

use super::{Connection, Context};
use crate::address::Pair;

/// Pairs that get a copy.
const MAX_COPIES: usize = 32;

/// The initiation under way and where it went.
#[derive(Debug)]
pub(super) struct Copies {
    datagram: Vec<u8>,
    sent: BTreeSet<Pair>,
    repeated: BTreeSet<Pair>,
}

impl Connection {
    /// Sends a datagram of the WireGuard machine.
    pub(crate) fn transmit(&mut self, context: &mut Context<'_>, datagram: Vec<u8>) {
        if self.is_connected() {
            if let Some(pair) = self.selected {
                context.send(pair, datagram);
            }
            return;
        }
        if !is_initiation(&datagram) {
            let pair = self.selected.or_else(|| self.best_path(context, None));
            if let Some(pair) = pair {
                context.send(pair, datagram);
            }
            return;
        }
        self.copies = Some(Copies { datagram, sent: BTreeSet::new(), repeated: BTreeSet::new() });
        self.send_copies(context);
    }

    /// Sends the initiation over all pairs that have not seen it; over paths only, once there
    /// are some.
    pub(super) fn send_copies(&mut self, context: &mut Context<'_>) {
        let Some(copies) = &mut self.copies else { return };
        let mut pairs: Vec<Pair> = self.paths.validated().collect();
        if pairs.is_empty() {
            pairs = self.ice.pairs();
        }
        for pair in pairs {
            if copies.sent.len() < MAX_COPIES && copies.sent.insert(pair) {
                context.send(pair, copies.datagram.clone());
            }
        }
    }

    /// Sends the initiation once more over a pair that just showed life.
    pub(super) fn send_copy(&mut self, context: &mut Context<'_>, pair: Pair) {
        let Some(copies) = &mut self.copies else { return };
        if copies.repeated.len() < MAX_COPIES && copies.repeated.insert(pair) {
            copies.sent.insert(pair);
            context.send(pair, copies.datagram.clone());
        }
    }
}

fn is_initiation(datagram: &[u8]) -> bool {
    datagram.first_chunk::<4>() == Some(&[1, 0, 0, 0])
}
