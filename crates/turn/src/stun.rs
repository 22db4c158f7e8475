//! STUN messages (RFC 8489): a 20-byte header and attributes of type, length and value.
//!
//! ```text
//!  0                   1                   2                   3
//! |0 0|   method and class        |        message length         |
//! |                  magic cookie 0x2112A442                      |
//! |                  transaction id (96 bits)                     |
//! |  attribute type | attribute length | value, padded to 4 bytes |
//! ```
//!
//! [`Message`] borrows the datagram and never copies; [`Writer`] builds one. Integrity is a question
//! asked of a parsed message with a [`Key`], never something parsing does by itself, because the key
//! depends on attributes of the message.
//!
//! Deliberately absent: the pre-2008 form without magic cookie, and attributes that TURN over UDP
//! does not use.

mod address;
mod attribute;
mod fingerprint;
mod integrity;
mod message;
mod writer;

pub use address::{decode_xor_address, encode_xor_address};
pub use attribute::{AttributeKind, ErrorCode, PasswordAlgorithm, decode_error_code};
pub use integrity::Key;
pub use message::{Attribute, Attributes, IntegrityStatus, Message, ParseError};
pub use writer::Writer;

/// Bytes in front of the attributes.
pub const HEADER: usize = 20;

/// The fixed value in bytes 4 to 7 (RFC 8489, section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

/// True if a datagram can only be a STUN message: leading zero bits, magic cookie and a length that
/// fits exactly. Used to tell STUN from other protocols on one socket.
pub fn looks_like(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER
        && datagram[0] & 0xc0 == 0
        && datagram[4..8] == MAGIC_COOKIE.to_be_bytes()
        && usize::from(u16::from_be_bytes([datagram[2], datagram[3]])) == datagram.len() - HEADER
        && datagram.len().is_multiple_of(4)
}

/// Matches a response to its request: 96 bits from a CSPRNG.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct TransactionId(pub [u8; 12]);

/// What a message is about (12 bits).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Method(pub u16);

impl Method {
    /// Ask for the address the server sees (RFC 8489, section 18.1).
    pub const BINDING: Self = Self(0x001);
    /// Ask for a relayed address (RFC 8656, section 7).
    pub const ALLOCATE: Self = Self(0x003);
    /// Prolong or end an allocation (RFC 8656, section 8).
    pub const REFRESH: Self = Self(0x004);
    /// Application data from client to peer (RFC 8656, section 11).
    pub const SEND: Self = Self(0x006);
    /// Application data from peer to client (RFC 8656, section 11).
    pub const DATA: Self = Self(0x007);
    /// Let a peer's address send through the allocation (RFC 8656, section 10).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// Give a peer a channel number (RFC 8656, section 12).
    pub const CHANNEL_BIND: Self = Self(0x009);
}

/// What role a message plays in a transaction.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// The request was carried out.
    Success,
    /// The request was refused.
    Error,
}

impl Class {
    /// The two class bits as they lie in the message type: bit 4 and bit 8 (RFC 8489, section 5).
    fn bits(self) -> u16 {
        match self {
            Self::Request => 0x000,
            Self::Indication => 0x010,
            Self::Success => 0x100,
            Self::Error => 0x110,
        }
    }
}

/// Joins method and class to the 14-bit message type.
fn message_type(method: Method, class: Class) -> u16 {
    let method = method.0;
    (method & 0x000f) | (method & 0x0070) << 1 | (method & 0x0f80) << 2 | class.bits()
}

/// Splits the 14-bit message type.
fn split_message_type(value: u16) -> (Method, Class) {
    let method = (value & 0x000f) | (value & 0x00e0) >> 1 | (value & 0x3e00) >> 2;
    let class = match value & 0x110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    };
    (Method(method), class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_types_match_the_registered_values() {
        assert_eq!(message_type(Method::BINDING, Class::Request), 0x0001);
        assert_eq!(message_type(Method::BINDING, Class::Success), 0x0101);
        assert_eq!(message_type(Method::ALLOCATE, Class::Error), 0x0113);
        assert_eq!(message_type(Method::SEND, Class::Indication), 0x0016);
        assert_eq!(message_type(Method::DATA, Class::Indication), 0x0017);
    }

    #[test]
    fn every_message_type_survives_a_round_trip() {
        for value in 0..0x4000 {
            let (method, class) = split_message_type(value);
            assert_eq!(message_type(method, class), value);
        }
    }
}
