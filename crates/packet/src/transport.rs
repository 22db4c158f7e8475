//! What a packet carries above IP, as far as flows, NAT and ICMP errors need to know.

use std::fmt;

use zerocopy::FromBytes;

use crate::header::{IcmpHeader, TcpHeader, UdpHeader};
use crate::network::{Network, ParseError};
use crate::protocol::{self, icmpv4, icmpv6};

/// The transport layer of a packet, classified once.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Control bits.
        flags: TcpFlags,
    },
    /// UDP (RFC 768).
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// ICMP or ICMPv6 echo.
    Echo {
        /// Identifier of the pinging process.
        identifier: u16,
        /// Request (true) or reply (false).
        request: bool,
    },
    /// An ICMP or ICMPv6 error, which quotes a packet; see [`Quoted`](crate::Quoted).
    IcmpError {
        /// Message type.
        kind: u8,
        /// Code within the type.
        code: u8,
    },
    /// Any other ICMP or ICMPv6 message.
    Icmp {
        /// Message type.
        kind: u8,
        /// Code within the type.
        code: u8,
    },
    /// A fragment that is not the first and therefore has no transport header.
    LaterFragment,
    /// A protocol that this crate does not look into.
    Other,
}

/// TCP control bits (RFC 9293, 3.1).
#[derive(Copy, Clone, Default, Eq, Hash, PartialEq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has finished sending.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Aborts a connection.
    pub const RST: Self = Self(0x04);
    /// Delivers without waiting for more.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// The sender has reduced its congestion window (RFC 3168, 6.1.2).
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this is the first packet of a connection: SYN without ACK.
    pub const fn opens_connection(self) -> bool {
        self.contains(Self::SYN) && !self.contains(Self::ACK)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            [(Self::FIN, 'F'), (Self::SYN, 'S'), (Self::RST, 'R'), (Self::PSH, 'P'), (Self::ACK, 'A')];
        let letters: String =
            names.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, letter)| letter).collect();
        write!(f, "TcpFlags({letters})")
    }
}

impl Transport {
    /// Classifies `segment`, the bytes after all IP headers, of a packet that is whole or a fragment.
    #[inline(always)]
    pub(crate) fn parse(network: &Network, segment: &[u8]) -> Result<Self, ParseError> {
        if !network.starts_transport() {
            return later_fragment(network);
        }
        match network.protocol {
            protocol::TCP => tcp(segment),
            protocol::UDP => udp(segment, network.fragment.is_some()),
            protocol::ICMP if network.source.is_ipv4() => icmp(segment, classify_icmpv4),
            protocol::ICMPV6 if network.source.is_ipv6() => icmp(segment, classify_icmpv6),
            _ => Ok(Self::Other),
        }
    }

    /// Classifies the start of a quoted packet, of which 8 bytes suffice (RFC 792).
    pub(crate) fn parse_quoted(network: &Network, segment: &[u8]) -> Result<Self, ParseError> {
        if !network.starts_transport() {
            return Ok(Self::LaterFragment);
        }
        match network.protocol {
            // Ports lead both headers; the TCP flags lie behind the guaranteed 8 bytes.
            protocol::TCP => {
                let (source_port, destination_port) = ports(segment)?;
                let flags = TcpFlags(segment.get(13).copied().unwrap_or(0));
                Ok(Self::Tcp { source_port, destination_port, flags })
            }
            protocol::UDP => {
                let (source_port, destination_port) = ports(segment)?;
                Ok(Self::Udp { source_port, destination_port })
            }
            _ => Self::parse(network, segment),
        }
    }
}

fn later_fragment(network: &Network) -> Result<Transport, ParseError> {
    let overlaps = network.protocol == protocol::TCP
        && network.fragment.is_some_and(|fragment| usize::from(fragment.offset) < size_of::<TcpHeader>());
    if overlaps { Err(ParseError::OverlappingFragment) } else { Ok(Transport::LaterFragment) }
}

fn ports(segment: &[u8]) -> Result<(u16, u16), ParseError> {
    let (header, _) = UdpHeader::ref_from_prefix(segment).map_err(|_| ParseError::TruncatedTransport)?;
    Ok((header.source_port.get(), header.destination_port.get()))
}

#[inline(always)]
fn tcp(segment: &[u8]) -> Result<Transport, ParseError> {
    let (header, _) = TcpHeader::ref_from_prefix(segment).map_err(|_| ParseError::TruncatedTransport)?;
    let length = header.length();
    if length < size_of::<TcpHeader>() || length > segment.len() {
        return Err(ParseError::TransportLength);
    }
    Ok(Transport::Tcp {
        source_port: header.source_port.get(),
        destination_port: header.destination_port.get(),
        flags: TcpFlags(header.flags),
    })
}

#[inline(always)]
fn udp(segment: &[u8], is_fragment: bool) -> Result<Transport, ParseError> {
    let (header, _) = UdpHeader::ref_from_prefix(segment).map_err(|_| ParseError::TruncatedTransport)?;
    let length = usize::from(header.length.get());
    // The first fragment carries the length of the whole datagram, which is beyond what it holds.
    if length < size_of::<UdpHeader>() || (length > segment.len() && !is_fragment) {
        return Err(ParseError::TransportLength);
    }
    Ok(Transport::Udp {
        source_port: header.source_port.get(),
        destination_port: header.destination_port.get(),
    })
}

fn icmp(segment: &[u8], classify: fn(&IcmpHeader) -> Transport) -> Result<Transport, ParseError> {
    let (header, _) = IcmpHeader::ref_from_prefix(segment).map_err(|_| ParseError::TruncatedTransport)?;
    Ok(classify(header))
}

fn classify_icmpv4(header: &IcmpHeader) -> Transport {
    let (kind, code, identifier) = (header.kind, header.code, header.identifier.get());
    match kind {
        icmpv4::ECHO_REQUEST => Transport::Echo { identifier, request: true },
        icmpv4::ECHO_REPLY => Transport::Echo { identifier, request: false },
        icmpv4::DESTINATION_UNREACHABLE | icmpv4::TIME_EXCEEDED | icmpv4::PARAMETER_PROBLEM => {
            Transport::IcmpError { kind, code }
        }
        // Redirects and source quench also quote, but nobody may steer or slow a tunnelled flow with them.
        _ => Transport::Icmp { kind, code },
    }
}

fn classify_icmpv6(header: &IcmpHeader) -> Transport {
    let (kind, code, identifier) = (header.kind, header.code, header.identifier.get());
    match kind {
        icmpv6::ECHO_REQUEST => Transport::Echo { identifier, request: true },
        icmpv6::ECHO_REPLY => Transport::Echo { identifier, request: false },
        icmpv6::DESTINATION_UNREACHABLE..=icmpv6::PARAMETER_PROBLEM => Transport::IcmpError { kind, code },
        _ => Transport::Icmp { kind, code },
    }
}
