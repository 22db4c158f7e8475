//! A STUN message read in place.

use super::{
    AttributeKind, Class, ErrorCode, HEADER, Key, MAGIC_COOKIE, Method, TransactionId, decode_error_code,
    decode_xor_address, fingerprint, integrity, split_message_type,
};
use std::net::SocketAddr;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Why bytes are not a STUN message.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Error)]
pub enum ParseError {
    /// Shorter than the header.
    #[error("shorter than a STUN header")]
    TooShort,
    /// The two leading bits or the magic cookie are wrong.
    #[error("not STUN")]
    NotStun,
    /// The length field does not describe the datagram, or is no multiple of four.
    #[error("the length field does not match the datagram")]
    WrongLength,
    /// An attribute reaches beyond the message.
    #[error("an attribute is cut off")]
    TruncatedAttribute,
    /// FINGERPRINT is malformed, wrong or not the last attribute.
    #[error("the fingerprint is wrong")]
    WrongFingerprint,
    /// An integrity attribute has a length that its algorithm does not allow.
    #[error("an integrity attribute has a wrong length")]
    WrongIntegrityLength,
}

/// The verdict on a message's integrity attribute.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum IntegrityStatus {
    /// There is no such attribute.
    Absent,
    /// It was made with this key.
    Valid,
    /// It was made with another key, or the message was changed.
    Invalid,
}

/// A well-formed STUN message: header, attribute lengths and fingerprint (if any) are checked.
///
/// Attributes behind an integrity attribute are not covered by it and are ignored, as RFC 8489
/// (section 14.5) demands.
#[derive(Copy, Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: Method,
    class: Class,
    /// Where the covered attributes end: at the first integrity attribute, FINGERPRINT or the end.
    body_end: usize,
    integrity_at: Option<usize>,
    integrity_sha256_at: Option<(usize, usize)>,
    has_fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Checks the form of a datagram.
    ///
    /// # Errors
    ///
    /// The first violation found, as a [`ParseError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(ParseError::TooShort);
        };
        if header[0] & 0xc0 != 0 || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length != bytes.len() - HEADER || !length.is_multiple_of(4) {
            return Err(ParseError::WrongLength);
        }
        let (method, class) = split_message_type(u16::from_be_bytes([header[0], header[1]]));
        let mut message = Self {
            bytes,
            method,
            class,
            body_end: bytes.len(),
            integrity_at: None,
            integrity_sha256_at: None,
            has_fingerprint: false,
        };
        message.walk()?;
        Ok(message)
    }

    /// Checks every attribute's length and notes where the special ones are.
    fn walk(&mut self) -> Result<(), ParseError> {
        let mut at = HEADER;
        while at < self.bytes.len() {
            if self.has_fingerprint {
                return Err(ParseError::WrongFingerprint); // it must be the last one
            }
            let (attribute, next) = attribute_at(self.bytes, at).ok_or(ParseError::TruncatedAttribute)?;
            self.note(attribute, at)?;
            at = next;
        }
        Ok(())
    }

    /// Remembers an integrity attribute or checks the fingerprint found at `at`.
    fn note(&mut self, attribute: Attribute<'a>, at: usize) -> Result<(), ParseError> {
        let length = attribute.value.len();
        match attribute.kind {
            AttributeKind::MESSAGE_INTEGRITY => {
                if length != integrity::SHA1 {
                    return Err(ParseError::WrongIntegrityLength);
                }
                // Behind the SHA-256 code only the fingerprint counts.
                if self.integrity_sha256_at.is_none() {
                    self.integrity_at.get_or_insert(at);
                }
            }
            AttributeKind::MESSAGE_INTEGRITY_SHA256 => {
                if !(16..=integrity::SHA256).contains(&length) || !length.is_multiple_of(4) {
                    return Err(ParseError::WrongIntegrityLength);
                }
                self.integrity_sha256_at.get_or_insert((at, length));
            }
            AttributeKind::FINGERPRINT => {
                let expected = fingerprint::fingerprint(&self.bytes[..at]).to_be_bytes();
                if attribute.value != expected {
                    return Err(ParseError::WrongFingerprint);
                }
                self.has_fingerprint = true;
            }
            _ => return Ok(()),
        }
        self.body_end = self.body_end.min(at);
        Ok(())
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the message is about.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The id that joins request and response.
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER]);
        TransactionId(id)
    }

    /// True if the message carries a (correct) FINGERPRINT.
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The attributes in front of integrity and fingerprint, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: &self.bytes[..self.body_end], at: HEADER }
    }

    /// The value of the first attribute of a kind; later ones do not count (RFC 8489, section 14).
    pub fn find(&self, kind: AttributeKind) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The first attribute of a kind as text; `None` if absent or not UTF-8.
    pub fn text(&self, kind: AttributeKind) -> Option<&'a str> {
        std::str::from_utf8(self.find(kind)?).ok()
    }

    /// The first attribute of a kind as a 32-bit number; `None` if absent or not four bytes long.
    pub fn number(&self, kind: AttributeKind) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The first attribute of a kind as a masked address; `None` if absent or malformed.
    pub fn xor_address(&self, kind: AttributeKind) -> Option<SocketAddr> {
        decode_xor_address(self.find(kind)?, self.transaction())
    }

    /// All attributes of a kind as masked addresses; malformed ones are `None`.
    pub fn xor_addresses(&self, kind: AttributeKind) -> impl Iterator<Item = Option<SocketAddr>> + use<'a> {
        let transaction = self.transaction();
        self.attributes()
            .filter(move |attribute| attribute.kind == kind)
            .map(move |attribute| decode_xor_address(attribute.value, transaction))
    }

    /// The code of an error response.
    pub fn error_code(&self) -> Option<ErrorCode> {
        decode_error_code(self.find(AttributeKind::ERROR_CODE)?)
    }

    /// True if MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is there, valid or not.
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some() || self.integrity_sha256_at.is_some()
    }

    /// True if MESSAGE-INTEGRITY-SHA256 is there, valid or not.
    pub fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256_at.is_some()
    }

    /// How many bytes MESSAGE-INTEGRITY-SHA256 has, if it is there: 16 to 32.
    pub fn integrity_sha256_length(&self) -> Option<usize> {
        self.integrity_sha256_at.map(|(_, length)| length)
    }

    /// Checks MESSAGE-INTEGRITY (SHA-1) in constant time.
    pub fn check_integrity(&self, key: &Key) -> IntegrityStatus {
        let Some(at) = self.integrity_at else {
            return IntegrityStatus::Absent;
        };
        let value = &self.bytes[at + 4..at + 4 + integrity::SHA1];
        verdict(key.sha1(&self.bytes[..at]).as_ref().ct_eq(value).into())
    }

    /// Checks MESSAGE-INTEGRITY-SHA256, truncated or not, in constant time.
    pub fn check_integrity_sha256(&self, key: &Key) -> IntegrityStatus {
        let Some((at, length)) = self.integrity_sha256_at else {
            return IntegrityStatus::Absent;
        };
        let value = &self.bytes[at + 4..at + 4 + length];
        let tag = key.sha256(&self.bytes[..at], length);
        verdict(tag.as_ref()[..length].ct_eq(value).into())
    }
}

fn verdict(valid: bool) -> IntegrityStatus {
    if valid { IntegrityStatus::Valid } else { IntegrityStatus::Invalid }
}

/// One attribute of a message.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: AttributeKind,
    /// Its value without padding.
    pub value: &'a [u8],
}

/// Walks over the attributes of a message.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (attribute, next) = attribute_at(self.bytes, self.at)?;
        self.at = next;
        Some(attribute)
    }
}

/// The attribute that starts at `at`, and where the next one starts.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(Attribute<'_>, usize)> {
    let header = bytes.get(at..at + 4)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let next = at + 4 + length.next_multiple_of(4);
    if next > bytes.len() {
        return None;
    }
    let attribute = Attribute {
        kind: AttributeKind(u16::from_be_bytes([header[0], header[1]])),
        value: &bytes[at + 4..at + 4 + length],
    };
    Some((attribute, next))
}
