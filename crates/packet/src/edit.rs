//! Small edits on the way through: hop limit, ECN, TCP maximum segment size.

use zerocopy::FromBytes;

use crate::checksum::Delta;
use crate::header::{Ipv4Header, Ipv6Header, TcpHeader};
use crate::transport::{TcpFlags, Transport};
use crate::view::PacketView;

/// Why an edit was not made; the packet is unchanged then.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum EditError {
    /// The packet has no hop left: answer with "time exceeded" instead of forwarding it.
    #[error("hop limit exceeded")]
    HopLimitExceeded,
    /// The buffer does not start with the fixed part of an IP header.
    #[error("not an IP packet")]
    NotIp,
}

/// Explicit congestion notification in the IP header (RFC 3168, 5).
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum Ecn {
    /// The transport does not understand ECN.
    NotCapable,
    /// ECN-capable transport, codepoint 1; also marks low-latency traffic (RFC 9331).
    Capable1,
    /// ECN-capable transport, codepoint 0.
    Capable0,
    /// A router on the path is congested.
    CongestionExperienced,
}

impl Ecn {
    /// The two bits on the wire (0–3).
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::CongestionExperienced => 3,
        }
    }

    /// Reads the two low bits of a traffic class; the others are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::CongestionExperienced,
        }
    }
}

/// Either fixed header, borrowed for an edit.
enum Header<'a> {
    V4(&'a mut Ipv4Header),
    V6(&'a mut Ipv6Header),
}

fn header(packet: &mut [u8]) -> Result<Header<'_>, EditError> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => Ipv4Header::mut_from_prefix(packet)
            .map(|(header, _)| Header::V4(header))
            .map_err(|_| EditError::NotIp),
        Some(6) => Ipv6Header::mut_from_prefix(packet)
            .map(|(header, _)| Header::V6(header))
            .map_err(|_| EditError::NotIp),
        _ => Err(EditError::NotIp),
    }
}

/// The TTL (IPv4) or hop limit (IPv6) of an IP packet.
pub fn hop_limit(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 => packet.get(8).copied(),
        6 => packet.get(7).copied(),
        _ => None,
    }
}

/// Takes one hop off the TTL or hop limit, as every forwarder does, and returns how many are left (at least 1).
///
/// # Errors
///
/// [`EditError::HopLimitExceeded`] when none would be left; the packet is unchanged then.
pub fn decrement_hop_limit(packet: &mut [u8]) -> Result<u8, EditError> {
    match header(packet)? {
        Header::V4(header) => {
            let left = header
                .time_to_live
                .checked_sub(1)
                .filter(|left| *left > 0)
                .ok_or(EditError::HopLimitExceeded)?;
            let word = |hops: u8| u16::from_be_bytes([hops, header.protocol]);
            let delta = Delta::new().word(word(header.time_to_live), word(left));
            header.checksum = delta.apply(header.checksum.get()).into();
            header.time_to_live = left;
            Ok(left)
        }
        Header::V6(header) => {
            let left = header
                .hop_limit
                .checked_sub(1)
                .filter(|left| *left > 0)
                .ok_or(EditError::HopLimitExceeded)?;
            header.hop_limit = left;
            Ok(left)
        }
    }
}

/// The ECN field of an IP packet.
pub fn ecn(packet: &[u8]) -> Option<Ecn> {
    match packet.first()? >> 4 {
        4 => packet.get(1).map(|class| Ecn::from_bits(*class)),
        6 => packet.get(1).map(|byte| Ecn::from_bits(byte >> 4)),
        _ => None,
    }
}

/// Sets the ECN field of an IP packet.
///
/// # Errors
///
/// [`EditError::NotIp`] if the buffer holds no IP header.
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) -> Result<(), EditError> {
    match header(packet)? {
        Header::V4(header) => {
            let class = (header.traffic_class & !3) | ecn.bits();
            let word = |class: u8| u16::from_be_bytes([header.version_and_length, class]);
            let delta = Delta::new().word(word(header.traffic_class), word(class));
            header.checksum = delta.apply(header.checksum.get()).into();
            header.traffic_class = class;
        }
        Header::V6(header) => {
            let others = header.version_class_label.get() & !(3 << 20);
            header.version_class_label = (others | u32::from(ecn.bits()) << 20).into();
        }
    }
    Ok(())
}

/// Lowers the maximum segment size that a SYN announces to `maximum` bytes, and says whether it had to.
///
/// Packets other than TCP with SYN, and SYNs without the option or with a smaller one, stay as they are. A SYN without
/// the option already means at most 536 (IPv4) or 1,220 bytes (IPv6) (RFC 9293, 3.7.1), which every tunnel carries.
pub fn clamp_mss(packet: &mut [u8], view: &PacketView, maximum: u16) -> bool {
    if !matches!(view.transport(), Transport::Tcp { flags, .. } if flags.contains(TcpFlags::SYN)) {
        return false;
    }
    let Some(segment) = packet.get_mut(view.transport_offset()..view.total_length()) else { return false };
    let Some(at) = find_mss(segment) else { return false };
    let old = [segment[at], segment[at + 1]];
    if u16::from_be_bytes(old) <= maximum {
        return false;
    }
    let new = maximum.to_be_bytes();
    segment[at..at + 2].copy_from_slice(&new);
    // After an odd number of no-operation bytes the value straddles two words: its bytes then weigh the other way round.
    let word = if at % 2 == 0 { u16::from_be_bytes } else { u16::from_le_bytes };
    let delta = Delta::new().word(word(old), word(new));
    let checksum = delta.apply(u16::from_be_bytes([segment[16], segment[17]]));
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Offset of the value of the maximum segment size option (RFC 9293, 3.2) in a TCP segment.
fn find_mss(segment: &[u8]) -> Option<usize> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let (header, _) = TcpHeader::ref_from_prefix(segment).ok()?;
    let end = header.length();
    let mut at = size_of::<TcpHeader>();
    loop {
        match segment.get(at..end)? {
            [] | [END, ..] => return None,
            [NO_OPERATION, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, _, _, ..] => return Some(at + 2),
            [_, length, ..] if *length >= 2 => at += usize::from(*length),
            _ => return None,
        }
    }
}
