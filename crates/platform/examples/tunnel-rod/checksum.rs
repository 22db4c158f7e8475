//! The Internet checksum (RFC 1071), summed in native byte order and in lanes that the compiler can widen.

/// Adds bytes to a sum.
pub(super) fn sum(mut sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0_u64; 8];
    for word in words {
        let (parts, _) = word.as_chunks::<4>();
        for (lane, part) in lanes.iter_mut().zip(parts) {
            *lane += u64::from(u32::from_ne_bytes(*part));
        }
    }
    sum += lanes.iter().sum::<u64>();
    let (pairs, last) = rest.as_chunks::<2>();
    sum += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
    sum + last.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])))
}

/// The sum in 16 bits, not yet complemented.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of an IPv4 packet's pseudo-header.
pub(super) fn pseudo_header(packet: &[u8], protocol: u8, length: usize) -> u64 {
    let length = (length as u16).to_be_bytes();
    sum(0, &packet[12..20])
        + u64::from(u16::from_ne_bytes([0, protocol]))
        + u64::from(u16::from_ne_bytes(length))
}

/// Writes the checksum of an IPv4 header of this length.
pub(super) fn set_ipv4(packet: &mut [u8], length: usize) {
    packet[10..12].fill(0);
    let checksum = !fold(sum(0, &packet[..length]));
    packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
}
