//! Sealing packets, and the control messages that are this crate's business.

use std::time::Duration;

use adit_protocol::peer::{self, PeerMessage};
use adit_wireguard::{OVERHEAD, PADDING};

use super::{Connection, Context};
use crate::address::Pair;
use crate::reset::Reset;
use crate::{BASE_MTU, CloseReason, DropReason, Event};
use crate::{Role, SendError};

/// The longest packet that fits a datagram.
const MAX_PACKET: usize = 65_535 - 48 - OVERHEAD - PADDING;

impl Connection {
    /// Seals a packet and sends it on the path in use.
    pub(crate) fn send_packet(&mut self, context: &mut Context<'_>, packet: &[u8]) -> Result<(), SendError> {
        let pair = self.selected.filter(|_| self.is_connected()).ok_or(SendError::NotConnected)?;
        self.seal_and_send(context, pair, packet)?;
        self.note_activity(context);
        Ok(())
    }

    /// Seals a packet and sends it over a given pair.
    pub(super) fn seal_and_send(
        &self,
        context: &mut Context<'_>,
        pair: Pair,
        packet: &[u8],
    ) -> Result<(), SendError> {
        if packet.len() > MAX_PACKET {
            return Err(SendError::TooLarge);
        }
        // What may just fit the path must not grow.
        let is_large = packet.len() > usize::from(BASE_MTU);
        let padded = if is_large { packet.len() } else { packet.len().next_multiple_of(PADDING) };
        let room = padded + OVERHEAD;
        let mut datagram = vec![0; room];
        datagram[adit_wireguard::HEADER..][..packet.len()].copy_from_slice(packet);
        let sealed = context.device.seal(context.now, self.peer, &mut datagram, packet.len());
        let Ok(length) = sealed else {
            // Only the client initiates; at a gateway the client's next packet brings a session.
            if context.role == Role::Client && context.device.current_session(self.peer).is_none() {
                context.device.initiate(context.now, self.peer);
            }
            return Err(SendError::NotConnected);
        };
        datagram.truncate(length);
        context.send(pair, datagram);
        Ok(())
    }

    /// Writes a control message as a packet.
    pub(super) fn encode(&self, id: u32, message: &PeerMessage) -> Result<Vec<u8>, SendError> {
        peer::encode(self.tunnel.local, self.tunnel.remote, id, message).map_err(|_| SendError::TooLarge)
    }

    /// An id for a message that starts an exchange.
    pub(super) fn next_message_id(&mut self) -> u32 {
        self.next_message = self.next_message.wrapping_add(1);
        self.next_message
    }

    /// Sends a control message under a new id, which is returned.
    pub(crate) fn send_message(
        &mut self,
        context: &mut Context<'_>,
        message: &PeerMessage,
    ) -> Result<u32, SendError> {
        let id = self.next_message_id();
        self.send_message_with_id(context, id, message)?;
        Ok(id)
    }

    /// Sends a control message under a given id.
    pub(crate) fn send_message_with_id(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        message: &PeerMessage,
    ) -> Result<(), SendError> {
        let packet = self.encode(id, message)?;
        self.send_packet(context, &packet)
    }

    /// Takes a decrypted control packet.
    pub(crate) fn handle_control(
        &mut self,
        context: &mut Context<'_>,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let received = match peer::decode(packet) {
            Ok(received) => received,
            // Kinds of a later revision are ignored by design.
            Err(peer::PeerMessageError::UnknownKind(_)) => return Ok(()),
            Err(_) => return Err(DropReason::MalformedControl),
        };
        if received.source != self.tunnel.remote || received.destination != self.tunnel.local {
            return Err(DropReason::MalformedControl);
        }
        match received.message {
            PeerMessage::Goodbye { reason, retry_after_ms } => {
                let retry_after = retry_after_ms.map(|millis| Duration::from_millis(millis.into()));
                self.closing = Some(CloseReason::Goodbye { reason, retry_after });
            }
            PeerMessage::ResetTicket { token } => {
                if context.role == Role::Client
                    && let Some(connected) = self.connected()
                {
                    connected.token = Some(token);
                    // An answer of any kind spares the gateway a doubt and a repetition.
                    if let Some(pair) = self.selected {
                        self.send_keepalive(context, pair);
                    }
                }
            }
            PeerMessage::Candidates { added, removed } => {
                self.update_remotes(context, &added, &removed);
            }
            PeerMessage::SizeProbe { size } => self.answer_size_probe(context, received.id, size),
            PeerMessage::SizeConfirmed { size } => self.note_size_confirmed(context, received.id, size),
            message @ (PeerMessage::AssignedAddresses { .. }
            | PeerMessage::DomainStatus { .. }
            | PeerMessage::Draining { .. }) => {
                context.out.event(Event::Control { id: self.id, message_id: received.id, message });
            }
        }
        Ok(())
    }

    /// Takes a reset; true if it ends the connection.
    pub(crate) fn handle_reset(&mut self, context: &Context<'_>, reset: Reset) -> bool {
        let in_use = context.device.current_session(self.peer).map(|session| session.remote_index());
        let token = self.connected().and_then(|connected| connected.token);
        let valid = in_use == Some(reset.receiver_index) && token.is_some_and(|token| reset.carries(&token));
        if valid {
            self.closing = Some(CloseReason::Reset);
        }
        valid
    }
}
