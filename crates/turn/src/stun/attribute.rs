//! Attribute numbers and the small value formats.

use std::fmt;

/// The type of an attribute; values below 0x8000 must be understood by the receiver.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct AttributeKind(pub u16);

impl AttributeKind {
    /// Address as seen by the server, not masked (RFC 8489, section 14.1).
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    /// Who asks (RFC 8489, section 14.3).
    pub const USERNAME: Self = Self(0x0006);
    /// HMAC-SHA1 over the message (RFC 8489, section 14.5).
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    /// Why a request was refused (RFC 8489, section 14.8).
    pub const ERROR_CODE: Self = Self(0x0009);
    /// Attributes the server did not understand (RFC 8489, section 14.13).
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000a);
    /// Channel to bind (RFC 8656, section 18.1).
    pub const CHANNEL_NUMBER: Self = Self(0x000c);
    /// Seconds to live (RFC 8656, section 18.2).
    pub const LIFETIME: Self = Self(0x000d);
    /// Masked address of a peer (RFC 8656, section 18.3).
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    /// Application data (RFC 8656, section 18.4).
    pub const DATA: Self = Self(0x0013);
    /// Realm of the credentials (RFC 8489, section 14.9).
    pub const REALM: Self = Self(0x0014);
    /// The server's freshness token (RFC 8489, section 14.10).
    pub const NONCE: Self = Self(0x0015);
    /// Masked relayed address (RFC 8656, section 18.5).
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    /// Wanted address family (RFC 8656, section 18.6).
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    /// Wants an even port (RFC 8656, section 18.7).
    pub const EVEN_PORT: Self = Self(0x0018);
    /// Transport between relay and peer (RFC 8656, section 18.8).
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    /// Wants DF set towards the peer (RFC 8656, section 18.9).
    pub const DONT_FRAGMENT: Self = Self(0x001a);
    /// HMAC-SHA256 over the message (RFC 8489, section 14.6).
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001c);
    /// The algorithm a client chose (RFC 8489, section 14.12).
    pub const PASSWORD_ALGORITHM: Self = Self(0x001d);
    /// Hashed user name (RFC 8489, section 14.4).
    pub const USERHASH: Self = Self(0x001e);
    /// Masked address as seen by the server (RFC 8489, section 14.2).
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    /// A reserved port (RFC 8656, section 18.10).
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    /// Second address family of a dual allocation (RFC 8656, section 18.11).
    pub const ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8000);
    /// Why one family of a dual allocation failed (RFC 8656, section 18.12).
    pub const ADDRESS_ERROR_CODE: Self = Self(0x8001);
    /// The algorithms a server offers (RFC 8489, section 14.11).
    pub const PASSWORD_ALGORITHMS: Self = Self(0x8002);
    /// Product name (RFC 8489, section 14.14).
    pub const SOFTWARE: Self = Self(0x8022);
    /// CRC-32 over the message (RFC 8489, section 14.7).
    pub const FINGERPRINT: Self = Self(0x8028);

    /// True if a receiver that does not know the attribute must refuse the message
    /// (RFC 8489, section 14).
    pub fn is_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// A STUN or TURN error code, 300 to 699.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// The client should try another server.
    pub const TRY_ALTERNATE: Self = Self(300);
    /// The request is malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// Credentials are missing or wrong.
    pub const UNAUTHENTICATED: Self = Self(401);
    /// The request is not allowed by policy.
    pub const FORBIDDEN: Self = Self(403);
    /// A required attribute is not known.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// No allocation where one is needed, or one where none may be.
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// The nonce is too old; the response carries a new one.
    pub const STALE_NONCE: Self = Self(438);
    /// The address family is not served.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// The allocation belongs to somebody else.
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// Only UDP is relayed.
    pub const UNSUPPORTED_TRANSPORT: Self = Self(442);
    /// The peer's address family is not that of the allocation.
    pub const PEER_FAMILY_MISMATCH: Self = Self(443);
    /// The user has enough allocations already.
    pub const ALLOCATION_QUOTA_REACHED: Self = Self(486);
    /// Something went wrong in the server.
    pub const SERVER_ERROR: Self = Self(500);
    /// The server has no capacity left.
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match *self {
            Self::TRY_ALTERNATE => "try alternate",
            Self::BAD_REQUEST => "bad request",
            Self::UNAUTHENTICATED => "unauthenticated",
            Self::FORBIDDEN => "forbidden",
            Self::UNKNOWN_ATTRIBUTE => "unknown attribute",
            Self::ALLOCATION_MISMATCH => "allocation mismatch",
            Self::STALE_NONCE => "stale nonce",
            Self::ADDRESS_FAMILY_NOT_SUPPORTED => "address family not supported",
            Self::WRONG_CREDENTIALS => "wrong credentials",
            Self::UNSUPPORTED_TRANSPORT => "unsupported transport protocol",
            Self::PEER_FAMILY_MISMATCH => "peer address family mismatch",
            Self::ALLOCATION_QUOTA_REACHED => "allocation quota reached",
            Self::SERVER_ERROR => "server error",
            Self::INSUFFICIENT_CAPACITY => "insufficient capacity",
            _ => "error",
        };
        write!(formatter, "{} {reason}", self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Reads the value of ERROR-CODE: two reserved bytes, hundreds, rest, reason (RFC 8489, 14.8).
///
/// `None` if it is shorter than four bytes or the code is outside 300 to 699.
pub fn decode_error_code(value: &[u8]) -> Option<ErrorCode> {
    let (&[_, _, class, number], _reason) = value.split_first_chunk::<4>()?;
    let class = class & 0x07;
    if !(3..=6).contains(&class) || number > 99 {
        return None;
    }
    Some(ErrorCode(u16::from(class) * 100 + u16::from(number)))
}

/// How the long-term key is made from the password (RFC 8489, section 18.5).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum PasswordAlgorithm {
    /// The key of RFC 5389; messages carry MESSAGE-INTEGRITY.
    Md5,
    /// The key of RFC 8489; messages carry MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl PasswordAlgorithm {
    /// The attribute value that names the algorithm without parameters: number and zero length.
    pub fn encoded(self) -> [u8; 4] {
        match self {
            Self::Md5 => [0, 1, 0, 0],
            Self::Sha256 => [0, 2, 0, 0],
        }
    }
}
