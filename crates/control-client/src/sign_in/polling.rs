//! When to ask for a token again, and when not any more.

use std::time::{Duration, Instant};

use adit_protocol::sign_in::{DeviceCode, SignInError};

use super::ExchangeError;

/// Pauses between two questions, whatever the portal wishes.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// RFC 8628, section 3.5: what `slow_down` adds, for this and all further questions.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// How long the code of a browser is offered to a portal that cannot be reached.
const CODE_PATIENCE: Duration = Duration::from_secs(60);

/// Paces the questions after one code.
#[derive(Debug)]
pub struct Polling {
    interval: Duration,
    next: Instant,
    ends: Instant,
    /// Questions in a row that did not get through.
    lost: u32,
    is_once: bool,
}

impl Polling {
    /// After a device code (RFC 8628, section 3.5): first in an interval, until the code ends.
    pub fn for_device_code(now: Instant, code: &DeviceCode) -> Self {
        let interval = Duration::from_secs(code.interval).clamp(SHORTEST, LONGEST);
        let ends = now + Duration::from_secs(code.expires_in);
        Self { interval, next: now + interval, ends, lost: 0, is_once: false }
    }

    /// After an authorization code: at once, and again only as long as the portal was not asked.
    ///
    /// RFC 6749, section 4.1.2: a code that comes twice was stolen, and what it gave is revoked. With a token that
    /// was renewed this would be the one that everything rests on.
    pub fn for_code(now: Instant) -> Self {
        Self { interval: SHORTEST, next: now, ends: now + CODE_PATIENCE, lost: 0, is_once: true }
    }

    /// When to ask next.
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Takes the failure of a question that was answered, or given up, at `now`.
    ///
    /// # Errors
    ///
    /// The failure, if asking again is of no use; [`SignInError::ExpiredToken`] if there is no time left.
    pub fn handle_failure(&mut self, now: Instant, error: ExchangeError) -> Result<(), ExchangeError> {
        match &error {
            ExchangeError::Refused { error: SignInError::AuthorizationPending, .. } => self.lost = 0,
            ExchangeError::Refused { error: SignInError::SlowDown, .. } => {
                self.lost = 0;
                self.interval = (self.interval + SLOW_DOWN).min(LONGEST);
            }
            ExchangeError::Lost(_) if self.is_once => return Err(error),
            // RFC 8628, section 3.5: back off exponentially.
            ExchangeError::Unreachable(_) | ExchangeError::Lost(_) => self.lost = (self.lost + 1).min(8),
            ExchangeError::Refused { .. } | ExchangeError::Malformed(_) => return Err(error),
        }
        self.next = now + (self.interval * (1 << self.lost)).min(LONGEST);
        if self.next <= self.ends {
            return Ok(());
        }
        match error {
            ExchangeError::Unreachable(_) | ExchangeError::Lost(_) => Err(error),
            _ => Err(ExchangeError::Refused { error: SignInError::ExpiredToken, description: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(interval: u64, expires_in: u64) -> DeviceCode {
        DeviceCode {
            device_code: "secret".to_owned(),
            user_code: "BCDF-GHJK".to_owned(),
            verification_uri: String::new(),
            verification_uri_complete: None,
            expires_in,
            interval,
        }
    }

    fn refused(error: SignInError) -> ExchangeError {
        ExchangeError::Refused { error, description: None }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_portal_sets_the_pace_within_bounds() {
        let now = Instant::now();
        let mut polling = Polling::for_device_code(now, &code(5, 600));
        assert_eq!(polling.next(), now + 5 * SECOND);
        polling.handle_failure(now, refused(SignInError::AuthorizationPending)).unwrap();
        assert_eq!(polling.next(), now + 5 * SECOND);
        polling.handle_failure(now, refused(SignInError::SlowDown)).unwrap();
        polling.handle_failure(now, refused(SignInError::AuthorizationPending)).unwrap();
        assert_eq!(polling.next(), now + 10 * SECOND, "for all further questions");
        assert_eq!(Polling::for_device_code(now, &code(0, 600)).next(), now + SHORTEST);
        assert_eq!(Polling::for_device_code(now, &code(u64::MAX, 600)).next(), now + LONGEST);
    }

    #[test]
    fn a_portal_that_cannot_be_reached_is_asked_ever_less() {
        let now = Instant::now();
        let mut polling = Polling::for_device_code(now, &code(5, 3600));
        let mut pauses = Vec::new();
        for _ in 0..5 {
            polling.handle_failure(now, ExchangeError::Unreachable(String::new())).unwrap();
            pauses.push((polling.next() - now).as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 60, 60]);
        polling.handle_failure(now, refused(SignInError::AuthorizationPending)).unwrap();
        assert_eq!(polling.next(), now + 5 * SECOND, "it is back");
    }

    #[test]
    fn nothing_is_asked_after_the_end() {
        let now = Instant::now();
        let mut polling = Polling::for_device_code(now, &code(5, 600));
        let late = now + 596 * SECOND;
        let over = polling.handle_failure(late, refused(SignInError::AuthorizationPending));
        assert_eq!(over, Err(refused(SignInError::ExpiredToken)));
        let unreachable = ExchangeError::Unreachable("no route".to_owned());
        let mut polling = Polling::for_code(now);
        assert_eq!(polling.next(), now);
        assert_eq!(polling.handle_failure(now + 59 * SECOND, unreachable.clone()), Err(unreachable));
    }

    #[test]
    fn a_code_that_may_have_arrived_is_not_sent_again() {
        let now = Instant::now();
        let lost = ExchangeError::Lost("reset".to_owned());
        assert_eq!(Polling::for_code(now).handle_failure(now, lost.clone()), Err(lost.clone()));
        assert_eq!(Polling::for_device_code(now, &code(5, 600)).handle_failure(now, lost), Ok(()));
        let unreachable = ExchangeError::Unreachable("no route".to_owned());
        assert_eq!(Polling::for_code(now).handle_failure(now, unreachable), Ok(()));
    }

    #[test]
    fn a_no_is_final() {
        let now = Instant::now();
        for error in [SignInError::AccessDenied, SignInError::ExpiredToken, SignInError::InvalidGrant] {
            let mut polling = Polling::for_device_code(now, &code(5, 600));
            assert_eq!(polling.handle_failure(now, refused(error)), Err(refused(error)));
        }
    }
}
