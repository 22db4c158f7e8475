//! Whole packets from scratch: UDP datagrams and ICMP echoes.
//!
//! Built packets are unfragmented, carry no options, a hop limit of 64 and, over IPv4, "don't fragment" with
//! identification zero, which such atomic packets may share (RFC 6864, 4.1).

use std::net::{IpAddr, SocketAddr};

use zerocopy::IntoBytes;

use crate::checksum::{self, Sum};
use crate::header::{IcmpHeader, Ipv4Header, Ipv6Header, UdpHeader};
use crate::protocol::{self, icmpv4, icmpv6};

const HOP_LIMIT: u8 = 64;

/// Why a packet cannot be built.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// Source and destination are of different IP families.
    #[error("addresses are of different IP versions")]
    FamilyMismatch,
    /// The packet would exceed 65,535 bytes.
    #[error("payload is too long")]
    TooLong,
}

/// One end and the other of an ICMP echo exchange.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub struct Echo {
    /// Sender of this message.
    pub source: IpAddr,
    /// Receiver of this message.
    pub destination: IpAddr,
    /// Names the pinging process.
    pub identifier: u16,
    /// Counts the requests.
    pub sequence: u16,
}

/// A UDP datagram with its checksum.
///
/// # Errors
///
/// [`BuildError`] for mixed families and payloads that do not fit.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    let length = size_of::<UdpHeader>() + payload.len();
    let mut packet = ip_header(source.ip(), destination.ip(), protocol::UDP, length)?;
    let mut header = UdpHeader {
        source_port: source.port().into(),
        destination_port: destination.port().into(),
        length: (length as u16).into(),
        checksum: 0.into(),
    };
    let sum = Sum::new()
        .pseudo_header(source.ip(), destination.ip(), protocol::UDP, length as u32)
        .bytes(header.as_bytes())
        .bytes(payload);
    header.checksum = checksum::zero_as_ones(sum.checksum()).into();
    packet.extend_from_slice(header.as_bytes());
    packet.extend_from_slice(payload);
    Ok(packet)
}

/// An ICMP or ICMPv6 echo request.
///
/// # Errors
///
/// [`BuildError`] for mixed families and payloads that do not fit.
pub fn echo_request(echo: Echo, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    let kind = if echo.source.is_ipv4() { icmpv4::ECHO_REQUEST } else { icmpv6::ECHO_REQUEST };
    icmp(echo.source, echo.destination, echo_header(echo, kind), payload)
}

/// An ICMP or ICMPv6 echo reply; `payload` is that of the request.
///
/// # Errors
///
/// [`BuildError`] for mixed families and payloads that do not fit.
pub fn echo_reply(echo: Echo, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    let kind = if echo.source.is_ipv4() { icmpv4::ECHO_REPLY } else { icmpv6::ECHO_REPLY };
    icmp(echo.source, echo.destination, echo_header(echo, kind), payload)
}

fn echo_header(echo: Echo, kind: u8) -> IcmpHeader {
    IcmpHeader {
        kind,
        code: 0,
        checksum: 0.into(),
        identifier: echo.identifier.into(),
        sequence: echo.sequence.into(),
    }
}

/// An ICMP or ICMPv6 message; the checksum in `header` must be zero and is filled in.
pub(crate) fn icmp(
    source: IpAddr,
    destination: IpAddr,
    mut header: IcmpHeader,
    payload: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let length = size_of::<IcmpHeader>() + payload.len();
    let protocol = if source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let mut packet = ip_header(source, destination, protocol, length)?;
    // ICMP for IPv4 has no pseudo header; ICMPv6 does (RFC 4443, 2.3).
    let start = match source {
        IpAddr::V4(_) => Sum::new(),
        IpAddr::V6(_) => Sum::new().pseudo_header(source, destination, protocol, length as u32),
    };
    header.checksum = start.bytes(header.as_bytes()).bytes(payload).checksum().into();
    packet.extend_from_slice(header.as_bytes());
    packet.extend_from_slice(payload);
    Ok(packet)
}

/// An IP header for `length` bytes of payload, in a vector with room for them.
fn ip_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> Result<Vec<u8>, BuildError> {
    let mut packet = Vec::with_capacity(size_of::<Ipv6Header>() + length);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_length = size_of::<Ipv4Header>() + length;
            let mut header = Ipv4Header {
                version_and_length: 0x45,
                traffic_class: 0,
                total_length: u16::try_from(total_length).map_err(|_| BuildError::TooLong)?.into(),
                identification: 0.into(),
                fragment: Ipv4Header::DONT_FRAGMENT.into(),
                time_to_live: HOP_LIMIT,
                protocol,
                checksum: 0.into(),
                source: source.octets(),
                destination: destination.octets(),
            };
            header.checksum = Sum::new().bytes(header.as_bytes()).checksum().into();
            packet.extend_from_slice(header.as_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                version_class_label: (6 << 28).into(),
                payload_length: u16::try_from(length).map_err(|_| BuildError::TooLong)?.into(),
                next_header: protocol,
                hop_limit: HOP_LIMIT,
                source: source.octets(),
                destination: destination.octets(),
            };
            packet.extend_from_slice(header.as_bytes());
        }
        _ => return Err(BuildError::FamilyMismatch),
    }
    Ok(packet)
}
