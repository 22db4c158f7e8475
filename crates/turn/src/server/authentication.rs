//! Long-term credentials on the server's side (RFC 8489, section 9.2.4).
//!
//! One deviation in order: the nonce is checked before the integrity, because it is cheaper and a
//! spoofed address cannot have one.

use super::response::{Envelope, Reply};
use super::{Client, Server, nonce};
use crate::credentials::{self, Username};
use crate::stun::{
    AttributeKind, ErrorCode, IntegrityStatus, Key, Message, Method, PasswordAlgorithm, Writer,
};
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
    /// Which secret they were made with.
    pub(super) secret: u32,
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
    /// Checks who sent a request (RFC 8489, section 9.2.4).
    ///
    /// # Errors
    ///
    /// What [`reject`](Self::reject) must answer: 400, 401, 420, 437 or 438.
    pub(super) fn authenticate(
        &self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
    ) -> Result<Verified, ErrorCode> {
        if !request.has_integrity() {
            return Err(self.judge_stranger(client, request));
        }
        let username = request.text(AttributeKind::USERNAME);
        let realm = request.text(AttributeKind::REALM);
        let nonce = request.find(AttributeKind::NONCE);
        let (Some(username), Some(realm), Some(nonce)) = (username, realm, nonce) else {
            // It must be a 400. If the user name is hashed, a 420 tells more: passwords follow from names
            // here, so a hash is of no use, as the nonce says by a bit that is not set.
            let is_hashed = request.find(AttributeKind::USERHASH).is_some();
            return Err(if is_hashed { ErrorCode::UNKNOWN_ATTRIBUTE } else { ErrorCode::BAD_REQUEST });
        };
        // Our nonces have the bit "password algorithms", so these rules hold; other nonces are stale.
        let is_ours = nonce.starts_with(nonce::COOKIE);
        let algorithm = if is_ours { chosen_algorithm(request) } else { Some(None) };
        let algorithm = algorithm.ok_or(ErrorCode::BAD_REQUEST)?;
        if !self.nonces.is_valid(now, client, nonce) {
            return Err(ErrorCode::STALE_NONCE);
        }
        let is_here = realm == self.config.realm;
        let verified = is_here.then(|| self.verify(now, request, username, algorithm)).flatten();
        verified.ok_or(ErrorCode::UNAUTHENTICATED)
    }

    /// Without integrity, it must be a 401; but where credentials could not help, there are shorter
    /// answers, so that small requests do not draw large replies.
    fn judge_stranger(&self, client: Client, request: &Message<'_>) -> ErrorCode {
        let has_transport = request.number(AttributeKind::REQUESTED_TRANSPORT).is_some();
        let is_allocate = request.method() == Method::ALLOCATE;
        if is_allocate && !has_transport {
            // RFC 8656, section 7.2, point 3.
            ErrorCode::BAD_REQUEST
        } else if !is_allocate && self.tables.allocations.find(client.into()).is_none() {
            // RFC 8656, section 5.
            ErrorCode::ALLOCATION_MISMATCH
        } else {
            ErrorCode::UNAUTHENTICATED
        }
    }

    /// The answer to a request that did not pass: unsigned, since there is no key that both know.
    pub(super) fn reject(
        &mut self,
        now: Instant,
        client: Client,
        request: &Message<'_>,
        code: ErrorCode,
    ) -> Reply {
        let envelope = Envelope::of(request);
        let writer = match code {
            ErrorCode::UNAUTHENTICATED | ErrorCode::STALE_NONCE => self.challenge(now, client, request, code),
            ErrorCode::UNKNOWN_ATTRIBUTE => self.complaint(request).unwrap_or_else(|| envelope.error(code)),
            _ => envelope.error(code),
        };
        envelope.finish(Some(code), writer)
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
        let numbers = [self.secret, self.secret - 1];
        // RFC 8489, section 14.6: whole, since TURN does not say that it may be cut.
        if request.integrity_sha256_length().is_some_and(|length| length < 32) {
            return None;
        }
        numbers.into_iter().zip(secrets).find_map(|(number, secret)| {
            let secret = secret?;
            let password = credentials::password(secret, username);
            let key = match algorithm {
                Some(PasswordAlgorithm::Sha256) => {
                    Key::long_term_sha256(username, &self.config.realm, &password)
                }
                Some(PasswordAlgorithm::Md5) | None => {
                    Key::long_term_md5(username, &self.config.realm, &password)
                }
            };
            // The stronger code counts where there are both.
            let status = match request.check_integrity_sha256(&key) {
                IntegrityStatus::Absent => request.check_integrity(&key),
                status => status,
            };
            (status == IntegrityStatus::Valid).then(|| Verified {
                user: user.to_owned(),
                expires_at,
                secret: number,
                key,
                // Answered as the key was made, whichever code the request had.
                sha256: algorithm.is_some(),
            })
        })
    }

    /// A 401 or 438, which must have realm, nonce and algorithms.
    fn challenge(&mut self, now: Instant, client: Client, request: &Message<'_>, code: ErrorCode) -> Writer {
        let random = &mut self.random;
        let nonce = self.nonces.issue(now, client, || (random.next_u64(), random.next_u64()));
        Envelope::of(request)
            .error(code)
            .attribute(AttributeKind::REALM, self.config.realm.as_bytes())
            .attribute(AttributeKind::NONCE, &nonce)
            .attribute(AttributeKind::PASSWORD_ALGORITHMS, &OFFERED)
    }
}

/// The algorithm a request names, if any (RFC 8489, section 9.2.4). `None` if somebody has tampered with
/// the offer, or the client chose what was not offered, or it signs SHA-1 where it was offered SHA-256:
/// nobody in between can make both sides weaker than they are (section 9.2.1).
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
