//! Building STUN messages.

use super::{
    AttributeKind, Class, ErrorCode, Key, MAGIC_COOKIE, Method, TransactionId, encode_xor_address,
    fingerprint, integrity, message_type,
};
use std::net::SocketAddr;

/// A message under construction; the length field is right after every step.
///
/// Order is the caller's duty: ordinary attributes, then [`integrity`](Self::integrity) or
/// [`integrity_sha256`](Self::integrity_sha256), then [`fingerprint`](Self::fingerprint).
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    transaction: TransactionId,
}

impl Writer {
    /// Starts a message without attributes.
    pub fn new(method: Method, class: Class, transaction: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend_from_slice(&message_type(method, class).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&transaction.0);
        Self { bytes, transaction }
    }

    /// Appends an attribute of any kind; `value` is cut at 65,535 bytes.
    #[must_use]
    pub fn attribute(self, kind: AttributeKind, value: &[u8]) -> Self {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.with(kind, |bytes| bytes.extend_from_slice(value))
    }

    /// Appends a 32-bit number, such as LIFETIME.
    #[must_use]
    pub fn number(self, kind: AttributeKind, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a masked address.
    #[must_use]
    pub fn xor_address(self, kind: AttributeKind, address: SocketAddr) -> Self {
        let transaction = self.transaction;
        self.with(kind, |bytes| encode_xor_address(address, transaction, bytes))
    }

    /// Appends ERROR-CODE with an empty reason: nobody parses it, and replies stay small.
    #[must_use]
    pub fn error_code(self, code: ErrorCode) -> Self {
        let value = [0, 0, (code.0 / 100) as u8, (code.0 % 100) as u8];
        self.attribute(AttributeKind::ERROR_CODE, &value)
    }

    /// Appends MESSAGE-INTEGRITY (SHA-1) over everything so far.
    #[must_use]
    pub fn integrity(self, key: &Key) -> Self {
        let tag = key.sha1(&self.bytes);
        self.attribute(AttributeKind::MESSAGE_INTEGRITY, tag.as_ref())
    }

    /// Appends MESSAGE-INTEGRITY-SHA256, not truncated, over everything so far.
    #[must_use]
    pub fn integrity_sha256(self, key: &Key) -> Self {
        let tag = key.sha256(&self.bytes, integrity::SHA256);
        self.attribute(AttributeKind::MESSAGE_INTEGRITY_SHA256, tag.as_ref())
    }

    /// Appends FINGERPRINT over everything so far.
    #[must_use]
    pub fn fingerprint(self) -> Self {
        let value = fingerprint::fingerprint(&self.bytes);
        self.number(AttributeKind::FINGERPRINT, value)
    }

    /// The finished message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends attribute header, a value written by `write`, padding; then corrects the length.
    fn with(mut self, kind: AttributeKind, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&kind.0.to_be_bytes());
        self.bytes.extend_from_slice(&[0, 0]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - at - 4) as u16;
        self.bytes[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let total = (self.bytes.len() - super::HEADER) as u16;
        self.bytes[2..4].copy_from_slice(&total.to_be_bytes());
        self
    }
}
