//! Requests: who asks, whether the request is understood, and the ones about peers.

use super::allocations::AllocationKey;
use super::authentication::Verified;
use super::channels::NewChannel;
use super::endpoint::{Endpoint, Host};
use super::peer_policy::Verdict;
use super::response::{Envelope, Reply};
use super::{Client, DropReason, RelayPort, Server};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Message, Method, Writer};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Required attributes that messages may carry; all others are not understood.
const KNOWN: [AttributeKind; 17] = [
    AttributeKind::MAPPED_ADDRESS,
    AttributeKind::USERNAME,
    AttributeKind::ERROR_CODE,
    AttributeKind::UNKNOWN_ATTRIBUTES,
    AttributeKind::CHANNEL_NUMBER,
    AttributeKind::LIFETIME,
    AttributeKind::XOR_PEER_ADDRESS,
    AttributeKind::DATA,
    AttributeKind::REALM,
    AttributeKind::NONCE,
    AttributeKind::XOR_RELAYED_ADDRESS,
    AttributeKind::REQUESTED_ADDRESS_FAMILY,
    AttributeKind::EVEN_PORT,
    AttributeKind::REQUESTED_TRANSPORT,
    AttributeKind::RESERVATION_TOKEN,
    AttributeKind::PASSWORD_ALGORITHM,
    AttributeKind::XOR_MAPPED_ADDRESS,
];

impl Server {
    /// Answers a request of any method.
    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
    ) -> Result<(), DropReason> {
        let known = [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
        let is_binding = request.method() == Method::BINDING;
        // RFC 8489, section 6.3: other methods are discarded.
        if !is_binding && !known.contains(&request.method()) {
            return Err(DropReason::Unexpected);
        }
        // RFC 8489, section 12: Binding should not need credentials.
        if is_binding {
            self.take_budget(now, client)?;
            let reply = self.binding_reply(client, request);
            self.respond(client, reply);
            return Ok(());
        }
        match self.authenticate(now, client, request) {
            Ok(verified) => {
                if let Some(reply) = self.handle_verified(now, client, request, &verified) {
                    self.respond(client, reply);
                }
            }
            // The budget is asked before the answer is made: a flood is cheap to drop.
            Err(code) => {
                self.take_budget(now, client)?;
                let reply = self.reject(now, client, request, code);
                self.respond(client, reply);
            }
        }
        Ok(())
    }

    fn take_budget(&mut self, now: Instant, client: Client) -> Result<(), DropReason> {
        let enough = self.budget.take(now, client.address.ip());
        if enough { Ok(()) } else { Err(DropReason::OverBudget) }
    }

    /// Carries out a request of somebody we know; `None` if the answer comes later.
    fn handle_verified(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Option<Reply> {
        let envelope = Envelope::of(request);
        if let Some(writer) = self.complaint(request) {
            return Some(verified.reply(&envelope, Some(ErrorCode::UNKNOWN_ATTRIBUTE), writer));
        }
        // RFC 8489, section 6.3.1: a repeated request gets the answer it got before.
        let user = &verified.user;
        if let Some(datagram) = self.recent.find(now, client.into(), user, request.transaction()) {
            return Some(Reply { error: None, datagram: datagram.to_vec() });
        }
        if request.method() == Method::ALLOCATE {
            return self.handle_allocate(now, client, request, verified);
        }
        let owned = self.owned_allocation(client, verified);
        Some(match owned.and_then(|key| self.handle_owned(now, client, key, request, verified)) {
            Ok(reply) => reply,
            Err(code) => verified.refuse(&envelope, code),
        })
    }

    /// Carries out a request about an allocation of the one who asks.
    fn handle_owned(
        &mut self,
        now: Instant,
        client: Client,
        key: AllocationKey,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Result<Reply, ErrorCode> {
        let allocation = self.tables.allocations.get_mut(key).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        allocation.secret = allocation.secret.max(verified.secret);
        let writer = match request.method() {
            Method::REFRESH => {
                let made = (allocation.request, allocation.response.clone().unwrap_or_default());
                let writer = self.handle_refresh(now, key, request, verified)?;
                let reply = verified.reply(&Envelope::of(request), None, writer);
                if self.tables.allocations.get(key).is_none() {
                    let answers = [(request.transaction(), &*reply.datagram), (made.0, &*made.1)];
                    for (id, datagram) in answers {
                        self.recent.remember(now, client.into(), &verified.user, id, datagram);
                    }
                }
                return Ok(reply);
            }
            Method::CREATE_PERMISSION => self.handle_create_permission(now, key, request)?,
            _ => self.handle_channel_bind(now, client, key, request)?,
        };
        Ok(verified.reply(&Envelope::of(request), None, writer))
    }

    /// The client's allocation, if it is the user's (RFC 8656, section 5): 437 without one, and another
    /// user's must draw a 441.
    fn owned_allocation(&self, client: Client, verified: &Verified) -> Result<AllocationKey, ErrorCode> {
        let key = self.tables.allocations.find(client.into()).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        match self.tables.allocations.get(key) {
            Some(allocation) if allocation.response.is_some() => {
                let is_owner = self.tables.users.is(allocation.user, &verified.user);
                if is_owner { Ok(key) } else { Err(ErrorCode::WRONG_CREDENTIALS) }
            }
            _ => Err(ErrorCode::ALLOCATION_MISMATCH),
        }
    }

    /// RFC 8656, section 10.2: all addresses or none.
    fn handle_create_permission(
        &mut self,
        now: Instant,
        key: AllocationKey,
        request: &Message<'_>,
    ) -> Result<Writer, ErrorCode> {
        let peers: Option<Vec<SocketAddr>> = request.xor_addresses(AttributeKind::XOR_PEER_ADDRESS).collect();
        // At least one, and none that is invalid.
        let peers = peers.filter(|peers| !peers.is_empty());
        let mut peers: Vec<IpAddr> =
            peers.ok_or(ErrorCode::BAD_REQUEST)?.iter().map(SocketAddr::ip).collect();
        peers.sort_unstable();
        peers.dedup();
        for peer in &peers {
            self.check_family(key, *peer)?;
        }
        if !peers.iter().all(|peer| self.peer_policy.permits_address(*peer)) {
            return Err(ErrorCode::FORBIDDEN);
        }
        self.check_permission_room(key, &peers)?;
        for peer in peers {
            self.tables.permit(now, key, peer.into());
        }
        Ok(Envelope::of(request).success())
    }

    /// RFC 8656, section 12.2.
    fn handle_channel_bind(
        &mut self,
        now: Instant,
        client: Client,
        key: AllocationKey,
        request: &Message<'_>,
    ) -> Result<Writer, ErrorCode> {
        let number = request.number(AttributeKind::CHANNEL_NUMBER);
        let number = number.map(|value| (value >> 16) as u16);
        let number = number.filter(|number| self.channel_numbers.contains(number));
        let number = number.ok_or(ErrorCode::BAD_REQUEST)?;
        let peer = request.xor_address(AttributeKind::XOR_PEER_ADDRESS);
        let peer = peer.ok_or(ErrorCode::BAD_REQUEST)?;
        let port = self.check_family(key, peer.ip())?;
        // RFC 8656, section 21.4: 6to4 and Teredo must not be accepted, on either side.
        let verdict = self.peer_policy.judge(peer);
        if verdict == Verdict::Denied || self.peer_policy.is_tunnelled(client.address.ip()) {
            return Err(ErrorCode::FORBIDDEN);
        }
        let only_if_lent = verdict != Verdict::Allowed;
        let new = NewChannel { number, peer: Endpoint::of_peer(peer), port, only_if_lent };
        self.check_channel(client, key, new)?;
        self.check_permission_room(key, &[peer.ip()])?;
        self.tables.bind(now, key, new).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        Ok(Envelope::of(request).success())
    }

    /// Number and peer must both be free, or bound to each other (RFC 8656, section 12.2); and there
    /// must be room.
    fn check_channel(&self, client: Client, key: AllocationKey, new: NewChannel) -> Result<(), ErrorCode> {
        let channels = &self.tables.channels;
        let by_number = channels.find_by_client(client.into(), new.number);
        let by_peer = channels.find_by_peer(new.port, new.peer);
        if by_number != by_peer {
            return Err(ErrorCode::BAD_REQUEST);
        }
        let limits = &self.config.limits;
        let allocation = self.tables.allocations.get(key).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let of_user = self.tables.users.get(allocation.user).map_or(0, |user| user.channels);
        let full = allocation.channels >= limits.channels_per_allocation
            || of_user >= limits.grants_per_user
            || channels.len() >= limits.grants;
        if by_number.is_none() && full { Err(ErrorCode::INSUFFICIENT_CAPACITY) } else { Ok(()) }
    }

    /// The allocation's port of the peer's family; without one it must be a 443 (RFC 8656, sections
    /// 10.2 and 12.2).
    fn check_family(&self, key: AllocationKey, peer: IpAddr) -> Result<RelayPort, ErrorCode> {
        let allocation = self.tables.allocations.get(key);
        let port = allocation.and_then(|allocation| allocation.port(Family::of(peer)));
        port.ok_or(ErrorCode::PEER_FAMILY_MISMATCH)
    }

    /// 508 if permissions for these different peers would be too many.
    fn check_permission_room(&self, key: AllocationKey, peers: &[IpAddr]) -> Result<(), ErrorCode> {
        let is_new = |peer: &&IpAddr| !self.tables.permissions.allows(key, Host::from(**peer));
        let new = peers.iter().filter(is_new).count();
        let limits = &self.config.limits;
        let allocation = self.tables.allocations.get(key).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let of_user = self.tables.users.get(allocation.user).map_or(0, |user| user.permissions);
        let full = allocation.permissions + new > limits.permissions_per_allocation
            || of_user + new > limits.grants_per_user
            || self.tables.permissions.granted + new > limits.grants;
        if new > 0 && full { Err(ErrorCode::INSUFFICIENT_CAPACITY) } else { Ok(()) }
    }

    /// The answer to a Binding request: the client's address, or a complaint about its attributes.
    fn binding_reply(&self, client: Client, request: &Message<'_>) -> Reply {
        let envelope = Envelope::of(request);
        if let Some(writer) = self.complaint(request) {
            return envelope.finish(Some(ErrorCode::UNKNOWN_ATTRIBUTE), writer);
        }
        // RFC 8489, section 6.3.1.1.
        let writer = envelope.success().xor_address(AttributeKind::XOR_MAPPED_ADDRESS, client.address);
        envelope.finish(None, writer)
    }

    /// The 420 for a request with attributes that are not understood, which must list them (RFC 8489,
    /// section 6.3.1): two bytes for each that takes four of the request.
    pub(super) fn complaint(&self, request: &Message<'_>) -> Option<Writer> {
        let unknown: Vec<u8> =
            self.unknown_attributes(request).flat_map(|kind| kind.0.to_be_bytes()).collect();
        let writer = Envelope::of(request).error(ErrorCode::UNKNOWN_ATTRIBUTE);
        let writer = writer.attribute(AttributeKind::UNKNOWN_ATTRIBUTES, &unknown);
        (!unknown.is_empty()).then_some(writer)
    }

    /// Attributes that would have to be understood (RFC 8489, section 6.3).
    pub(super) fn unknown_attributes(&self, message: &Message<'_>) -> impl Iterator<Item = AttributeKind> {
        let knows_df = self.config.dont_fragment;
        let is_known = move |kind: &AttributeKind| {
            KNOWN.contains(kind) || knows_df && *kind == AttributeKind::DONT_FRAGMENT
        };
        let kinds = message.attributes().map(|attribute| attribute.kind);
        kinds.filter(move |kind| kind.is_required() && !is_known(kind))
    }
}

/// A number that may be left out; 400 if it is malformed.
pub(super) fn optional_number(request: &Message<'_>, kind: AttributeKind) -> Result<Option<u32>, ErrorCode> {
    match (request.find(kind), request.number(kind)) {
        (Some(_), None) => Err(ErrorCode::BAD_REQUEST),
        (_, number) => Ok(number),
    }
}

/// The family an attribute asks for; 440 if it is none.
pub(super) fn requested_family(
    request: &Message<'_>,
    kind: AttributeKind,
) -> Result<Option<Family>, ErrorCode> {
    let number = optional_number(request, kind)?;
    let family = number.map(|number| Family::from_code((number >> 24) as u8));
    match family {
        Some(None) => Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED),
        family => Ok(family.flatten()),
    }
}
