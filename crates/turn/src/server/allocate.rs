//! Allocate requests (RFC 8656, section 7.2).
//!
//! An allocation is made in two steps, because only the caller can open sockets: ports are drawn and
//! [`Command::BindPort`] goes out; when every port is bound or given up, the client gets its answer.

use super::allocations::{Allocation, AllocationKey};
use super::authentication::Verified;
use super::requests::{lifetime, requested_family};
use super::response::{Envelope, Reply};
use super::{Client, Command, Event, RelayPort, Server, Timer};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Message, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// UDP, as the first byte of REQUESTED-TRANSPORT.
const UDP: u32 = 17;
/// So many ports are tried per family before the client is told that there is none.
const MAX_ATTEMPTS: u8 = 8;

/// An allocation whose ports are being bound.
#[derive(Debug)]
pub(super) struct Pending {
    envelope: Envelope,
    verified: Verified,
    lifetime: Duration,
    /// Ports waiting for the caller, and how many were tried before.
    waiting: BTreeMap<RelayPort, u8>,
    /// Families that were asked for and cannot be had.
    refused: Vec<(Family, ErrorCode)>,
    even: bool,
}

/// What a client asks for.
#[derive(Debug)]
struct Wanted {
    families: Vec<Family>,
    /// Relayed ports must be even.
    even: bool,
}

impl Pending {
    /// The ports that the caller may have bound already.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = RelayPort> {
        self.waiting.into_keys()
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
        let key = self.allocations.key_of(client);
        if let Some(existing) = key.and_then(|key| self.allocations.get(key)) {
            let repeated = existing.request == request.transaction() && existing.user == verified.user;
            if !repeated {
                return Some(verified.refuse(&envelope, ErrorCode::ALLOCATION_MISMATCH));
            }
            // Without a response yet, the ports are still being bound and the answer will come.
            let datagram = existing.response.clone()?;
            return Some(Reply { error: None, datagram });
        }
        let begun = self
            .check_allocate(request, verified)
            .and_then(|wanted| self.begin_binding(now, client, request, verified, &wanted));
        begun.err().map(|code| verified.refuse(&envelope, code))
    }

    /// Refuses what can be refused without touching a port.
    fn check_allocate(&self, request: &Message<'_>, verified: &Verified) -> Result<Wanted, ErrorCode> {
        let transport = request.number(AttributeKind::REQUESTED_TRANSPORT);
        if transport.ok_or(ErrorCode::BAD_REQUEST)? >> 24 != UDP {
            return Err(ErrorCode::UNSUPPORTED_TRANSPORT);
        }
        let even = wants_even_port(request)?;
        let families = self.wanted_families(request)?;
        let limits = &self.config.limits;
        if self.allocations.of_user(&verified.user) >= limits.allocations_per_user {
            return Err(ErrorCode::ALLOCATION_QUOTA_REACHED);
        }
        if self.draining || self.allocations.len() >= limits.allocations {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        Ok(Wanted { families, even })
    }

    fn wanted_families(&self, request: &Message<'_>) -> Result<Vec<Family>, ErrorCode> {
        let requested = requested_family(request, AttributeKind::REQUESTED_ADDRESS_FAMILY)?;
        let additional = requested_family(request, AttributeKind::ADDITIONAL_ADDRESS_FAMILY)?;
        match (requested, additional) {
            (None, Some(Family::V6)) => Ok(vec![Family::V4, Family::V6]),
            (_, Some(_)) => Err(ErrorCode::BAD_REQUEST),
            (requested, None) => {
                let family = requested.unwrap_or(Family::V4);
                if self.ports.serves(family) {
                    Ok(vec![family])
                } else {
                    Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)
                }
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
        let lifetime = lifetime(now, request.number(AttributeKind::LIFETIME), verified);
        let key = self.allocations.insert(Allocation {
            client,
            user: verified.user.clone(),
            ports: Vec::new(),
            channels: BTreeMap::new(),
            permissions: BTreeSet::new(),
            routes: BTreeMap::new(),
            request: request.transaction(),
            response: None,
        });
        let mut pending = Pending {
            envelope: Envelope::of(request),
            verified: verified.clone(),
            lifetime,
            waiting: BTreeMap::new(),
            refused: Vec::new(),
            even: wanted.even,
        };
        for &family in &wanted.families {
            self.draw_port(key, family, 0, &mut pending);
        }
        if pending.waiting.is_empty() {
            self.allocations.remove(key);
            return Err(pending.refusal());
        }
        self.timers.set(Timer::Allocation(key), now + lifetime);
        self.pending.insert(key, pending);
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
            pending.waiting.insert(port, tried);
            self.commands.push_back(Command::BindPort { port });
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
    pub(super) fn finish_port(&mut self, port: RelayPort, bound: bool) {
        let holder = self.ports.holder(port);
        let pending = holder.and_then(|key| Some((key, self.pending.remove(&key)?)));
        let Some((key, mut pending)) = pending else {
            return; // it was released meanwhile, and the command to close it is out
        };
        let Some(tried) = pending.waiting.remove(&port) else {
            self.pending.insert(key, pending);
            return;
        };
        if bound {
            if let Some(allocation) = self.allocations.get_mut(key) {
                allocation.ports.push(port);
            }
        } else {
            // Another one first, so that it cannot be the same.
            self.draw_port(key, port.family, tried + 1, &mut pending);
            self.ports.release(port);
        }
        if pending.waiting.is_empty() {
            self.complete(key, &pending);
        } else {
            self.pending.insert(key, pending);
        }
    }

    /// All ports are settled: tells the client.
    fn complete(&mut self, key: AllocationKey, pending: &Pending) {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        allocation.ports.sort();
        let (client, ports) = (allocation.client, allocation.ports.clone());
        if ports.is_empty() {
            self.allocations.remove(key);
            self.timers.clear(Timer::Allocation(key));
            let reply = pending.verified.refuse(&pending.envelope, pending.refusal());
            self.respond(client, reply);
            return;
        }
        let writer = self.write_success(client, &ports, pending);
        let reply = pending.verified.reply(&pending.envelope, None, writer);
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.response = Some(reply.datagram.clone());
        }
        self.respond(client, reply);
        self.events.push_back(Event::AllocationCreated { client, ports });
    }

    fn write_success(&self, client: Client, ports: &[RelayPort], pending: &Pending) -> Writer {
        let mut writer = pending.envelope.success();
        for port in ports {
            if let Some(ip) = self.public_address(port.family) {
                let relayed = SocketAddr::new(ip, port.number);
                writer = writer.xor_address(AttributeKind::XOR_RELAYED_ADDRESS, relayed);
            }
        }
        for &(family, ErrorCode(code)) in &pending.refused {
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
