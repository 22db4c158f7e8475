//! FINGERPRINT: CRC-32 of the message, combined with a constant (RFC 8489, section 14.7).

use super::HEADER;

/// "STUN" in ASCII, so that the CRC differs from that of an enclosing protocol.
const MASK: u32 = 0x5354_554e;

/// Bytes of the attribute: header and value.
pub(super) const ATTRIBUTE: usize = 8;

const TABLE: [u32; 256] = table();

/// The fingerprint of a message whose FINGERPRINT attribute starts at the end of `before`.
///
/// `before` must start with the 20-byte header; its length field is taken as if the message ended
/// with the attribute.
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    let length = ((before.len() - HEADER + ATTRIBUTE) as u16).to_be_bytes();
    let crc = update(u32::MAX, &before[..2]);
    let crc = update(crc, &length);
    !update(crc, &before[4..]) ^ MASK
}

fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// The table of the reflected polynomial of ISO 3309.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}
