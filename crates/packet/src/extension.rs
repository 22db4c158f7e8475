//! The chain of IPv6 extension headers (RFC 8200, 4), walked with a bound.
//!
//! The walk ends at the first header that is not an extension (TCP, UDP, ICMPv6, ESP, "no next header", anything
//! unknown) or at a fragment that is not the first. Options inside the headers are not examined.

use crate::header::Ipv6Header;
use crate::network::{Fragment, ParseError};
use crate::protocol;

/// Real packets carry at most three or four; a longer chain only burns time (RFC 8504, 5.3).
const MAXIMUM_EXTENSIONS: usize = 8;

/// What follows the extension headers.
#[derive(Copy, Clone, Debug)]
pub(crate) struct UpperLayer {
    pub(crate) protocol: u8,
    pub(crate) offset: usize,
    pub(crate) fragment: Option<Fragment>,
}

/// Walks the chain that starts right after the fixed header of `packet`.
pub(crate) fn walk(packet: &[u8], next_header: u8) -> Result<UpperLayer, ParseError> {
    let mut upper = UpperLayer { protocol: next_header, offset: size_of::<Ipv6Header>(), fragment: None };
    for _ in 0..=MAXIMUM_EXTENSIONS {
        let rest = &packet[upper.offset..];
        let length = match upper.protocol {
            protocol::FRAGMENT => {
                upper.fragment = fragment(rest)?;
                8
            }
            protocol::ROUTING => {
                refuse_segments_left(rest)?;
                eight_octet_units(rest)?
            }
            protocol::AUTHENTICATION => four_octet_units(rest)?,
            protocol::HOP_BY_HOP
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HOST_IDENTITY
            | protocol::SHIM6 => eight_octet_units(rest)?,
            _ => return Ok(upper),
        };
        if rest.len() < length {
            return Err(ParseError::TruncatedHeader);
        }
        upper.protocol = rest[0];
        upper.offset += length;
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper);
        }
    }
    Err(ParseError::TooManyExtensions)
}

/// A fragment header (RFC 8200, 4.5); an atomic fragment (RFC 6946) is a whole packet.
fn fragment(header: &[u8]) -> Result<Option<Fragment>, ParseError> {
    let Some((&[_, _, high, low, identification @ ..], _)) = header.split_first_chunk::<8>() else {
        return Err(ParseError::TruncatedHeader);
    };
    let field = u16::from_be_bytes([high, low]);
    let (offset, more) = (field & 0xfff8, field & 1 != 0);
    let identification = u32::from_be_bytes(identification);
    Ok((offset != 0 || more).then_some(Fragment { identification, offset, more }))
}

/// With segments left, the destination we would decide on is not where the packet ends up (RFC 5095).
fn refuse_segments_left(header: &[u8]) -> Result<(), ParseError> {
    match header.get(3) {
        Some(0) => Ok(()),
        Some(_) => Err(ParseError::SourceRouted),
        None => Err(ParseError::TruncatedHeader),
    }
}

fn eight_octet_units(header: &[u8]) -> Result<usize, ParseError> {
    header.get(1).map(|units| (usize::from(*units) + 1) * 8).ok_or(ParseError::TruncatedHeader)
}

/// The authentication header counts differently from all others (RFC 4302, 2.2).
fn four_octet_units(header: &[u8]) -> Result<usize, ParseError> {
    header.get(1).map(|units| (usize::from(*units) + 2) * 4).ok_or(ParseError::TruncatedHeader)
}
