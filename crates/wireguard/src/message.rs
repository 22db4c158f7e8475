//! Layout of the four messages.
//!
//! All integers are little-endian. The first byte is the type, the next three are zero.
//!
//! | message | bytes | fields after the type word |
//! |---|---|---|
//! | initiation | 148 | sender 4, ephemeral 32, static 48, timestamp 28, MAC1 16, MAC2 16 |
//! | response | 92 | sender 4, receiver 4, ephemeral 32, nothing 16, MAC1 16, MAC2 16 |
//! | cookie reply | 64 | receiver 4, nonce 24, cookie 32 |
//! | data | 32 + n | receiver 4, counter 8, ciphertext n, tag 16 |

use std::ops::Range;

use crate::{DropReason, OVERHEAD};

pub(crate) const INITIATION_LENGTH: usize = 148;
pub(crate) const RESPONSE_LENGTH: usize = 92;
pub(crate) const COOKIE_REPLY_LENGTH: usize = 64;

pub(crate) const INITIATION_TYPE: u8 = 1;
pub(crate) const RESPONSE_TYPE: u8 = 2;
pub(crate) const COOKIE_REPLY_TYPE: u8 = 3;
pub(crate) const DATA_TYPE: u8 = 4;

/// Where the fields of an initiation lie.
pub(crate) mod initiation {
    use super::Range;
    pub(crate) const SENDER: usize = 4;
    pub(crate) const EPHEMERAL: Range<usize> = 8..40;
    pub(crate) const STATIC: Range<usize> = 40..88;
    pub(crate) const TIMESTAMP: Range<usize> = 88..116;
}

/// Where the fields of a response lie.
pub(crate) mod response {
    use super::Range;
    pub(crate) const SENDER: usize = 4;
    pub(crate) const RECEIVER: usize = 8;
    pub(crate) const EPHEMERAL: Range<usize> = 12..44;
    pub(crate) const NOTHING: Range<usize> = 44..60;
}

/// Where the fields of a cookie reply lie.
pub(crate) mod cookie_reply {
    use super::Range;
    pub(crate) const RECEIVER: usize = 4;
    pub(crate) const NONCE: Range<usize> = 8..32;
    pub(crate) const COOKIE: Range<usize> = 32..64;
}

/// Where the fields of a data message lie; the ciphertext follows.
pub(crate) mod data {
    pub(crate) const RECEIVER: usize = 4;
    pub(crate) const COUNTER: usize = 8;
}

/// A datagram told apart by type and checked for length, nothing else.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Initiation(&'a mut [u8; INITIATION_LENGTH]),
    Response(&'a mut [u8; RESPONSE_LENGTH]),
    CookieReply(&'a [u8; COOKIE_REPLY_LENGTH]),
    Data(&'a mut [u8]),
}

impl<'a> Message<'a> {
    pub(crate) fn classify(datagram: &'a mut [u8]) -> Result<Self, DropReason> {
        let Some(&[kind, 0, 0, 0]) = datagram.first_chunk::<4>() else {
            let short = datagram.len() < 4;
            return Err(if short { DropReason::WrongLength } else { DropReason::UnknownMessageType });
        };
        let wrong = |_| DropReason::WrongLength;
        match kind {
            INITIATION_TYPE => datagram.try_into().map(Self::Initiation).map_err(wrong),
            RESPONSE_TYPE => datagram.try_into().map(Self::Response).map_err(wrong),
            COOKIE_REPLY_TYPE => (&*datagram).try_into().map(Self::CookieReply).map_err(wrong),
            DATA_TYPE if datagram.len() >= OVERHEAD => Ok(Self::Data(datagram)),
            DATA_TYPE => Err(DropReason::WrongLength),
            _ => Err(DropReason::UnknownMessageType),
        }
    }
}

/// Whether a datagram has the shape of a WireGuard message: type 1 to 4 and three zero bytes.
///
/// Tells WireGuard from STUN (first byte 0 or 1, then a nonzero length or cookie) and TURN
/// channel data (first byte 0x40 to 0x4f) on a shared socket.
#[must_use]
pub const fn is_wireguard(datagram: &[u8]) -> bool {
    matches!(datagram.first_chunk::<4>(), Some([1..=4, 0, 0, 0])) && datagram.len() >= OVERHEAD
}

/// Whether a datagram has the shape of a data message.
#[must_use]
pub const fn is_data(datagram: &[u8]) -> bool {
    matches!(datagram.first_chunk::<4>(), Some([DATA_TYPE, 0, 0, 0])) && datagram.len() >= OVERHEAD
}

/// The receiver index of a data message: the key under which the receiver keeps the session.
///
/// `None` for anything that is not a data message.
#[must_use]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    is_data(datagram).then(|| read_u32(datagram, data::RECEIVER))
}

/// Reads a little-endian integer; zero beyond the end.
pub(crate) fn read_u32(message: &[u8], offset: usize) -> u32 {
    message.get(offset..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
}

/// Reads a little-endian integer; zero beyond the end.
pub(crate) fn read_u64(message: &[u8], offset: usize) -> u64 {
    message.get(offset..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes)
}

/// Copies a field out of a message of fixed length.
pub(crate) fn field<const N: usize>(message: &[u8], range: Range<usize>) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[range]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(mut datagram: Vec<u8>) -> Option<DropReason> {
        Message::classify(&mut datagram).err()
    }

    #[test]
    fn lengths_and_reserved_bytes_are_strict() {
        let make = |kind, length| {
            let mut datagram = vec![0; length];
            if length > 0 {
                datagram[0] = kind;
            }
            datagram
        };
        assert_eq!(classify(make(1, 148)), None);
        assert_eq!(classify(make(2, 92)), None);
        assert_eq!(classify(make(3, 64)), None);
        assert_eq!(classify(make(4, 32)), None);
        for (kind, length) in [(0, 0), (1, 3), (1, 147), (1, 149), (2, 91), (3, 65), (4, 31)] {
            assert_eq!(classify(make(kind, length)), Some(DropReason::WrongLength), "{kind} {length}");
        }
        assert_eq!(classify(make(5, 148)), Some(DropReason::UnknownMessageType));
        assert_eq!(classify(vec![4, 0, 0, 1, 0, 0, 0, 0]), Some(DropReason::UnknownMessageType));
    }
}
