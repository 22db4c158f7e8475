//! The network layer of a packet: IPv4 with options, IPv6 with its extension headers.
//!
//! Parsing here trusts nothing, but does not compare the claimed length with the buffer: a packet quoted inside an ICMP
//! error is legitimately cut short. [`PacketView`](crate::PacketView) adds that check for whole packets.

use std::net::IpAddr;

use zerocopy::FromBytes;

use crate::extension;
use crate::header::{Ipv4Header, Ipv6Header};

/// Why bytes are not an IP packet that we handle.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// There is not a single byte.
    #[error("packet is empty")]
    Empty,
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0} is unknown")]
    UnknownVersion(u8),
    /// The buffer ends inside an IPv4, IPv6 or extension header.
    #[error("IP header is truncated")]
    TruncatedHeader,
    /// A header length field contradicts the header's minimum or the packet's total length.
    #[error("IP header length is wrong")]
    HeaderLength,
    /// The packet claims more bytes than the buffer holds.
    #[error("packet is longer than its buffer")]
    TruncatedPacket,
    /// More extension headers than anyone needs (RFC 8504, 5.3 allows such a limit).
    #[error("too many IPv6 extension headers")]
    TooManyExtensions,
    /// Source routing would carry the packet past the access decision (RFC 7126, 4.3; RFC 5095).
    #[error("packet is source routed")]
    SourceRouted,
    /// A transport header is cut short, or a fragment is too small to hold it (RFC 1858, RFC 7112).
    #[error("transport header is truncated")]
    TruncatedTransport,
    /// A transport length field contradicts the packet's length.
    #[error("transport length is wrong")]
    TransportLength,
    /// A fragment would overwrite the transport header of the first one (RFC 3128).
    #[error("fragment overlaps the transport header")]
    OverlappingFragment,
    /// The ICMP message quotes no packet.
    #[error("not an ICMP error")]
    NotAnIcmpError,
}

/// Where in its original packet a fragment belongs.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub struct Fragment {
    /// Groups the fragments of one packet; 16 bits in IPv4.
    pub identification: u32,
    /// Offset of the payload in bytes; zero in the first fragment, the only one with a transport header.
    pub offset: u16,
    /// Whether more fragments follow this one.
    pub more: bool,
}

/// What the network layer says about a packet.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Network {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Upper-layer protocol, after all extension headers.
    pub(crate) protocol: u8,
    /// Where the upper layer starts.
    pub(crate) transport_offset: usize,
    /// Claimed length of the whole packet.
    pub(crate) total_length: usize,
    pub(crate) fragment: Option<Fragment>,
}

impl Network {
    // The inlining here and in the transport layer makes one function of the hot path: three times faster, because no
    // intermediate result goes through memory.
    #[inline(always)]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_ipv4(bytes),
            Some(6) => Self::parse_ipv6(bytes),
            Some(version) => Err(ParseError::UnknownVersion(version)),
            None => Err(ParseError::Empty),
        }
    }

    #[inline(always)]
    fn parse_ipv4(bytes: &[u8]) -> Result<Self, ParseError> {
        let (header, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| ParseError::TruncatedHeader)?;
        let header_length = header.length();
        let total_length = usize::from(header.total_length.get());
        if header_length < size_of::<Ipv4Header>() || total_length < header_length {
            return Err(ParseError::HeaderLength);
        }
        if header_length > size_of::<Ipv4Header>() {
            let options =
                bytes.get(size_of::<Ipv4Header>()..header_length).ok_or(ParseError::TruncatedHeader)?;
            refuse_source_routes(options)?;
        }
        Ok(Self {
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol,
            transport_offset: header_length,
            total_length,
            fragment: ipv4_fragment(header),
        })
    }

    #[inline(always)]
    fn parse_ipv6(bytes: &[u8]) -> Result<Self, ParseError> {
        let (header, _) = Ipv6Header::ref_from_prefix(bytes).map_err(|_| ParseError::TruncatedHeader)?;
        let total_length = size_of::<Ipv6Header>() + usize::from(header.payload_length.get());
        let present = &bytes[..bytes.len().min(total_length)];
        let upper = extension::walk(present, header.next_header)?;
        Ok(Self {
            source: header.source(),
            destination: header.destination(),
            protocol: upper.protocol,
            transport_offset: upper.offset,
            total_length,
            fragment: upper.fragment,
        })
    }

    /// Whether the bytes at `transport_offset` are a transport header and not the middle of a payload.
    pub(crate) fn starts_transport(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Length of the IPv4 header with options, if the packet is IPv4 and holds it.
pub(crate) fn ipv4_header_length(packet: &[u8]) -> Option<usize> {
    let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    (header.version_and_length >> 4 == 4 && header.length() <= packet.len()).then(|| header.length())
}

#[inline(always)]
fn ipv4_fragment(header: &Ipv4Header) -> Option<Fragment> {
    let field = header.fragment.get();
    let offset = (field & 0x1fff) << 3;
    let more = field & Ipv4Header::MORE_FRAGMENTS != 0;
    (offset != 0 || more).then(|| Fragment {
        identification: header.identification.get().into(),
        offset,
        more,
    })
}

/// Walks IPv4 options (RFC 791, 3.1) for the two kinds that change where the packet goes.
fn refuse_source_routes(mut options: &[u8]) -> Result<(), ParseError> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    loop {
        match options {
            [] | [END, ..] => return Ok(()),
            [NO_OPERATION, rest @ ..] => options = rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(ParseError::SourceRouted),
            [_, length, ..] if *length >= 2 => {
                options = options.get(usize::from(*length)..).ok_or(ParseError::HeaderLength)?;
            }
            _ => return Err(ParseError::HeaderLength),
        }
    }
}
