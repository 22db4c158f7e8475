//! XOR-MAPPED-ADDRESS and its relatives (RFC 8489, section 14.2).
//!
//! Port and address are combined with cookie and transaction id so that NATs which rewrite addresses
//! in payloads do not recognise them.

use super::{MAGIC_COOKIE, TransactionId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;

/// Reads the value of an XOR address attribute; `None` if the family or the length is wrong.
pub fn decode_xor_address(value: &[u8], transaction: TransactionId) -> Option<SocketAddr> {
    let (&[_, family, high, low], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([high, low]) ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match family {
        FAMILY_V4 => {
            let raw: [u8; 4] = address.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes(raw) ^ MAGIC_COOKIE))
        }
        FAMILY_V6 => {
            let raw: [u8; 16] = address.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(u128::from_be_bytes(raw) ^ mask(transaction)))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Appends the value of an XOR address attribute: 8 bytes for IPv4, 20 for IPv6.
pub fn encode_xor_address(address: SocketAddr, transaction: TransactionId, out: &mut Vec<u8>) {
    let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => {
            out.extend_from_slice(&[0, FAMILY_V4, port[0], port[1]]);
            out.extend_from_slice(&(u32::from(ip) ^ MAGIC_COOKIE).to_be_bytes());
        }
        IpAddr::V6(ip) => {
            out.extend_from_slice(&[0, FAMILY_V6, port[0], port[1]]);
            out.extend_from_slice(&(u128::from(ip) ^ mask(transaction)).to_be_bytes());
        }
    }
}

/// Cookie and transaction id as one number: the mask for IPv6 addresses.
fn mask(transaction: TransactionId) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    bytes[4..].copy_from_slice(&transaction.0);
    u128::from_be_bytes(bytes)
}
