//! Long-term credentials on the server's side (RFC 8489, section 9.2.4).
//!
//! One deviation in order: the nonce is checked before the integrity, because it is cheaper and a
//! spoofed address cannot have one.

use super::response::{Envelope, Reply};
use super::{Client, Server};
use crate::credentials::{self, Username};
use crate::stun::{AttributeKind, ErrorCode, IntegrityStatus, Key, Message, PasswordAlgorithm, Writer};
use rand::RngCore as _;
use std::time::{Duration, Instant};

/// The only algorithm offered; clients that know of none use the key of RFC 5389.
const OFFERED: [u8; 4] = [0, 2, 0, 0];

/// A request whose sender knows the password.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    /// Whom the credentials belong to, whatever their expiry.
    pub(super) user: String,
    /// When the credentials end.
    pub(super) expires_at: Instant,
    key: Key,
    sha256: bool,
}

impl Verified {
    /// Signs and ends a response.
    pub(super) fn reply(&self, envelope: &Envelope, error: Option<ErrorCode>, writer: Writer) -> Reply {
        envelope.finish(error, self.sign(writer))
    }

    /// A signed error response without further attributes.
    pub(super) fn refuse(&self, envelope: &Envelope, code: ErrorCode) -> Reply {
        self.reply(envelope, Some(code), envelope.error(code))
    }

    fn sign(&self, writer: Writer) -> Writer {
        if self.sha256 { writer.integrity_sha256(&self.key) } else { writer.integrity(&self.key) }
    }
}

impl Server {
    /// Checks who sent a request.
    ///
    /// # Errors
    ///
    /// The unsigned error response: 400, 401 or 438.
    pub(super) fn authenticate(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
    ) -> Result<Verified, Reply> {
        if !request.has_integrity() {
            return Err(self.challenge(now, client, request, ErrorCode::UNAUTHENTICATED));
        }
        let username = request.text(AttributeKind::USERNAME);
        let realm = request.text(AttributeKind::REALM);
        let nonce = request.find(AttributeKind::NONCE);
        let (Some(username), Some(realm), Some(nonce)) = (username, realm, nonce) else {
            return Err(bad_request(request));
        };
        let algorithm = chosen_algorithm(request).ok_or_else(|| bad_request(request))?;
        if !self.nonces.is_valid(now, client, nonce) {
            return Err(self.challenge(now, client, request, ErrorCode::STALE_NONCE));
        }
        let verified =
            (realm == self.config.realm).then(|| self.verify(now, request, username, algorithm)).flatten();
        verified.ok_or_else(|| self.challenge(now, client, request, ErrorCode::UNAUTHENTICATED))
    }

    /// Checks expiry and integrity under both secrets.
    fn verify(
        &self,
        now: Instant,
        request: &Message<'_>,
        username: &str,
        algorithm: Option<PasswordAlgorithm>,
    ) -> Option<Verified> {
        let parsed = Username::parse(username)?;
        let left = Duration::from_secs(parsed.expires_at).checked_sub(self.unix_time(now))?;
        if left.is_zero() {
            return None;
        }
        // Credentials of years would overflow an Instant somewhere; a day is refreshed anyway.
        let expires_at = now + left.min(Duration::from_secs(86_400));
        let user = if parsed.salt.is_empty() { username } else { parsed.salt };
        let secrets = [Some(&self.config.secret), self.config.previous_secret.as_ref()];
        let sha256 = request.has_integrity_sha256();
        secrets.into_iter().flatten().find_map(|secret| {
            let password = credentials::password(secret, username);
            let key = match algorithm {
                Some(PasswordAlgorithm::Sha256) => {
                    Key::long_term_sha256(username, &self.config.realm, &password)
                }
                Some(PasswordAlgorithm::Md5) | None => {
                    Key::long_term_md5(username, &self.config.realm, &password)
                }
            };
            let status =
                if sha256 { request.check_integrity_sha256(&key) } else { request.check_integrity(&key) };
            (status == IntegrityStatus::Valid).then(|| Verified {
                user: user.to_owned(),
                expires_at,
                key,
                sha256,
            })
        })
    }

    /// A 401 or 438 with realm, nonce and algorithms.
    fn challenge(&mut self, now: Instant, client: Client, request: &Message<'_>, code: ErrorCode) -> Reply {
        let random = &mut self.random;
        let nonce = self.nonces.issue(now, client, || (random.next_u64(), random.next_u64()));
        let envelope = Envelope::of(request);
        let writer = envelope
            .error(code)
            .attribute(AttributeKind::REALM, self.config.realm.as_bytes())
            .attribute(AttributeKind::NONCE, &nonce)
            .attribute(AttributeKind::PASSWORD_ALGORITHMS, &OFFERED);
        envelope.finish(Some(code), writer)
    }
}

/// An unsigned 400.
pub(super) fn bad_request(request: &Message<'_>) -> Reply {
    let (envelope, code) = (Envelope::of(request), ErrorCode::BAD_REQUEST);
    envelope.finish(Some(code), envelope.error(code))
}

/// The algorithm a request names, if any; `None` if somebody has tampered with the offer, or the
/// client chose what was not offered, or it signs SHA-1 where it was offered SHA-256.
fn chosen_algorithm(request: &Message<'_>) -> Option<Option<PasswordAlgorithm>> {
    let offered = request.find(AttributeKind::PASSWORD_ALGORITHMS);
    let chosen = request.find(AttributeKind::PASSWORD_ALGORITHM);
    match (offered, chosen) {
        (None, None) => Some(None),
        (Some(offered), Some(chosen)) => {
            let intact = offered == OFFERED && chosen == OFFERED && request.has_integrity_sha256();
            intact.then_some(Some(PasswordAlgorithm::Sha256))
        }
        _ => None,
    }
}
