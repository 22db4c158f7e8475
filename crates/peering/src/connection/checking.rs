//! Checking: no pair has answered yet.
//!
//! Checks go out at their pace and, at a client, copies of the first initiation with them. The
//! first answer of either kind ends the phase.

use std::time::{Duration, Instant};

/// Without any answer for so long, the peers cannot reach each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No pair has answered yet.
#[derive(Debug)]
pub(super) struct Checking {
    until: Instant,
}

impl Checking {
    pub(super) fn enter(now: Instant) -> Self {
        Self { until: now + CONNECT_TIMEOUT }
    }

    /// When ICE has failed.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}
