//! Refresh requests (RFC 8656, section 8.2), and how long allocations live.

use super::allocations::AllocationKey;
use super::authentication::Verified;
use super::requests::{optional_number, requested_family};
use super::response::Envelope;
use super::{EndReason, Server};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Message, Writer};
use std::time::{Duration, Instant};

/// Lifetime unless the client asks for more (RFC 8656, section 3.2).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// Most that a client gets (RFC 8656, section 7.2: no more than an hour is recommended).
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

impl Server {
    pub(super) fn handle_refresh(
        &mut self,
        now: Instant,
        key: AllocationKey,
        request: &Message<'_>,
        verified: &Verified,
    ) -> Result<Writer, ErrorCode> {
        // RFC 8656, section 8.2: a family that the allocation does not have must draw a 443.
        let family = match requested_family(request, AttributeKind::REQUESTED_ADDRESS_FAMILY) {
            Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED) => return Err(ErrorCode::PEER_FAMILY_MISMATCH),
            family => family?,
        };
        let wanted = optional_number(request, AttributeKind::LIFETIME)?;
        let held = self.tables.allocations.get(key).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if family.is_some_and(|family| held.port(family).is_none()) {
            return Err(ErrorCode::PEER_FAMILY_MISMATCH);
        }
        let lifetime = match wanted {
            Some(0) => Duration::ZERO,
            _ => lifetime(now, wanted, verified),
        };
        if lifetime.is_zero() {
            self.give_back(now, key, family);
        } else {
            // Section 8.1: of a dual allocation, the family that is named, else both.
            self.tables.set_lifetime(key, family, now + lifetime);
        }
        let writer = Envelope::of(request).success();
        Ok(writer.number(AttributeKind::LIFETIME, lifetime.as_secs() as u32))
    }

    /// Ends an allocation, or the half of a dual one that the client named.
    fn give_back(&mut self, now: Instant, key: AllocationKey, family: Option<Family>) {
        let ports = self.tables.allocations.get(key).map_or(0, |allocation| allocation.ports().count());
        match family {
            Some(family) if ports > 1 => self.release_half(key, family),
            _ => self.end_allocation(now, key, EndReason::Released),
        }
    }
}

/// What the client asks for within bounds (RFC 8656, sections 7.2 and 8.2), and never beyond the end of
/// its credentials.
pub(super) fn lifetime(now: Instant, wanted: Option<u32>, verified: &Verified) -> Duration {
    let wanted = Duration::from_secs(wanted.unwrap_or(0).into());
    let left = verified.expires_at.saturating_duration_since(now);
    // At least a second: zero would say that the allocation is deleted.
    let lifetime = wanted.clamp(DEFAULT_LIFETIME, MAX_LIFETIME).min(left);
    Duration::from_secs(lifetime.as_secs().max(1))
}
