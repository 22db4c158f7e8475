//! Requests: Binding, Refresh, CreatePermission, ChannelBind.

use super::allocations::{AllocationKey, PeerRoute};
use super::authentication::{Verified, bad_request};
use super::peer_policy::Verdict;
use super::response::{Envelope, Reply};
use super::{Client, DropReason, EndReason, RelayPort, Server, Timer};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Message, Method, Writer};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Lifetime unless the client asks for more (RFC 8656, section 3.2).
pub(super) const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// Most that a client gets (RFC 8656, section 7.2).
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(3600);
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Required attributes that requests may carry; all others draw a 420.
const KNOWN: [AttributeKind; 15] = [
    AttributeKind::MAPPED_ADDRESS,
    AttributeKind::USERNAME,
    AttributeKind::ERROR_CODE,
    AttributeKind::CHANNEL_NUMBER,
    AttributeKind::LIFETIME,
    AttributeKind::XOR_PEER_ADDRESS,
    AttributeKind::DATA,
    AttributeKind::REALM,
    AttributeKind::NONCE,
    AttributeKind::REQUESTED_ADDRESS_FAMILY,
    AttributeKind::EVEN_PORT,
    AttributeKind::REQUESTED_TRANSPORT,
    AttributeKind::RESERVATION_TOKEN,
    AttributeKind::PASSWORD_ALGORITHM,
    AttributeKind::XOR_MAPPED_ADDRESS,
];

impl Server {
    /// Answers a request of any method.
    pub(super) fn handle_request(&mut self, now: Instant, client: Client, request: &Message<'_>) {
        let method = request.method();
        let known = [
            Method::BINDING,
            Method::ALLOCATE,
            Method::REFRESH,
            Method::CREATE_PERMISSION,
            Method::CHANNEL_BIND,
        ];
        if !known.contains(&method) {
            self.drop::<()>(DropReason::Unexpected);
            return;
        }
        if method == Method::BINDING {
            return self.respond_unauthenticated(now, client, binding_reply(client, request));
        }
        // Without transport an Allocate is wrong whoever sends it, and this answer is shorter than a
        // challenge.
        let hopeless = method == Method::ALLOCATE
            && !request.has_integrity()
            && request.number(AttributeKind::REQUESTED_TRANSPORT).is_none();
        if hopeless {
            return self.respond_unauthenticated(now, client, bad_request(request));
        }
        let verified = match self.authenticate(now, client, request) {
            Ok(verified) => verified,
            Err(reply) => return self.respond_unauthenticated(now, client, reply),
        };
        if let Some(reply) = self.handle_verified(now, client, request, &verified) {
            self.respond(client, reply);
        }
    }

    fn respond_unauthenticated(&mut self, now: Instant, client: Client, reply: Reply) {
        if self.budget.take(now, client.address.ip()) {
            self.respond(client, reply);
        } else {
            self.drop::<()>(DropReason::OverBudget);
        }
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
        let unknown = unknown_attributes(request);
        if !unknown.is_empty() {
            let code = ErrorCode::UNKNOWN_ATTRIBUTE;
            let writer = envelope.error(code).attribute(AttributeKind::UNKNOWN_ATTRIBUTES, &unknown);
            return Some(verified.reply(&envelope, Some(code), writer));
        }
        if request.method() == Method::ALLOCATE {
            return self.handle_allocate(now, client, request, verified);
        }
        if let Some(reply) = self.recent.find(now, client, request.transaction()) {
            return Some(reply);
        }
        let result = self.owned_allocation(client, verified).and_then(|key| match request.method() {
            Method::REFRESH => self.handle_refresh(now, key, request, verified),
            Method::CREATE_PERMISSION => self.handle_create_permission(now, key, request),
            _ => self.handle_channel_bind(now, key, request),
        });
        Some(match result {
            Ok(writer) => {
                let reply = verified.reply(&envelope, None, writer);
                if self.allocations.key_of(client).is_none() {
                    self.recent.remember(now, client, request.transaction(), &reply);
                }
                reply
            }
            Err(code) => verified.refuse(&envelope, code),
        })
    }

    /// The client's allocation, if it is the user's (RFC 8656, section 5).
    fn owned_allocation(&self, client: Client, verified: &Verified) -> Result<AllocationKey, ErrorCode> {
        let key = self.allocations.key_of(client);
        let allocation = key.and_then(|key| self.allocations.get(key));
        match (key, allocation) {
            (Some(key), Some(allocation)) if allocation.response.is_some() => {
                if allocation.user == verified.user { Ok(key) } else { Err(ErrorCode::WRONG_CREDENTIALS) }
            }
            _ => Err(ErrorCode::ALLOCATION_MISMATCH),
        }
    }

    /// RFC 8656, section 8.2.
    fn handle_refresh(
        &mut self,
        now: Instant,
        key: AllocationKey,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Result<Writer, ErrorCode> {
        let family = requested_family(request, AttributeKind::REQUESTED_ADDRESS_FAMILY)?;
        let allocation = self.allocations.get(key);
        if family.is_some_and(|family| allocation.is_none_or(|held| held.port(family).is_none())) {
            return Err(ErrorCode::PEER_FAMILY_MISMATCH);
        }
        let wanted = request.number(AttributeKind::LIFETIME);
        let lifetime = match wanted {
            Some(0) => Duration::ZERO,
            _ => lifetime(now, wanted, verified),
        };
        let writer =
            Envelope::of(request).success().number(AttributeKind::LIFETIME, lifetime.as_secs() as u32);
        if lifetime.is_zero() {
            self.release(key, family);
            return Ok(writer);
        }
        self.timers.set(Timer::Allocation(key), now + lifetime);
        Ok(writer)
    }

    /// Ends an allocation, or the half of a dual one that the client named.
    fn release(&mut self, key: AllocationKey, family: Option<Family>) {
        let Some(allocation) = self.allocations.get(key) else {
            return;
        };
        match family {
            Some(family) if allocation.ports.len() > 1 => self.release_family(key, family),
            _ => self.end_allocation(key, EndReason::Released),
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
        let peers = peers.filter(|peers| !peers.is_empty());
        let peers = peers.ok_or(ErrorCode::BAD_REQUEST)?;
        for peer in &peers {
            self.check_family(key, peer.ip())?;
            if !self.peer_policy.permits_address(peer.ip()) {
                return Err(ErrorCode::FORBIDDEN);
            }
        }
        self.check_permission_room(key, peers.iter().map(SocketAddr::ip))?;
        for peer in peers {
            self.permit(now, key, peer.ip());
        }
        Ok(Envelope::of(request).success())
    }

    /// RFC 8656, section 12.2.
    fn handle_channel_bind(
        &mut self,
        now: Instant,
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
        let only_if_lent = match self.peer_policy.judge(peer) {
            Verdict::Allowed => None,
            Verdict::OnlyIfLent(port) => Some(port),
            Verdict::Denied => return Err(ErrorCode::FORBIDDEN),
        };
        self.check_channel(key, number, port, peer)?;
        self.check_permission_room(key, [peer.ip()])?;
        let route = PeerRoute { port, peer, only_if_lent };
        self.allocations.add_channel(key, number, route);
        self.timers.set(Timer::Channel(key, number), now + CHANNEL_LIFETIME);
        self.permit(now, key, peer.ip());
        self.raise_route(key, number);
        Ok(Envelope::of(request).success())
    }

    /// Number and peer must both be free, or bound to each other; and there must be room.
    fn check_channel(
        &self,
        key: AllocationKey,
        number: u16,
        port: RelayPort,
        peer: SocketAddr,
    ) -> Result<(), ErrorCode> {
        let allocation = self.allocations.get(key);
        let channels = &allocation.ok_or(ErrorCode::ALLOCATION_MISMATCH)?.channels;
        let bound_peer = channels.get(&number).copied();
        let bound_number = self.allocations.channel_of(port, peer);
        match (bound_peer, bound_number) {
            (Some(bound), Some(_)) if bound == peer => return Ok(()),
            (None, None) => {}
            _ => return Err(ErrorCode::BAD_REQUEST),
        }
        let limits = &self.config.limits;
        let full =
            channels.len() >= limits.channels_per_allocation || self.allocations.channels() >= limits.grants;
        if full {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        Ok(())
    }

    fn permit(&mut self, now: Instant, key: AllocationKey, peer: IpAddr) {
        if !self.allocations.has_permission(key, peer) {
            self.allocations.add_permission(key, peer);
            self.raise_routes_to(key, peer);
        }
        self.timers.set(Timer::Permission(key, peer), now + PERMISSION_LIFETIME);
    }

    /// The allocation's port of the peer's family; 443 if it has none.
    fn check_family(&self, key: AllocationKey, peer: IpAddr) -> Result<RelayPort, ErrorCode> {
        let allocation = self.allocations.get(key);
        let port = allocation.and_then(|allocation| allocation.port(Family::of(peer)));
        port.ok_or(ErrorCode::PEER_FAMILY_MISMATCH)
    }

    /// 508 if these permissions would be too many.
    fn check_permission_room(
        &self,
        key: AllocationKey,
        peers: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), ErrorCode> {
        let new = peers.into_iter().filter(|&peer| !self.allocations.has_permission(key, peer)).count();
        let held = self.allocations.get(key);
        let held = held.map_or(0, |allocation| allocation.permissions.len());
        let limits = &self.config.limits;
        if new > 0
            && (held + new > limits.permissions_per_allocation
                || self.allocations.permissions() + new > limits.grants)
        {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        Ok(())
    }
}

/// The answer to a Binding request: the client's address, or a complaint about its attributes.
fn binding_reply(client: Client, request: &Message<'_>) -> Reply {
    let envelope = Envelope::of(request);
    let unknown = unknown_attributes(request);
    if unknown.is_empty() {
        let writer = envelope.success();
        let writer = writer.xor_address(AttributeKind::XOR_MAPPED_ADDRESS, client.address);
        return envelope.finish(None, writer);
    }
    let code = ErrorCode::UNKNOWN_ATTRIBUTE;
    let writer = envelope.error(code).attribute(AttributeKind::UNKNOWN_ATTRIBUTES, &unknown);
    envelope.finish(Some(code), writer)
}

/// The value of UNKNOWN-ATTRIBUTES for a request: at most eight, so that the answer stays small.
fn unknown_attributes(request: &Message<'_>) -> Vec<u8> {
    request
        .attributes()
        .map(|attribute| attribute.kind)
        .filter(|kind| kind.is_required() && !KNOWN.contains(kind))
        .take(8)
        .flat_map(|kind| kind.0.to_be_bytes())
        .collect()
}

/// The family an attribute asks for; 440 if it is none.
pub(super) fn requested_family(
    request: &Message<'_>,
    kind: AttributeKind,
) -> Result<Option<Family>, ErrorCode> {
    let Some(value) = request.find(kind) else {
        return Ok(None);
    };
    let [code, ..] = <[u8; 4]>::try_from(value).map_err(|_| ErrorCode::BAD_REQUEST)?;
    let family = Family::from_code(code).ok_or(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)?;
    Ok(Some(family))
}

/// What the client asks for within bounds, and never beyond the end of its credentials.
pub(super) fn lifetime(now: Instant, wanted: Option<u32>, verified: &Verified) -> Duration {
    let wanted = Duration::from_secs(wanted.unwrap_or(0).into());
    let left = verified.expires_at.saturating_duration_since(now);
    // At least a second: zero would say that the allocation is deleted.
    let lifetime = wanted.clamp(DEFAULT_LIFETIME, MAX_LIFETIME).min(left);
    Duration::from_secs(lifetime.as_secs().max(1))
}
