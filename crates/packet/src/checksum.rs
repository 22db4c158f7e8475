//! The Internet checksum: in full (RFC 1071) and by difference (RFC 1624).
//!
//! Both forms work on 16-bit big-endian words in ones' complement arithmetic. [`Sum`] adds whole byte ranges; [`Delta`]
//! collects "this word became that word" and is then applied to as many checksums as cover those words.

use std::net::IpAddr;

use crate::network::{self, ParseError};
use crate::protocol;
use crate::view::PacketView;

/// A running ones' complement sum over 16-bit words.
///
/// The words are kept in the machine's byte order and swapped once at the end, which gives the same sum (RFC 1071, 2(B)).
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Sum(u64);

impl Sum {
    /// Starts at zero.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds one word.
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// Adds two words at once, such as a TCP sequence number.
    #[must_use]
    pub const fn double_word(self, words: u32) -> Self {
        Self(self.0 + words.to_be() as u64)
    }

    /// Adds bytes that start at an even offset; an odd last byte is padded with zero (RFC 1071, 4.1).
    #[must_use]
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four bytes a step: a 32-bit word is two 16-bit words, and folding brings the halves together again. Sixteen
        // independent lanes are what the compiler makes vector instructions of.
        let (blocks, rest) = bytes.as_chunks::<64>();
        let mut sum = self.0;
        if !blocks.is_empty() {
            let mut lanes = [0_u64; 16];
            for block in blocks {
                for (lane, quad) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                    *lane += u64::from(u32::from_ne_bytes(*quad));
                }
            }
            sum += lanes.iter().sum::<u64>();
        }
        let (quads, rest) = rest.as_chunks::<4>();
        for quad in quads {
            sum += u64::from(u32::from_ne_bytes(*quad));
        }
        Self(sum + u64::from(u32::from_ne_bytes(padded(rest))))
    }

    /// Adds what another sum holds.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        // A packet is too small to fill 64 bits.
        Self(self.0 + other.0)
    }

    /// Adds the octets of an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// Adds the pseudo header of RFC 9293, 3.1 (IPv4) or RFC 8200, 8.1 (IPv6).
    ///
    /// `length` is that of transport header and payload in bytes.
    #[must_use]
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Self {
        self.address(source).address(destination).double_word(length).word(u16::from(protocol))
    }

    /// The folded sum, not complemented: 0xffff over data that includes its own right checksum.
    pub const fn folded(self) -> u16 {
        u16::from_be(fold(self.0))
    }

    /// The value that goes into a checksum field.
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The change that edits make to every checksum that covers them (RFC 1624, equation 3).
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct Delta(u64);

impl Delta {
    /// No change yet.
    pub const fn new() -> Self {
        Self(0)
    }

    /// One word became another.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// A range of bytes (equal lengths, even offset) became another.
    #[must_use]
    pub fn bytes(self, old: &[u8], new: &[u8]) -> Self {
        let (old_quads, old_rest) = old.as_chunks::<4>();
        let (new_quads, new_rest) = new.as_chunks::<4>();
        let whole = old_quads.iter().zip(new_quads).fold(self, |delta, (old, new)| delta.quad(*old, *new));
        if old_rest.is_empty() { whole } else { whole.quad(padded(old_rest), padded(new_rest)) }
    }

    /// Two words at once: folding brings the halves together again.
    const fn quad(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Self(self.0 + !u32::from_be_bytes(old) as u64 + u32::from_be_bytes(new) as u64)
    }

    /// Adds the changes of another edit.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        // A packet is too small to fill 64 bits.
        Self(self.0 + other.0)
    }

    /// The new value of a checksum that covers the edits.
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u64 + self.0)
    }

    /// The same for UDP: zero means "no checksum" and stays; a sum that becomes zero is sent as 0xffff (RFC 768).
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        zero_as_ones(self.apply(checksum))
    }
}

/// Up to four bytes, with zeros behind them.
#[inline(always)]
fn padded(rest: &[u8]) -> [u8; 4] {
    let mut quad = [0; 4];
    for (to, from) in quad.iter_mut().zip(rest) {
        *to = *from;
    }
    quad
}

const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The value for a UDP checksum field: zero would say "no checksum" (RFC 768).
pub const fn zero_as_ones(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Which checksum of a packet [`verify`] found wrong.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChecksumError {
    /// The packet does not parse.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// The IPv4 header checksum is wrong.
    #[error("IPv4 header checksum is wrong")]
    Ipv4Header,
    /// The checksum of TCP, UDP, ICMP or ICMPv6 is wrong (or zero with UDP over IPv6, RFC 8200, 8.1).
    #[error("transport checksum is wrong")]
    Transport,
}

/// Recomputes every checksum of a packet in full.
///
/// Transport checksums of fragments and of protocols that the crate does not know are not checked.
///
/// # Errors
///
/// The first checksum that is wrong, or why the packet does not parse.
pub fn verify(packet: &[u8]) -> Result<(), ChecksumError> {
    let view = PacketView::parse(packet)?;
    let packet = &packet[..view.total_length()];
    if !ipv4_header_is_right(packet) {
        return Err(ChecksumError::Ipv4Header);
    }
    if view.fragment().is_some() {
        return Ok(());
    }
    let segment = &packet[view.transport_offset()..];
    let right = match view.protocol() {
        protocol::ICMP if view.is_ipv4() => Sum::new().bytes(segment).folded() == 0xffff,
        protocol::UDP => udp_is_right(&view, segment),
        protocol::TCP => covered_by_pseudo_header(&view, segment),
        protocol::ICMPV6 if !view.is_ipv4() => covered_by_pseudo_header(&view, segment),
        _ => true,
    };
    if right { Ok(()) } else { Err(ChecksumError::Transport) }
}

fn ipv4_header_is_right(packet: &[u8]) -> bool {
    match network::ipv4_header_length(packet) {
        Some(length) => Sum::new().bytes(&packet[..length]).folded() == 0xffff,
        None => true,
    }
}

fn udp_is_right(view: &PacketView, segment: &[u8]) -> bool {
    let length = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
    let without_checksum = segment[6..8] == [0, 0];
    if without_checksum {
        return view.is_ipv4();
    }
    covered_by_pseudo_header(view, &segment[..length])
}

fn covered_by_pseudo_header(view: &PacketView, segment: &[u8]) -> bool {
    let length = segment.len() as u32;
    Sum::new()
        .pseudo_header(view.source(), view.destination(), view.protocol(), length)
        .bytes(segment)
        .folded()
        == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_is_padded_on_the_right() {
        assert_eq!(Sum::new().bytes(&[1, 2, 3]), Sum::new().bytes(&[1, 2, 3, 0]));
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // The older equation gave 0xffff here; the right answer is 0x0000.
        assert_eq!(Delta::new().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_changed_range_equals_its_changed_words() {
        let (old, new) = ([1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4]);
        let words = Delta::new().word(0x0102, 0x0908).word(0x0304, 0x0706).word(0x0506, 0x0504);
        assert_eq!(Delta::new().bytes(&old, &new).apply(0x1234), words.apply(0x1234));
    }

    #[test]
    fn a_missing_udp_checksum_stays_missing() {
        assert_eq!(Delta::new().word(1, 2).apply_udp(0), 0);
    }

    #[test]
    fn a_udp_checksum_never_becomes_zero() {
        let delta = Delta::new().word(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0);
        assert_eq!(delta.apply_udp(0xdd2f), 0xffff);
    }
}
