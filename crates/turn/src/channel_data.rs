//! ChannelData framing (RFC 8656, section 12.4): a four-byte header, then application data.
//!
//! ```text
//!  0                   1                   2                   3
//! |        channel number         |            length             |
//! ```
//!
//! Over UDP the data may be padded to a multiple of four bytes or not; both are read, and nothing is
//! padded when written.

use std::ops::{Range, RangeInclusive};

/// Bytes in front of the data.
pub const HEADER: usize = 4;

/// Channel numbers a client may bind (RFC 8656, section 12).
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x4fff;

/// Channel numbers of RFC 5766; clients of that age pick from all of them.
pub const OLD_NUMBERS: RangeInclusive<u16> = 0x4000..=0x7fff;

/// True if the first byte says ChannelData and not STUN or anything else (RFC 7983, section 7).
pub fn looks_like(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && (0x40..=0x4f).contains(&datagram[0])
}

/// Reads a ChannelData message: its channel number and where the data lies in `datagram`.
///
/// Bytes after the announced length are padding; more than three of them, a length beyond the
/// datagram, or a number outside [`NUMBERS`] make it no ChannelData message.
pub fn parse(datagram: &[u8]) -> Option<(u16, Range<usize>)> {
    if looks_like(datagram) { split(datagram) } else { None }
}

/// Reads a message with any channel number.
pub(crate) fn split(datagram: &[u8]) -> Option<(u16, Range<usize>)> {
    let &[high, low, length_high, length_low] = datagram.first_chunk::<HEADER>()?;
    let end = HEADER + usize::from(u16::from_be_bytes([length_high, length_low]));
    if end > datagram.len() || datagram.len() - end > 3 {
        return None;
    }
    Some((u16::from_be_bytes([high, low]), HEADER..end))
}

/// The header for `length` bytes of data on channel `number`.
///
/// `length` must fit in 16 bits, as every UDP payload does.
pub fn header(number: u16, length: u16) -> [u8; HEADER] {
    let (number, length) = (number.to_be_bytes(), length.to_be_bytes());
    [number[0], number[1], length[0], length[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_and_unpadded_data_are_read() {
        assert_eq!(parse(b"\x40\x01\x00\x02hi"), Some((0x4001, 4..6)));
        assert_eq!(parse(b"\x40\x01\x00\x02hi\0\0"), Some((0x4001, 4..6)));
        assert_eq!(parse(b"\x4f\xff\x00\x00"), Some((0x4fff, 4..4)));
        assert_eq!(&header(0x4001, 2)[..], b"\x40\x01\x00\x02");
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            &b""[..],
            b"\x40\x01\x00",
            b"\x40\x01\x00\x03hi",
            b"\x40\x01\x00\x00hihi",
            b"\x50\x00\x00\x00",
            b"\x3f\xff\x00\x00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:02x?}");
        }
    }
}
