//! What responses, and the lack of them, mean.

use super::peers::REFRESH;
use super::requests::{Purpose, Request};
use super::{Client, Event, FailureReason, KEEPALIVE, Timer, Transport};
use crate::Family;
use crate::stun::{AttributeKind, Class, ErrorCode, IntegrityStatus, Message};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A purpose may be challenged this often in a row before it counts as refused.
const MAX_CHALLENGES: u8 = 3;
/// Used if the server names no lifetime (RFC 8656, section 3.2).
const DEFAULT_LIFETIME: u32 = 600;

impl Client {
    /// Matches a response to its request and acts on it.
    pub(super) fn handle_response(&mut self, now: Instant, from: SocketAddr, response: &Message<'_>) {
        let id = response.transaction();
        let Some(request) = self.requests.by_id.get_mut(&id) else {
            self.counters.unmatched_responses += 1;
            return;
        };
        if request.destination != from || request.purpose.method() != response.method() {
            self.counters.unmatched_responses += 1;
            return;
        }
        if !is_acceptable(request, response) {
            request.saw_wrong_integrity = true;
            self.counters.wrong_integrity += 1;
            return;
        }
        self.timers.clear(Timer::Retransmission(id));
        if let Some(server) = self.server_mut(Family::of(from.ip())) {
            server.asked = None;
        }
        let Some(request) = self.requests.by_id.remove(&id) else {
            return;
        };
        if request.transmissions == 1 {
            self.round_trip.sample(now.saturating_duration_since(request.sent_at));
        }
        match response.class() {
            Class::Success => self.handle_success(now, &request, response),
            _ => self.handle_error(now, &request, response),
        }
    }

    fn handle_success(&mut self, now: Instant, request: &Request, response: &Message<'_>) {
        match request.purpose {
            Purpose::Binding(family) => self.handle_binding_success(now, family, response),
            Purpose::Allocate => self.handle_allocate_success(now, response),
            Purpose::Refresh => self.note_refreshed(now, lifetime(response)),
            Purpose::Deallocate { then_allocate } => {
                if then_allocate {
                    self.begin_allocation(now);
                }
            }
            Purpose::ChannelBind { peer, number } => {
                if self.peers.mark_bound(now, peer, number) {
                    self.events.push_back(Event::ChannelBound { peer, number });
                }
                if self.peers.number_of(peer) == Some(number) {
                    self.timers.set(Timer::Channel(peer), now + REFRESH);
                }
            }
            Purpose::CreatePermission { peer } => {
                self.peers.mark_permitted(peer);
                if self.peers.wants_permission(peer) {
                    self.timers.set(Timer::Permission(peer), now + REFRESH);
                }
            }
        }
    }

    fn handle_binding_success(&mut self, now: Instant, family: Family, response: &Message<'_>) {
        self.timers.set(Timer::Keepalive(family), now + KEEPALIVE);
        let Some(address) = response.xor_address(AttributeKind::XOR_MAPPED_ADDRESS) else {
            return;
        };
        self.note_mapped_address(family, address);
        let known = self.allocation.mapped();
        if family == self.allocation.family() && known.is_some_and(|known| known != address) {
            self.lose_allocation(FailureReason::MappedAddressChanged);
            self.begin_allocation(now);
        }
    }

    fn handle_allocate_success(&mut self, now: Instant, response: &Message<'_>) {
        let relayed: Option<Vec<_>> = response.xor_addresses(AttributeKind::XOR_RELAYED_ADDRESS).collect();
        let mapped = response.xor_address(AttributeKind::XOR_MAPPED_ADDRESS);
        let (Some(mut relayed), Some(mapped)) = (relayed, mapped) else {
            self.fail_allocation(now, FailureReason::Malformed);
            return;
        };
        relayed.truncate(2);
        if relayed.is_empty() {
            self.fail_allocation(now, FailureReason::Malformed);
            return;
        }
        self.activate(now, relayed, mapped, lifetime(response));
    }

    fn handle_error(&mut self, now: Instant, request: &Request, response: &Message<'_>) {
        let code = response.error_code().unwrap_or(ErrorCode::SERVER_ERROR);
        if self.is_challenge(request, response, code) {
            match self.authentication.learn(response) {
                Ok(()) => self.send_request(now, request.purpose, request.challenges + 1),
                Err(reason) => self.handle_refusal(now, request.purpose, reason),
            }
            return;
        }
        match (request.purpose, code) {
            (Purpose::Allocate, ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)
                if self.allocation.narrow_families() =>
            {
                self.begin_allocation(now);
            }
            (Purpose::Allocate, ErrorCode::ALLOCATION_MISMATCH) if self.may_replace() => {
                self.replace_allocation(now, FailureReason::Rejected(code));
            }
            (purpose, code) => self.handle_refusal(now, purpose, FailureReason::Rejected(code)),
        }
    }

    /// True if the error asks for credentials or a fresh nonce, and it makes sense to go along.
    fn is_challenge(&self, request: &Request, response: &Message<'_>, code: ErrorCode) -> bool {
        if request.challenges >= MAX_CHALLENGES || matches!(request.purpose, Purpose::Binding(_)) {
            return false;
        }
        match code {
            ErrorCode::STALE_NONCE => true,
            // Credentials that were sent and refused do not get better by repetition, unless they
            // were meant for another realm.
            ErrorCode::UNAUTHENTICATED => {
                request.signature.is_none()
                    || response.text(AttributeKind::REALM) != self.authentication.realm()
            }
            _ => false,
        }
    }

    /// The server said no, and no means no.
    fn handle_refusal(&mut self, now: Instant, purpose: Purpose, reason: FailureReason) {
        let wrong_owner = FailureReason::Rejected(ErrorCode::WRONG_CREDENTIALS);
        match purpose {
            Purpose::Binding(family) => self.timers.set(Timer::Keepalive(family), now + KEEPALIVE),
            Purpose::Allocate => self.fail_allocation(now, reason),
            Purpose::Deallocate { then_allocate } => {
                if then_allocate {
                    self.begin_allocation(now);
                }
            }
            _ if reason == wrong_owner => self.replace_allocation(now, reason),
            Purpose::Refresh => self.restart_allocation(now, reason),
            _ if ends_allocation(reason) => self.restart_allocation(now, reason),
            Purpose::ChannelBind { peer, .. } => self.refuse_channel(now, peer, reason),
            Purpose::CreatePermission { peer } => self.refuse_permission(peer),
        }
    }

    /// The server did not answer.
    pub(super) fn handle_give_up(&mut self, now: Instant, purpose: Purpose, reason: FailureReason) {
        if self.transport == Transport::Stream {
            // What the connection lost it will not find again, and what follows is behind it.
            self.handle_disconnected();
            self.events.push_back(Event::Unresponsive);
            return;
        }
        match purpose {
            Purpose::Binding(family) => {
                self.timers.set(Timer::Keepalive(family), now + KEEPALIVE);
                if family == self.allocation.family() && self.allocation.is_active() {
                    self.restart_allocation(now, reason);
                }
            }
            Purpose::Allocate => self.fail_allocation(now, reason),
            Purpose::Deallocate { then_allocate } => {
                if then_allocate {
                    self.fail_allocation(now, reason);
                }
            }
            Purpose::Refresh | Purpose::ChannelBind { .. } | Purpose::CreatePermission { .. } => {
                self.restart_allocation(now, reason);
            }
        }
    }

    fn restart_allocation(&mut self, now: Instant, reason: FailureReason) {
        self.lose_allocation(reason);
        self.begin_allocation(now);
    }

    fn refuse_channel(&mut self, now: Instant, peer: SocketAddr, reason: FailureReason) {
        let out_of_step = FailureReason::Rejected(ErrorCode::BAD_REQUEST);
        if reason == out_of_step && self.peers.bound_channel(peer).is_some() {
            // The relay and we disagree about channels: start afresh (RFC 8656, section 12.3).
            self.replace_allocation(now, reason);
            return;
        }
        self.release_channel(peer);
        self.events.push_back(Event::ChannelFailed { peer });
    }

    fn refuse_permission(&mut self, peer: IpAddr) {
        self.release_permission(peer);
    }
}

/// A response to a signed request must be signed too. Exempt are the refusals that a server sends
/// before it knows the key (RFC 8489, section 9.2.4).
fn is_acceptable(request: &Request, response: &Message<'_>) -> bool {
    let Some(signature) = &request.signature else {
        return true;
    };
    match signature.check(response) {
        IntegrityStatus::Valid => true,
        IntegrityStatus::Invalid => false,
        IntegrityStatus::Absent => {
            let exempt = [ErrorCode::UNAUTHENTICATED, ErrorCode::STALE_NONCE];
            let code = response.error_code();
            response.class() == Class::Error && code.is_some_and(|code| exempt.contains(&code))
        }
    }
}

/// True for refusals that mean the relay does not have our allocation (any more).
fn ends_allocation(reason: FailureReason) -> bool {
    matches!(
        reason,
        FailureReason::Rejected(ErrorCode::ALLOCATION_MISMATCH | ErrorCode::UNAUTHENTICATED)
            | FailureReason::BidDown
            | FailureReason::Malformed
    )
}

fn lifetime(response: &Message<'_>) -> Duration {
    let seconds = response.number(AttributeKind::LIFETIME);
    Duration::from_secs(u64::from(seconds.unwrap_or(DEFAULT_LIFETIME)))
}
