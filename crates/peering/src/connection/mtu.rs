//! How large packets may be on the path in use.
//!
//! Every path carries packets of 1,280 bytes. Whether it carries larger ones is found out by sending some, inside
//! the tunnel: a probe is a packet of the size in question, and its answer names that size (RFC 8899 calls this
//! packetization layer path MTU discovery). The sizes are those of links that exist, and all of them go out at once,
//! so that one round trip is enough; what is too large dies on the way and costs nothing more.
//!
//! Each end probes the way that its own packets take. A new path begins at 1,280 bytes again. While much is sent the
//! size in use is asked for again from time to time: a path that has become narrower without a word is noticed within
//! seconds, and one that has become wider within minutes. ICMP errors are no proof of anything, but they hasten the
//! question. Probes count as traffic wherever traffic is counted, so they must be too little to call for others.

use std::time::{Duration, Instant};

use adit_protocol::peer::PeerMessage;
use adit_wireguard::OVERHEAD;

use super::{Connection, Context};
use crate::address::Pair;
use crate::{BASE_MTU, Forwarding};

/// Sizes of IP packets that links carry: jumbo frames, Ethernet, PPPoE, and tunnels over them.
const LINKS: [u16; 7] = [9_000, 1_500, 1_492, 1_472, 1_450, 1_420, 1_400];
/// UDP header in bytes.
const UDP: u16 = 8;
/// Header of TURN channel data in bytes.
const CHANNEL: u16 = 4;

/// The first packets of a connection go before the probes.
const START_AFTER: Duration = Duration::from_millis(50);
/// How often a search sends all its probes.
const ROUNDS: u32 = 3;
/// How often the size in use is asked for before it is given up.
const QUESTIONS: u32 = 4;
/// A probe's answer may take this long, or three round trips if that is more.
const MIN_ANSWER: Duration = Duration::from_millis(300);
/// How often the size in use is asked for while there is traffic.
const CONFIRM_EVERY: Duration = Duration::from_secs(10);
/// Bytes sent since the last question that make another worth while; all probes of a search are fewer.
const WORTH_WHILE: u64 = 128 * 1024;
/// How often larger sizes are tried again.
const SEARCH_EVERY: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Larger sizes have been sent this often.
    Searching(u32),
    /// Nothing is out.
    Settled,
    /// The size in use has been asked for this often.
    Doubting(u32),
}

/// What is known of the path in use.
#[derive(Debug)]
pub(super) struct PathMtu {
    state: State,
    /// The largest inner packet that is known to arrive, in bytes.
    size: u16,
    /// `None` while there is no traffic.
    next: Option<Instant>,
    searched: Instant,
    /// Bytes that had been sent when the last question went out.
    sent: u64,
    /// Answers to older messages are about another path.
    since: u32,
}

impl PathMtu {
    pub(super) fn new(now: Instant, message: u32) -> Self {
        Self {
            state: State::Searching(0),
            size: BASE_MTU,
            next: Some(now + START_AFTER),
            searched: now,
            sent: 0,
            since: message,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

impl Connection {
    /// Packets take another path: nothing is known of it.
    pub(super) fn restart_mtu(&mut self, context: &mut Context<'_>) {
        let fresh = PathMtu::new(context.now, self.next_message);
        let Some(connected) = self.connected() else { return };
        let before = std::mem::replace(&mut connected.mtu, fresh).size;
        if before != BASE_MTU {
            context.out.forwarding(Forwarding::MtuChanged { id: self.id, mtu: BASE_MTU });
        }
    }

    /// There is traffic again.
    pub(super) fn wake_mtu(&mut self, now: Instant) {
        if let Some(connected) = self.connected() {
            connected.mtu.next.get_or_insert(now + START_AFTER);
        }
    }

    /// Somebody says that a packet was too large: asks at once.
    pub(crate) fn doubt_mtu(&mut self, context: &mut Context<'_>) {
        if let Some(connected) = self.connected()
            && connected.mtu.state == State::Settled
        {
            self.question(context, 1);
        }
    }

    /// The timer.
    pub(super) fn check_mtu(&mut self, context: &mut Context<'_>) {
        let (is_active, id) = (self.is_active(), self.id.0);
        let sent = self.bytes_sent(context);
        let Some(connected) = self.connected() else { return };
        let mtu = &mut connected.mtu;
        let is_worth_while = sent.saturating_sub(mtu.sent) >= WORTH_WHILE;
        let is_due = context.now >= mtu.searched + SEARCH_EVERY;
        match mtu.state {
            State::Searching(rounds) if rounds < ROUNDS => self.search_mtu(context, rounds + 1),
            State::Settled if !is_active => mtu.next = None,
            State::Settled if is_worth_while && is_due => self.search_mtu(context, 1),
            State::Settled if is_worth_while && mtu.size > BASE_MTU => self.question(context, 1),
            State::Doubting(asked) if asked < QUESTIONS => self.question(context, asked + 1),
            State::Doubting(_) => {
                tracing::info!(connection = id, size = mtu.size, "packets of this size arrive no more");
                self.restart_mtu(context);
            }
            State::Searching(_) | State::Settled => self.settle_mtu(context.now),
        }
    }

    fn settle_mtu(&mut self, now: Instant) {
        if let Some(connected) = self.connected() {
            (connected.mtu.state, connected.mtu.next) = (State::Settled, Some(now + CONFIRM_EVERY));
        }
    }

    /// Asks for every size that is larger than the one in use.
    fn search_mtu(&mut self, context: &mut Context<'_>, round: u32) {
        let Some(pair) = self.selected else { return };
        let next = context.now + self.patience_for_size();
        let sent = self.bytes_sent(context);
        let Some(connected) = self.connected() else { return };
        let known = connected.mtu.size;
        (connected.mtu.state, connected.mtu.next) = (State::Searching(round), Some(next));
        connected.mtu.sent = sent;
        connected.mtu.searched = context.now;
        for size in sizes(context, pair).filter(|size| *size > known) {
            self.send_size_probe(context, pair, size);
        }
    }

    /// Asks whether the size in use still arrives.
    fn question(&mut self, context: &mut Context<'_>, asked: u32) {
        let Some(pair) = self.selected else { return };
        let next = context.now + self.patience_for_size();
        let sent = self.bytes_sent(context);
        let Some(connected) = self.connected() else { return };
        (connected.mtu.state, connected.mtu.next) = (State::Doubting(asked), Some(next));
        connected.mtu.sent = sent;
        let size = connected.mtu.size;
        self.send_size_probe(context, pair, size);
    }

    fn bytes_sent(&self, context: &Context<'_>) -> u64 {
        context.device.activity(self.peer).map_or(0, |activity| activity.sent().1)
    }

    fn patience_for_size(&self) -> Duration {
        MIN_ANSWER.max(self.round_trip() * 3)
    }

    fn send_size_probe(&mut self, context: &mut Context<'_>, pair: Pair, size: u16) {
        let id = self.next_message_id();
        if let Ok(packet) = self.encode(id, &PeerMessage::SizeProbe { size }) {
            // Without a session there is nothing to find out; the timer comes again.
            let _ = self.seal_and_send(context, pair, &packet);
        }
    }

    /// The peer sent a probe, and it arrived.
    pub(super) fn answer_size_probe(&mut self, context: &mut Context<'_>, id: u32, size: u16) {
        let Some(pair) = self.selected else { return };
        if let Ok(packet) = self.encode(id, &PeerMessage::SizeConfirmed { size }) {
            // As above: the peer asks again.
            let _ = self.seal_and_send(context, pair, &packet);
        }
    }

    /// A probe of ours arrived.
    pub(super) fn note_size_confirmed(&mut self, context: &mut Context<'_>, id: u32, size: u16) {
        let Some(pair) = self.selected else { return };
        // Else the answer would be one that nobody answers, and make the peer doubt us.
        self.send_keepalive(context, pair);
        let is_offered = sizes(context, pair).any(|offered| offered == size);
        let largest = sizes(context, pair).max();
        let Some(connected) = self.connected() else { return };
        let mtu = &mut connected.mtu;
        let is_older = id.wrapping_sub(mtu.since) > u32::MAX / 2;
        if is_older || !is_offered || size < mtu.size {
            return;
        }
        let is_larger = size > mtu.size;
        mtu.size = size;
        if matches!(mtu.state, State::Doubting(_)) || Some(size) == largest {
            self.settle_mtu(context.now);
        }
        if is_larger {
            tracing::debug!(connection = self.id.0, size, "larger packets arrive");
            context.out.forwarding(Forwarding::MtuChanged { id: self.id, mtu: size });
        }
    }
}

/// Inner packets that fill the links there are, when they are sent over this pair.
fn sizes(context: &Context<'_>, pair: Pair) -> impl Iterator<Item = u16> + use<> {
    let relay = context.relays.server(pair.local);
    let network = if relay.unwrap_or(pair.remote).is_ipv4() { 20 } else { 40 };
    let channel = if relay.is_some() { CHANNEL } else { 0 };
    let overhead = network + UDP + channel + OVERHEAD as u16;
    LINKS.into_iter().map(move |link| link - overhead)
}
