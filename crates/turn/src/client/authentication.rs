//! Long-term credentials on the client's side (RFC 8489, section 9.2).

use super::FailureReason;
use crate::stun::{AttributeKind, IntegrityStatus, Key, Message, PasswordAlgorithm, Writer};

/// A nonce that starts with this announces security features in the four characters behind it
/// (RFC 8489, section 9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";

/// RFC 8489 limits these texts to fewer than 128 characters, and characters to six bytes.
const MAX_TEXT: usize = 763;

/// A user name and its password.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Credentials({})", self.username)
    }
}

/// What the server said in its last challenge.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Challenge {
    realm: String,
    nonce: Vec<u8>,
    algorithm: PasswordAlgorithm,
    /// PASSWORD-ALGORITHMS as received, sent back so that the server notices tampering.
    offered: Option<Vec<u8>>,
}

/// The key of a request and the integrity attribute it carries.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    key: Key,
    sha256: bool,
}

/// Credentials and the server's latest challenge.
#[derive(Debug)]
pub(super) struct Authentication {
    credentials: Credentials,
    challenge: Option<Challenge>,
}

impl Authentication {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, challenge: None }
    }

    /// The credentials in use.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Takes new credentials; false if they are the ones in use.
    pub(super) fn replace(&mut self, credentials: Credentials) -> bool {
        let changed = self.credentials != credentials;
        self.credentials = credentials;
        changed
    }

    /// The realm of the latest challenge.
    pub(super) fn realm(&self) -> Option<&str> {
        self.challenge.as_ref().map(|challenge| challenge.realm.as_str())
    }

    /// Learns realm, nonce and algorithm from a 401 or 438 response.
    pub(super) fn learn(&mut self, response: &Message<'_>) -> Result<(), FailureReason> {
        let realm = response.text(AttributeKind::REALM).or(self.realm()).ok_or(FailureReason::Malformed)?;
        let nonce = response.find(AttributeKind::NONCE).ok_or(FailureReason::Malformed)?;
        if realm.len() > MAX_TEXT || nonce.len() > MAX_TEXT {
            return Err(FailureReason::Malformed);
        }
        let offered = response.find(AttributeKind::PASSWORD_ALGORITHMS);
        if offered.is_none() && announces_password_algorithms(nonce) {
            return Err(FailureReason::BidDown);
        }
        let algorithm = match offered {
            Some(offered) => first_supported(offered).ok_or(FailureReason::Malformed)?,
            None => PasswordAlgorithm::Md5,
        };
        self.challenge = Some(Challenge {
            realm: realm.to_owned(),
            nonce: nonce.to_vec(),
            algorithm,
            offered: offered.map(<[u8]>::to_vec),
        });
        Ok(())
    }

    /// Completes a request: with credentials once the server has asked for them.
    pub(super) fn sign(&self, writer: Writer, credentials: &Credentials) -> (Vec<u8>, Option<Signature>) {
        let Some(challenge) = &self.challenge else {
            return (writer.fingerprint().finish(), None);
        };
        let mut writer = writer
            .attribute(AttributeKind::USERNAME, credentials.username.as_bytes())
            .attribute(AttributeKind::REALM, challenge.realm.as_bytes())
            .attribute(AttributeKind::NONCE, &challenge.nonce);
        if let Some(offered) = &challenge.offered {
            let chosen = challenge.algorithm.encoded();
            writer = writer
                .attribute(AttributeKind::PASSWORD_ALGORITHMS, offered)
                .attribute(AttributeKind::PASSWORD_ALGORITHM, &chosen);
        }
        let (name, password) = (&credentials.username, &credentials.password);
        let key = match challenge.algorithm {
            PasswordAlgorithm::Md5 => Key::long_term_md5(name, &challenge.realm, password),
            PasswordAlgorithm::Sha256 => Key::long_term_sha256(name, &challenge.realm, password),
        };
        // A server that offers algorithms is to be spoken to with SHA-256 only, whatever the
        // algorithm of the key (RFC 8489, section 9.2.5).
        let sha256 = challenge.offered.is_some();
        let writer = if sha256 { writer.integrity_sha256(&key) } else { writer.integrity(&key) };
        (writer.fingerprint().finish(), Some(Signature { key, sha256 }))
    }
}

impl Signature {
    /// Checks a response with the key and attribute of its request.
    pub(super) fn check(&self, response: &Message<'_>) -> IntegrityStatus {
        if self.sha256 {
            response.check_integrity_sha256(&self.key)
        } else {
            response.check_integrity(&self.key)
        }
    }
}

/// True if the nonce says that PASSWORD-ALGORITHMS must be there too: bit 0 of the feature set
/// (RFC 8489, section 18.1). The first of the four base64 characters holds the first six bits.
fn announces_password_algorithms(nonce: &[u8]) -> bool {
    let Some([first, _, _, _, ..]) = nonce.strip_prefix(NONCE_COOKIE) else {
        return false;
    };
    let six_bits = match first {
        b'A'..=b'Z' => first - b'A',
        b'a'..=b'z' => first - b'a' + 26,
        b'0'..=b'9' => first - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return false,
    };
    six_bits & 0x20 != 0
}

/// The first algorithm of the server's list that we know (RFC 8489, section 9.2.5).
fn first_supported(offered: &[u8]) -> Option<PasswordAlgorithm> {
    let mut rest = offered;
    while let Some((entry, parameters)) = rest.split_first_chunk::<4>() {
        let known = [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256];
        if let Some(known) = known.into_iter().find(|known| known.encoded() == *entry) {
            return Some(known);
        }
        let length = usize::from(u16::from_be_bytes([entry[2], entry[3]]));
        rest = parameters.get(length.next_multiple_of(4)..)?;
    }
    None
}
