//! Handshaking: a pair works, and the session is still to come.
//!
//! The client's WireGuard machine repeats its initiation by itself; the gateway can only wait.
//! Both give up after the time that WireGuard allows for an attempt.

use std::time::Instant;

use adit_wireguard::REKEY_ATTEMPT_TIME;

/// A pair answered; no session yet.
#[derive(Debug)]
pub(super) struct Handshaking {
    until: Instant,
}

impl Handshaking {
    pub(super) fn enter(now: Instant) -> Self {
        Self { until: now + REKEY_ATTEMPT_TIME }
    }

    /// When WireGuard has failed.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}
