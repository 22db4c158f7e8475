//! Passwords, by Argon2id (RFC 9106) with 19 MiB and two passes.
//!
//! A check takes the same work whether there is such a user or not, away from the threads that
//! serve, and only a few run at a time: guessing must not take the portal's memory or processor.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

/// Checks at the same time: 19 MiB each.
const AT_ONCE: usize = 2;

/// How long a check waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The shortest password that may be chosen, in characters.
pub(crate) const SHORTEST: usize = 12;

/// The longest password that is looked at, in bytes.
pub(crate) const LONGEST: usize = 1024;

/// The portal is too busy to check passwords.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("too many passwords are checked at this moment")]
pub(crate) struct Busy;

/// Hashes and checks passwords.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
}

impl Passwords {
    /// Nothing is being checked.
    pub(crate) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The hash under which a password is stored.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Busy> {
        self.run(move || hash(&password)).await?.ok_or(Busy)
    }

    /// Whether it is the password of this hash. Without a hash it is not, and that takes as long.
    pub(crate) async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, Busy> {
        self.run(move || verify(&password, stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let slot = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.slots).acquire_owned());
        let slot = slot.await.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            work()
        });
        work.await.map_err(|_| Busy)
    }
}

fn hash(password: &str) -> Option<String> {
    Argon2::default().hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}

fn verify(password: &str, stored: Option<&str>) -> bool {
    /// Of a password that nobody knows.
    static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
        let random = crate::credential::random_bytes().ok()?;
        hash(&random.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    });
    let Some(text) = stored.or(NOBODY.as_deref()) else { return false };
    let Ok(parsed) = PasswordHash::new(text) else {
        tracing::error!("a stored password hash cannot be read");
        return false;
    };
    let is_right = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
    is_right && stored.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_verified_under_its_own_hash_only() {
        let stored = hash("correct horse battery").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(Some(&stored), hash("correct horse battery").as_ref(), "salted");
        assert!(verify("correct horse battery", Some(&stored)));
        assert!(!verify("correct horse batterY", Some(&stored)));
        assert!(!verify("correct horse battery", Some("damaged")));
        assert!(!verify("", None) && !verify("correct horse battery", None));
    }
}
