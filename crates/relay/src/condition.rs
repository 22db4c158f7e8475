//! Whether clients should be sent here, and why not: what `/readyz` says.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use adit_platform::service;
use adit_telemetry::Readiness;

use crate::probe::Outcome;

/// After so many failed probes in a row a relay that was ready is ready no more.
const FAILURES: u32 = 2;
/// How long after a probe the next one follows.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same while probes fail.
const RETRY: Duration = Duration::from_secs(1);

/// The relay's condition.
#[derive(Debug)]
pub(crate) struct Condition {
    readiness: Readiness,
    /// The portal hands this relay out, or there is none.
    is_accepted: Cell<bool>,
    is_draining: Cell<bool>,
    /// Probes that failed since the last one that did not; none succeeded yet: as many as it takes.
    failures: Cell<u32>,
    failure: RefCell<String>,
    was_ready: Cell<bool>,
}

impl Condition {
    /// Not ready.
    pub(crate) fn new(readiness: Readiness) -> Self {
        let condition = Self {
            readiness,
            is_accepted: Cell::new(false),
            is_draining: Cell::new(false),
            failures: Cell::new(FAILURES),
            failure: RefCell::new("starting".to_owned()),
            was_ready: Cell::new(false),
        };
        condition.publish();
        condition
    }

    /// The portal has accepted the relay, or none is needed.
    pub(crate) fn accept(&self) {
        self.is_accepted.set(true);
        self.publish();
    }

    /// The relay is about to stop.
    pub(crate) fn drain(&self) {
        self.is_draining.set(true);
        self.publish();
    }

    /// Notes a probe, and says when the next one is due.
    pub(crate) fn probed(&self, outcome: &Outcome) -> Duration {
        match outcome {
            Outcome::Works => self.failures.set(0),
            Outcome::Impossible(reason) => {
                if self.failures.replace(0) > 0 {
                    tracing::warn!(
                        reason,
                        "the relay cannot ask itself for an allocation, and is taken to work"
                    );
                }
            }
            Outcome::Fails(reason) => {
                self.failures.set(self.failures.get().saturating_add(1));
                *self.failure.borrow_mut() = format!("no allocation: {reason}");
                tracing::info!(reason, "the relay could not make an allocation for itself");
            }
        }
        self.publish();
        if self.failures.get() == 0 { INTERVAL } else { RETRY }
    }

    fn publish(&self) {
        let reason = if self.is_draining.get() {
            Some("draining".to_owned())
        } else if self.failures.get() >= FAILURES {
            Some(self.failure.borrow().clone())
        } else if !self.is_accepted.get() {
            Some("the portal has not accepted this relay yet".to_owned())
        } else {
            None
        };
        if reason.is_none() && !self.was_ready.replace(true) {
            service::notify_ready("Relaying");
        }
        match reason {
            None => self.readiness.set(true),
            Some(reason) => self.readiness.refuse(&reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_ready_when_accepted_and_able_and_not_leaving() {
        let readiness = Readiness::new();
        let condition = Condition::new(readiness.clone());
        let fails = Outcome::Fails("full".to_owned());
        condition.accept();
        assert!(!readiness.get(), "not before a probe");
        assert_eq!(condition.probed(&fails), RETRY);
        assert!(!readiness.get());
        assert_eq!(condition.probed(&Outcome::Works), INTERVAL);
        assert!(readiness.get());
        condition.probed(&fails);
        assert!(readiness.get(), "one failure may be bad luck");
        condition.probed(&fails);
        assert!(!readiness.get());
        condition.probed(&Outcome::Impossible("no loopback".to_owned()));
        assert!(readiness.get());
        condition.drain();
        assert!(!readiness.get());
        assert_eq!(readiness.reason(), "draining");
    }
}
