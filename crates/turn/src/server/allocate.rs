//! Allocate requests (RFC 8656, section 7.2).
//!
//! An allocation is made in two steps, because only the caller can open sockets: ports are drawn and
//! [`Command::BindPort`] goes out; when every port is bound or given up, the client gets its answer.

use super::allocations::AllocationKey;
use super::authentication::Verified;
use super::refresh::lifetime;
use super::requests::{optional_number, requested_family};
use super::response::{Envelope, Reply};
use super::wheel::TimerId;
use super::{Client, Command, EndReason, Event, RelayPort, Server, Timer};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Message, Writer};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// UDP, as the first byte of REQUESTED-TRANSPORT.
const UDP: u32 = 17;
/// So many ports are tried per family before the client is told that there is none.
const MAX_ATTEMPTS: u8 = 8;
/// A client waits no longer than 39.5 s for its answer (RFC 8489, section 6.2.1).
const BINDING_TIMEOUT: Duration = Duration::from_secs(40);

/// An allocation whose ports are being bound.
#[derive(Debug)]
pub(super) struct Pending {
    envelope: Envelope,
    verified: Verified,
    lifetime: Duration,
    /// Ports waiting for the caller, and how many were tried before.
    waiting: Vec<(RelayPort, u8)>,
    /// Families that were asked for and cannot be had.
    refused: Vec<(Family, ErrorCode)>,
    even: bool,
    /// Gives up; none once it has.
    pub(super) timer: Option<TimerId>,
}

/// What a client asks for.
#[derive(Debug)]
struct Wanted {
    families: Vec<Family>,
    /// Relayed ports must be even.
    even: bool,
    lifetime: Duration,
}

impl Pending {
    /// The ports that the caller may have bound already.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = RelayPort> {
        self.waiting.into_iter().map(|(port, _)| port)
    }

    /// How many ports the caller has not reported on.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Why there is no address at all. A family that is full may have room later, so that weighs
    /// more than one that is never served.
    fn refusal(&self) -> ErrorCode {
        let codes = self.refused.iter().map(|(_, code)| *code);
        codes.max().unwrap_or(ErrorCode::INSUFFICIENT_CAPACITY)
    }
}

impl Server {
    /// Answers at once, or starts binding ports and returns `None`.
    pub(super) fn handle_allocate(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Option<Reply> {
        let envelope = Envelope::of(request);
        let key = self.tables.allocations.find(client.into());
        if let Some(existing) = key.and_then(|key| self.tables.allocations.get(key)) {
            let is_owner = self.tables.users.is(existing.user, &verified.user);
            if existing.request != request.transaction() || !is_owner {
                return Some(verified.refuse(&envelope, ErrorCode::ALLOCATION_MISMATCH));
            }
            // Repeated. Without a response yet, ports are still being bound and the answer will come.
            let datagram = existing.response.as_ref()?.to_vec();
            return Some(Reply { error: None, datagram });
        }
        let wanted = self.check_allocate(now, client, request, verified);
        let begun = wanted.and_then(|wanted| self.begin_binding(now, client, request, verified, &wanted));
        begun.err().map(|code| verified.refuse(&envelope, code))
    }

    /// Refuses what can be refused without touching a port, in the order of RFC 8656, section 7.2.
    fn check_allocate(
        &self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Result<Wanted, ErrorCode> {
        // Point 3.
        let transport = request.number(AttributeKind::REQUESTED_TRANSPORT);
        if transport.ok_or(ErrorCode::BAD_REQUEST)? >> 24 != UDP {
            return Err(ErrorCode::UNSUPPORTED_TRANSPORT);
        }
        // Section 21.4: Teredo and 6to4 addresses must not be accepted.
        if self.peer_policy.is_tunnelled(client.address.ip()) {
            return Err(ErrorCode::FORBIDDEN);
        }
        let even = wants_even_port(request)?;
        let families = self.wanted_families(request)?;
        let lifetime = lifetime(now, optional_number(request, AttributeKind::LIFETIME)?, verified);
        if self.draining {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        Ok(Wanted { families, even, lifetime })
    }

    /// Points 6, 7 and 9 of RFC 8656, section 7.2.
    fn wanted_families(&self, request: &Message<'_>) -> Result<Vec<Family>, ErrorCode> {
        let additional = optional_number(request, AttributeKind::ADDITIONAL_ADDRESS_FAMILY)?;
        let additional = additional.map(|number| Family::from_code((number >> 24) as u8));
        let has_requested = request.find(AttributeKind::REQUESTED_ADDRESS_FAMILY).is_some();
        match additional {
            // Section 18.11: IPv6 is the only value that is valid, and it goes alone.
            Some(Some(Family::V6)) if !has_requested => Ok(vec![Family::V4, Family::V6]),
            Some(_) => Err(ErrorCode::BAD_REQUEST),
            None => {
                let requested = requested_family(request, AttributeKind::REQUESTED_ADDRESS_FAMILY)?;
                // Without a word about families it must be IPv4.
                let family = requested.unwrap_or(Family::V4);
                let is_served = self.ports.serves(family);
                if is_served { Ok(vec![family]) } else { Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED) }
            }
        }
    }

    /// Draws ports and asks the caller to bind them.
    fn begin_binding(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        verified: &Verified,
        wanted: &Wanted,
    ) -> Result<(), ErrorCode> {
        // Point 10: by user, not by address.
        let (user, id) = (&verified.user, request.transaction());
        let key = self.tables.allocate(now, client.into(), user, id, &self.config.limits)?;
        let mut pending = Pending {
            envelope: Envelope::of(request),
            verified: verified.clone(),
            lifetime: wanted.lifetime,
            waiting: Vec::new(),
            refused: Vec::new(),
            even: wanted.even,
            timer: None,
        };
        for &family in &wanted.families {
            self.draw_port(key, family, 0, &mut pending);
        }
        if pending.waiting.is_empty() {
            self.tables.remove(now, key);
            return Err(pending.refusal());
        }
        pending.timer = Some(self.tables.timers.set(Timer::Binding(key), now + BINDING_TIMEOUT));
        if let Some(allocation) = self.tables.allocations.get_mut(key) {
            allocation.secret = verified.secret;
            allocation.pending = Some(Box::new(pending));
        }
        Ok(())
    }

    /// Draws one port, or notes why there is none.
    fn draw_port(&mut self, key: AllocationKey, family: Family, tried: u8, pending: &mut Pending) {
        let drawn = if tried < MAX_ATTEMPTS {
            self.ports.take(&mut self.random, family, pending.even, key)
        } else {
            None
        };
        if let Some(port) = drawn {
            pending.waiting.push((port, tried));
            self.tables.commands.push_back(Command::BindPort { port });
            return;
        }
        let code = if self.ports.serves(family) {
            ErrorCode::INSUFFICIENT_CAPACITY
        } else {
            ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED
        };
        pending.refused.push((family, code));
    }

    /// The caller has bound a port, or could not.
    pub(super) fn finish_port(&mut self, now: Instant, port: RelayPort, bound: bool) {
        // If the port was released meanwhile, the command to close it is out.
        let Some(key) = self.ports.holder(port) else { return };
        let allocation = self.tables.allocations.get_mut(key);
        let Some(mut pending) = allocation.and_then(|allocation| allocation.pending.take()) else { return };
        if let Some(index) = pending.waiting.iter().position(|(waiting, _)| *waiting == port) {
            let (_, tried) = pending.waiting.swap_remove(index);
            if bound {
                self.tables.add_port(key, port);
            } else {
                // Another one first, so that it cannot be the same.
                self.draw_port(key, port.family, tried + 1, &mut pending);
                self.ports.release(port);
            }
        }
        if pending.waiting.is_empty() {
            self.complete(now, key, *pending);
        } else if let Some(allocation) = self.tables.allocations.get_mut(key) {
            allocation.pending = Some(pending);
        }
    }

    /// All ports are settled: tells the client.
    fn complete(&mut self, now: Instant, key: AllocationKey, pending: Pending) {
        if let Some(timer) = pending.timer {
            self.tables.timers.clear(timer);
        }
        let Some(allocation) = self.tables.allocations.get(key) else { return };
        let client = Client::from(allocation.client);
        let ports: Vec<RelayPort> = allocation.ports().collect();
        if ports.is_empty() {
            self.tables.remove(now, key);
            let reply = pending.verified.refuse(&pending.envelope, pending.refusal());
            return self.respond(client, reply);
        }
        self.tables.set_lifetime(key, None, now + pending.lifetime);
        let writer = self.write_success(client, &ports, &pending);
        let reply = pending.verified.reply(&pending.envelope, None, writer);
        if let Some(allocation) = self.tables.allocations.get_mut(key) {
            allocation.response = Some(reply.datagram.as_slice().into());
        }
        self.respond(client, reply);
        self.events.push_back(Event::AllocationCreated { client, ports });
    }

    /// The caller has not bound the ports, and the client waits no longer.
    pub(super) fn give_up_binding(&mut self, now: Instant, key: AllocationKey) {
        let allocation = self.tables.allocations.get_mut(key);
        if let Some(pending) = allocation.and_then(|allocation| allocation.pending.as_mut()) {
            pending.timer = None;
            self.end_allocation(now, key, EndReason::Expired);
        }
    }

    /// RFC 8656, section 7.2, at the end.
    fn write_success(&self, client: Client, ports: &[RelayPort], pending: &Pending) -> Writer {
        let mut writer = pending.envelope.success();
        for port in ports {
            if let Some(ip) = self.public_address(port.family) {
                let relayed = SocketAddr::new(ip, port.number);
                writer = writer.xor_address(AttributeKind::XOR_RELAYED_ADDRESS, relayed);
            }
        }
        for &(family, ErrorCode(code)) in &pending.refused {
            // Section 18.12: the reserved bits must be zero.
            let value = [family.code(), 0, (code / 100) as u8, (code % 100) as u8];
            writer = writer.attribute(AttributeKind::ADDRESS_ERROR_CODE, &value);
        }
        writer
            .number(AttributeKind::LIFETIME, pending.lifetime.as_secs() as u32)
            .xor_address(AttributeKind::XOR_MAPPED_ADDRESS, client.address)
    }

    fn public_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.config.public_v4.map(IpAddr::V4),
            Family::V6 => self.config.public_v6.map(IpAddr::V6),
        }
    }
}

/// Reads EVEN-PORT and RESERVATION-TOKEN (RFC 8656, section 7.2, points 5 and 8). Even ports are
/// easy; no port is ever reserved, so there is neither room for one nor a token that is valid.
fn wants_even_port(request: &Message<'_>) -> Result<bool, ErrorCode> {
    let even = request.find(AttributeKind::EVEN_PORT);
    let dual = request.find(AttributeKind::ADDITIONAL_ADDRESS_FAMILY).is_some();
    let one = request.find(AttributeKind::REQUESTED_ADDRESS_FAMILY).is_some();
    if request.find(AttributeKind::RESERVATION_TOKEN).is_some() {
        let contradicts = even.is_some() || dual || one;
        return Err(if contradicts { ErrorCode::BAD_REQUEST } else { ErrorCode::INSUFFICIENT_CAPACITY });
    }
    match even {
        None => Ok(false),
        Some([flags]) if flags & 0x80 == 0 => Ok(true),
        Some([_]) if !dual => Err(ErrorCode::INSUFFICIENT_CAPACITY),
        Some(_) => Err(ErrorCode::BAD_REQUEST),
    }
}
