//! Keys, and the two message integrity codes (RFC 8489, sections 9.1.1, 9.2.2, 14.5, 14.6).

use super::HEADER;
use aws_lc_rs::{digest, hmac};
use md5::{Digest, Md5};
use std::fmt;

/// Length of the value of MESSAGE-INTEGRITY.
pub(super) const SHA1: usize = 20;
/// Longest value of MESSAGE-INTEGRITY-SHA256; it may be cut down to 16.
pub(super) const SHA256: usize = 32;

/// A key for message integrity; never shown in debug output.
#[derive(Clone, Eq, PartialEq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Short-term credentials: the password itself (RFC 8489, section 9.1.1).
    pub fn short_term(password: &str) -> Self {
        Self(password.as_bytes().to_vec())
    }

    /// Long-term credentials with the MD5 algorithm (RFC 8489, section 18.5.1.1).
    pub fn long_term_md5(username: &str, realm: &str, password: &str) -> Self {
        Self(Md5::digest(format!("{username}:{realm}:{password}")).to_vec())
    }

    /// Long-term credentials with the SHA-256 algorithm (RFC 8489, section 18.5.1.2).
    pub fn long_term_sha256(username: &str, realm: &str, password: &str) -> Self {
        let input = format!("{username}:{realm}:{password}");
        Self(digest::digest(&digest::SHA256, input.as_bytes()).as_ref().to_vec())
    }

    /// The MESSAGE-INTEGRITY value of a message whose attribute starts at the end of `before`.
    pub(super) fn sha1(&self, before: &[u8]) -> hmac::Tag {
        self.tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, before, 4 + SHA1)
    }

    /// The MESSAGE-INTEGRITY-SHA256 value; `value` bytes of it will be in the attribute.
    pub(super) fn sha256(&self, before: &[u8], value: usize) -> hmac::Tag {
        self.tag(hmac::HMAC_SHA256, before, 4 + value)
    }

    /// HMAC over `before`, its length field counting an attribute of `attribute` bytes after it.
    fn tag(&self, algorithm: hmac::Algorithm, before: &[u8], attribute: usize) -> hmac::Tag {
        let length = ((before.len() - HEADER + attribute) as u16).to_be_bytes();
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, &self.0));
        context.update(&before[..2]);
        context.update(&length);
        context.update(&before[4..]);
        context.sign()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}
