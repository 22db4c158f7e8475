//! Telling datagrams apart and handing them on.
//!
//! First by sender (our relays), then by shape: STUN, WireGuard, reset. What a relay forwarded
//! is looked at again by shape, as if it had come in on the relayed address.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use adit_wireguard::{DropReason as WireGuardReason, Received, is_wireguard, receiver_index};
use is::stun::StunMessage;

use super::Node;
use crate::Role;
use crate::address::{Pair, normalized};
use crate::initiations::Copy;
use crate::relays::FromRelay;
use crate::reset::Reset;
use crate::transactions::{Asker, TransactionId};
use crate::{ConnectionId, DropReason, Inbound, Path, StreamId};

/// What a datagram is by its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stun,
    WireGuard,
    Reset(Reset),
}

impl Kind {
    fn of(datagram: &[u8]) -> Option<Self> {
        if adit_turn::stun::looks_like(datagram) {
            Some(Self::Stun)
        } else if is_wireguard(datagram) {
            Some(Self::WireGuard)
        } else {
            Reset::parse(datagram).map(Self::Reset)
        }
    }
}

impl Node {
    /// Takes a datagram that came in on `local` from `from`.
    ///
    /// `local` may be the unspecified address if the network layer does not know better.
    ///
    /// # Errors
    /// The reason why it was dropped; it is counted.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        let from = normalized(from);
        let result = match self.machines.relays.handle_datagram(now, from, datagram) {
            FromRelay::No => {
                let pair = Pair { local: self.machines.locals.resolve(local), remote: from };
                self.handle_kind(now, pair, datagram)
            }
            FromRelay::Consumed => Ok(Inbound::Consumed),
            FromRelay::Data { pair, payload } => self.handle_relayed(now, pair, payload, datagram),
        };
        self.finish(now, result)
    }

    /// Takes a whole message that came from a relay over a stream.
    ///
    /// # Errors
    /// The reason why it was dropped; it is counted.
    pub fn handle_stream_message(
        &mut self,
        now: Instant,
        from: StreamId,
        message: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        let result = match self.machines.relays.handle_message(now, from, message) {
            FromRelay::No => Err(DropReason::UnknownStream),
            FromRelay::Consumed => Ok(Inbound::Consumed),
            FromRelay::Data { pair, payload } => self.handle_relayed(now, pair, payload, message),
        };
        self.finish(now, result)
    }

    /// What a relay forwarded: a datagram in a datagram.
    fn handle_relayed(
        &mut self,
        now: Instant,
        pair: Pair,
        payload: Range<usize>,
        outer: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        let start = payload.start;
        let inner = outer.get_mut(payload).unwrap_or_default();
        self.handle_kind(now, pair, inner).map(|inbound| shifted(inbound, start))
    }

    fn finish(&mut self, now: Instant, result: Result<Inbound, DropReason>) -> Result<Inbound, DropReason> {
        self.drain(now);
        result.inspect_err(|reason| self.machines.counters.count(*reason))
    }

    fn handle_kind(&mut self, now: Instant, pair: Pair, datagram: &mut [u8]) -> Result<Inbound, DropReason> {
        match Kind::of(datagram).ok_or(DropReason::UnknownKind)? {
            Kind::Stun => self.handle_stun(now, pair, datagram).map(|()| Inbound::Consumed),
            Kind::WireGuard => self.handle_wireguard(now, pair, datagram),
            Kind::Reset(reset) => self.handle_reset(now, reset).map(|()| Inbound::Consumed),
        }
    }

    fn handle_stun(&mut self, now: Instant, pair: Pair, datagram: &[u8]) -> Result<(), DropReason> {
        let message = StunMessage::parse(datagram).map_err(|_| DropReason::MalformedStun)?;
        if message.is_binding_request() {
            return self.handle_stun_request(now, pair, message);
        }
        let id = datagram.get(8..20).and_then(|id| TransactionId::try_from(id).ok());
        let id = id.ok_or(DropReason::MalformedStun)?;
        self.handle_stun_response(now, pair, id, message)
    }

    /// A check of the peer names us first in its user name (RFC 8445, section 7.2.2).
    fn handle_stun_request(
        &mut self,
        now: Instant,
        pair: Pair,
        message: StunMessage<'_>,
    ) -> Result<(), DropReason> {
        let (user, _) = message.split_username().ok_or(DropReason::MalformedStun)?;
        let id = *self.index.by_user.get(user).ok_or(DropReason::UnknownUser)?;
        let handled = self.touch(now, id, |connection, context| {
            let authentic = connection.ice().handle_message(now, pair, message);
            if authentic {
                connection.note_request(context, pair);
            }
            authentic
        });
        if handled == Some(true) { Ok(()) } else { Err(DropReason::UnauthenticStun) }
    }

    fn handle_stun_response(
        &mut self,
        now: Instant,
        pair: Pair,
        id: TransactionId,
        message: StunMessage<'_>,
    ) -> Result<(), DropReason> {
        let transaction = self.machines.transactions.get(&id).ok_or(DropReason::UnmatchedResponse)?;
        // An answer from elsewhere proves nothing about the pair (RFC 8445, section 7.2.5.2.1).
        if transaction.pair.remote != pair.remote {
            return Err(DropReason::UnmatchedResponse);
        }
        let rtt = now.saturating_duration_since(transaction.sent);
        let handled = self.touch(now, transaction.connection, |connection, context| {
            let ice = connection.ice();
            let authentic = match transaction.asker {
                Asker::Agent => ice.handle_message(now, transaction.pair, message),
                Asker::Probe => ice.is_answer(&message),
            };
            if authentic {
                context.transactions.remove(&id);
            }
            if authentic && message.is_successful_binding_response() {
                connection.note_answer(context, transaction.pair, Some(rtt));
            }
            authentic
        });
        if handled == Some(true) { Ok(()) } else { Err(DropReason::UnauthenticStun) }
    }

    fn handle_wireguard(
        &mut self,
        now: Instant,
        pair: Pair,
        datagram: &mut [u8],
    ) -> Result<Inbound, DropReason> {
        let initiation = is_initiation(datagram).then(|| datagram.to_vec());
        if let Some(initiation) = &initiation {
            match self.initiations.look_up(now, pair, initiation) {
                Copy::First => {}
                Copy::Again(response) => {
                    self.context(now).send(pair, response);
                    return Ok(Inbound::Consumed);
                }
                Copy::Repeated => return Err(DropReason::DuplicateInitiation),
            }
        }
        let receiver = receiver_index(datagram);
        match self.machines.device.handle_datagram(now, pair.remote, datagram) {
            Ok(Received::Handshake { peer, reply }) => {
                self.handle_handshake(now, pair, initiation, peer, reply);
                Ok(Inbound::Consumed)
            }
            Ok(Received::Data { peer, plaintext, .. }) => {
                let id = self.index.by_peer.get(&peer).copied().ok_or(DropReason::UnknownConnection)?;
                self.handle_data(now, id, pair, datagram, plaintext)
            }
            Err(reason) => {
                if let Some(index) = receiver
                    && reason == WireGuardReason::UnknownReceiver
                {
                    self.answer_unknown_session(now, pair, index);
                }
                Err(DropReason::WireGuard(reason))
            }
        }
    }

    fn handle_handshake(
        &mut self,
        now: Instant,
        pair: Pair,
        initiation: Option<Vec<u8>>,
        peer: Option<adit_wireguard::PeerId>,
        reply: Option<Vec<u8>>,
    ) {
        let is_response = initiation.is_none() && peer.is_some();
        if let (Some(initiation), Some(_), Some(response)) = (initiation, peer, &reply) {
            self.initiations.remember(now, pair, initiation, response);
        }
        if let Some(reply) = reply {
            self.context(now).send(pair, reply);
        }
        let id = peer.and_then(|peer| self.index.by_peer.get(&peer).copied());
        if let Some(id) = id.filter(|_| is_response) {
            self.touch(now, id, |connection, context| connection.note_response(context, pair));
        }
    }

    /// A packet of a peer: control messages stay here, the rest goes to the caller.
    fn handle_data(
        &mut self,
        now: Instant,
        id: ConnectionId,
        pair: Pair,
        datagram: &[u8],
        plaintext: Range<usize>,
    ) -> Result<Inbound, DropReason> {
        self.touch(now, id, |connection, context| connection.note_transport(context, pair));
        // The session may be new and the path just chosen; both before the content.
        self.drain(now);
        let packet = datagram.get(plaintext.clone()).unwrap_or_default();
        if packet.is_empty() {
            return Ok(Inbound::Consumed);
        }
        if adit_protocol::peer::is_control(packet) {
            let handled = self.touch(now, id, |connection, context| {
                connection.note_activity(context);
                connection.handle_control(context, packet)
            });
            return handled.unwrap_or(Err(DropReason::UnknownConnection)).map(|()| Inbound::Consumed);
        }
        self.touch(now, id, |connection, context| connection.note_activity(context));
        Ok(Inbound::Packet { connection: id, range: plaintext })
    }

    /// Takes a decrypted peer control packet that a worker handed over.
    ///
    /// # Errors
    /// The reason why it was dropped; it is counted.
    pub fn handle_control_packet(
        &mut self,
        now: Instant,
        id: ConnectionId,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let handled = self.touch(now, id, |connection, context| connection.handle_control(context, packet));
        self.drain(now);
        let result = handled.unwrap_or(Err(DropReason::UnknownConnection));
        result.inspect_err(|reason| self.machines.counters.count(*reason))
    }

    fn answer_unknown_session(&mut self, now: Instant, pair: Pair, receiver_index: u32) {
        if !self.may_reset() {
            return;
        }
        let reset = self.machines.resets.as_mut().and_then(|resets| resets.reset(now, receiver_index));
        match reset {
            Some(reset) => {
                self.machines.counters.resets_sent += 1;
                self.context(now).send(pair, reset);
            }
            None => self.machines.counters.resets_suppressed += 1,
        }
    }

    fn handle_reset(&mut self, now: Instant, reset: Reset) -> Result<(), DropReason> {
        let id = self.index.by_session.get(&reset.receiver_index).copied();
        let id = id.filter(|_| self.machines.role == Role::Client).ok_or(DropReason::InvalidReset)?;
        match self.touch(now, id, |connection, context| connection.handle_reset(context, reset)) {
            Some(true) => Ok(()),
            _ => Err(DropReason::InvalidReset),
        }
    }

    /// The pair behind a worker's path.
    pub(super) fn pair_of(&self, path: Path) -> Option<Pair> {
        let remote = normalized(path.remote);
        match path.channel {
            Some(channel) => self.machines.relays.pair_of(path.stream, remote, channel),
            None => Some(Pair { local: self.machines.locals.resolve(path.local), remote }),
        }
    }
}

fn shifted(inbound: Inbound, by: usize) -> Inbound {
    match inbound {
        Inbound::Packet { connection, range } => {
            Inbound::Packet { connection, range: range.start + by..range.end + by }
        }
        Inbound::Consumed => Inbound::Consumed,
    }
}

fn is_initiation(datagram: &[u8]) -> bool {
    datagram.first_chunk::<4>() == Some(&[1, 0, 0, 0])
}
