//! ICMP errors in the other family (RFC 7915, 4.2 to 4.5 and 5.2 to 5.5).

use crate::checksum::{self, Sum};
use crate::header::{IcmpHeader, Ipv4Header, Ipv6Header};
use crate::protocol::{self, icmpv4, icmpv6};
use crate::quoted::Quoted;
use crate::rewrite::Rewrite;
use crate::translate::{HEADER_DIFFERENCE, Mode, Passage, TranslateError, may_be_fragmented, new_addresses};
use crate::view::PacketView;

const HEADER: usize = size_of::<IcmpHeader>();

/// The longest errors (RFC 1812, 4.3.2.3; RFC 4443, 2.4(c)).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// Every IPv6 link carries this much, so no IPv6 host is told less (RFC 7915, 4.2).
const LEAST_MTU_V6: u32 = 1280;

/// What routers that do not say their MTU are likely to have (RFC 1191, 7.1).
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

/// Type, code, and the word behind the checksum.
type Message = (u8, u8, u32);

/// Writes to the start of `out` what the error becomes.
pub(super) fn translate(
    rewrite: &Rewrite,
    outer: &Passage<'_>,
    view: &PacketView,
    [kind, code]: [u8; 2],
    identification: u16,
    out: &mut [u8],
) -> Result<usize, TranslateError> {
    let packet = [outer.network, outer.body].concat();
    // Its checksum is made anew, which must not make good what was damaged.
    checksum::verify(&packet).map_err(|_| TranslateError::Checksum)?;
    let quoted = Quoted::parse(&packet, view).map_err(|_| TranslateError::NoCounterpart)?;
    let inner = quoted_passage(&rewrite.exchanged(), &packet, &quoted, view.is_ipv4())?;
    let word = packet[view.transport_offset() + 4..][..4].try_into().map_or(0, u32::from_be_bytes);
    let quoted_length = quoted.network().total_length as u32;
    let message =
        if view.is_ipv4() { to_v6(kind, code, word, quoted_length) } else { to_v4(kind, code, word) };
    let (kind, code, word) = message.ok_or(TranslateError::NoCounterpart)?;

    let longest = out.len().min(if view.is_ipv4() { LONGEST_V6 } else { LONGEST_V4 });
    let at = outer.new_header_length() + HEADER;
    let room = longest.checked_sub(at + inner.new_header_length()).ok_or(TranslateError::TooLong)?;
    let body = &inner.body[..inner.body.len().min(room)];
    let inner = Passage { body, ..inner };
    let inner_identification = may_be_fragmented(inner.new_header_length() + inner.length).then_some(0);
    let end = at + inner.write(Mode::Quoted, inner_identification, &mut out[at..])?;

    out[at - HEADER..at].fill(0);
    out[at - HEADER..][..2].copy_from_slice(&[kind, code]);
    out[at - 4..at].copy_from_slice(&word.to_be_bytes());
    finish(outer, at - HEADER, end, identification, out)?;
    Ok(end)
}

/// The quoted packet, which travelled the other way.
fn quoted_passage<'a>(
    rewrite: &Rewrite,
    packet: &'a [u8],
    quoted: &Quoted,
    is_ipv4: bool,
) -> Result<Passage<'a>, TranslateError> {
    let network = quoted.network();
    if network.fragment.is_some() {
        return Err(TranslateError::Fragment);
    }
    let bytes = &packet[quoted.range()];
    let (headers, body) =
        bytes.split_at_checked(network.transport_offset).ok_or(TranslateError::NoCounterpart)?;
    Ok(Passage {
        is_ipv4,
        before: [network.source, network.destination],
        after: new_addresses(rewrite, is_ipv4)?,
        ports: [rewrite.source_port, rewrite.destination_port],
        network: headers,
        protocol: network.protocol,
        transport: quoted.transport(),
        body,
        length: network.total_length.saturating_sub(network.transport_offset),
    })
}

/// Makes the checksum and the IP header of the error whose message lies at `start..end` of `out`.
fn finish(
    outer: &Passage<'_>,
    start: usize,
    end: usize,
    identification: u16,
    out: &mut [u8],
) -> Result<(), TranslateError> {
    let message = &out[start..end];
    let (protocol, sum) = if outer.is_ipv4 {
        let [source, destination] = outer.after;
        let length = message.len() as u32;
        (
            protocol::ICMPV6,
            Sum::new().pseudo_header(source, destination, protocol::ICMPV6, length).bytes(message),
        )
    } else {
        (protocol::ICMP, Sum::new().bytes(message))
    };
    out[start + 2..start + 4].copy_from_slice(&sum.checksum().to_be_bytes());
    let identification = may_be_fragmented(end).then_some(identification);
    outer.write_header(protocol, end - start, identification, out).map(drop)
}

/// An ICMP error as ICMPv6 (RFC 7915, 4.2); `quoted` is the length of the packet that it quotes.
fn to_v6(kind: u8, code: u8, word: u32, quoted: u32) -> Option<Message> {
    use icmpv6::{DESTINATION_UNREACHABLE, PACKET_TOO_BIG, PARAMETER_PROBLEM, TIME_EXCEEDED};
    match (kind, code) {
        (icmpv4::DESTINATION_UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => Some((DESTINATION_UNREACHABLE, 0, 0)),
        // "Protocol unreachable" points at the next header.
        (icmpv4::DESTINATION_UNREACHABLE, 2) => Some((PARAMETER_PROBLEM, 1, NEXT_HEADER)),
        (icmpv4::DESTINATION_UNREACHABLE, 3) => Some((DESTINATION_UNREACHABLE, 4, 0)),
        (icmpv4::DESTINATION_UNREACHABLE, 4) => Some((PACKET_TOO_BIG, 0, mtu_to_v6(word & 0xffff, quoted))),
        (icmpv4::DESTINATION_UNREACHABLE, 9 | 10 | 13 | 15) => Some((DESTINATION_UNREACHABLE, 1, 0)),
        (icmpv4::TIME_EXCEEDED, _) => Some((TIME_EXCEEDED, code, 0)),
        (icmpv4::PARAMETER_PROBLEM, 0 | 2) => Some((PARAMETER_PROBLEM, 0, pointer_to_v6(word >> 24)?)),
        _ => None,
    }
}

/// An ICMPv6 error as ICMP (RFC 7915, 5.2).
fn to_v4(kind: u8, code: u8, word: u32) -> Option<Message> {
    use icmpv4::{DESTINATION_UNREACHABLE, PARAMETER_PROBLEM, TIME_EXCEEDED};
    match (kind, code) {
        (icmpv6::DESTINATION_UNREACHABLE, 0 | 2 | 3) => Some((DESTINATION_UNREACHABLE, 1, 0)),
        (icmpv6::DESTINATION_UNREACHABLE, 1) => Some((DESTINATION_UNREACHABLE, 10, 0)),
        (icmpv6::DESTINATION_UNREACHABLE, 4) => Some((DESTINATION_UNREACHABLE, 3, 0)),
        (icmpv6::PACKET_TOO_BIG, _) => Some((DESTINATION_UNREACHABLE, 4, mtu_to_v4(word))),
        (icmpv6::TIME_EXCEEDED, _) => Some((TIME_EXCEEDED, code, 0)),
        (icmpv6::PARAMETER_PROBLEM, 0) => Some((PARAMETER_PROBLEM, 0, pointer_to_v4(word)? << 24)),
        (icmpv6::PARAMETER_PROBLEM, 1) => Some((DESTINATION_UNREACHABLE, 2, 0)),
        _ => None,
    }
}

fn mtu_to_v6(mtu: u32, quoted: u32) -> u32 {
    let likely = || PLATEAUS.into_iter().find(|plateau| *plateau < quoted).unwrap_or(0);
    let mtu = if mtu == 0 { likely() } else { mtu };
    (mtu + HEADER_DIFFERENCE as u32).max(LEAST_MTU_V6)
}

/// No IPv6 router means less than 1,280 bytes (RFC 8200, 5), whatever it says.
fn mtu_to_v4(mtu: u32) -> u32 {
    mtu.max(LEAST_MTU_V6).min(u16::MAX.into()) - HEADER_DIFFERENCE as u32
}

/// Where the next header stands in an IPv6 header.
const NEXT_HEADER: u32 = 6;

/// Where a field of the IPv4 header stands in the IPv6 header (RFC 7915, figure 3).
const fn pointer_to_v6(pointer: u32) -> Option<u32> {
    match pointer {
        0 | 1 => Some(pointer),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(NEXT_HEADER),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}

/// Where a field of the IPv6 header stands in the IPv4 header (RFC 7915, figure 6).
const fn pointer_to_v4(pointer: u32) -> Option<u32> {
    match pointer {
        0 | 1 => Some(pointer),
        4 | 5 => Some(2),
        NEXT_HEADER => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

const _: () = assert!(LONGEST_V4 > 2 * size_of::<Ipv4Header>() + 2 * HEADER);
const _: () = assert!(LONGEST_V6 > 2 * size_of::<Ipv6Header>() + 2 * HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_is_that_of_the_other_family() {
        assert_eq!(mtu_to_v6(1400, 1500), 1420);
        assert_eq!(mtu_to_v6(576, 1500), 1280);
        assert_eq!(mtu_to_v6(0, 1500), 1512, "the plateau below the packet's length");
        assert_eq!(mtu_to_v6(0, 60), 1280);
        assert_eq!(mtu_to_v4(1500), 1480);
        assert_eq!(mtu_to_v4(0), 1260);
        assert_eq!(mtu_to_v4(u32::MAX), 65_515);
    }

    #[test]
    fn pointers_name_the_same_field() {
        let names = [(0, 0), (1, 1), (2, 4), (8, 7), (9, 6), (12, 8), (16, 24)];
        for (v4, v6) in names {
            assert_eq!((pointer_to_v6(v4), pointer_to_v4(v6)), (Some(v6), Some(v4)));
        }
        assert_eq!((pointer_to_v6(6), pointer_to_v6(20)), (None, None));
        assert_eq!((pointer_to_v4(2), pointer_to_v4(40)), (None, None));
    }
}
