//! ICMP and ICMPv6 errors in answer to a packet that cannot be forwarded.
//!
//! The error quotes the offending packet up to the size limits of RFC 1812 4.3.2.3 (576 bytes) and RFC 4443 2.4(c)
//! (1,280 bytes). Some packets must never be answered, lest errors multiply or spread (RFC 1122, 3.2.2; RFC 4443,
//! 2.4(e)): see [`NotAnswerable`]. Rate limits (RFC 4443, 2.4(f)) are the caller's.

use std::net::IpAddr;

use crate::build::{self, BuildError};
use crate::header::{IcmpHeader, Ipv4Header, Ipv6Header};
use crate::protocol::{self, icmpv4, icmpv6};
use crate::transport::Transport;
use crate::view::PacketView;

const MAXIMUM_LENGTH_V4: usize = 576;
const MAXIMUM_LENGTH_V6: usize = 1280;

/// What is wrong with the offending packet.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum IcmpError {
    /// No route to the destination.
    NetworkUnreachable,
    /// The destination itself does not answer.
    HostUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// Policy forbids the communication.
    AdministrativelyProhibited,
    /// The next hop carries at most `mtu` bytes; IPv4 calls it "fragmentation needed" and has room for 16 bits.
    PacketTooBig {
        /// Largest packet in bytes.
        mtu: u32,
    },
    /// The packet ran out of hops.
    HopLimitExceeded,
}

/// Why an offending packet gets no ICMP error.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum NotAnswerable {
    /// It is an ICMP error or redirect itself.
    #[error("packet is an ICMP error")]
    IcmpError,
    /// It is a fragment other than the first.
    #[error("packet is a later fragment")]
    LaterFragment,
    /// Its source is not the address of a single host.
    #[error("source is not a single host")]
    Source,
    /// It is addressed to many.
    #[error("destination is multicast or broadcast")]
    Destination,
    /// The own address is of the other IP family, or the view is of another packet.
    #[error("own address does not match the packet")]
    Mismatch,
}

/// Builds the ICMP error that tells the sender of `offending` what is wrong; `own` is the address that speaks.
///
/// # Errors
///
/// [`NotAnswerable`] when the standards demand silence.
pub fn icmp_error(
    error: IcmpError,
    own: IpAddr,
    offending: &[u8],
    view: &PacketView,
) -> Result<Vec<u8>, NotAnswerable> {
    check_answerable(error, view)?;
    let (header, maximum) = match own {
        IpAddr::V4(_) => (error.header_v4(), MAXIMUM_LENGTH_V4 - size_of::<Ipv4Header>()),
        IpAddr::V6(_) => (error.header_v6(), MAXIMUM_LENGTH_V6 - size_of::<Ipv6Header>()),
    };
    let length = view.total_length().min(maximum - size_of::<IcmpHeader>());
    let quotation = offending.get(..length).ok_or(NotAnswerable::Mismatch)?;
    build::icmp(own, view.source(), header, quotation).map_err(|error| match error {
        BuildError::FamilyMismatch | BuildError::TooLong => NotAnswerable::Mismatch,
    })
}

fn check_answerable(error: IcmpError, view: &PacketView) -> Result<(), NotAnswerable> {
    match view.transport() {
        Transport::IcmpError { .. } => return Err(NotAnswerable::IcmpError),
        Transport::Icmp { kind, .. } if is_error_or_redirect(view, kind) => {
            return Err(NotAnswerable::IcmpError);
        }
        Transport::LaterFragment => return Err(NotAnswerable::LaterFragment),
        _ => {}
    }
    if !is_single_host(view.source()) {
        return Err(NotAnswerable::Source);
    }
    // Path MTU discovery must work for IPv6 multicast as well (RFC 4443, 2.4(e.3)).
    let exempt = !view.is_ipv4() && matches!(error, IcmpError::PacketTooBig { .. });
    if is_many(view.destination()) && !exempt {
        return Err(NotAnswerable::Destination);
    }
    Ok(())
}

/// Kinds that [`Transport::Icmp`] covers and that are errors nevertheless, or as dangerous to answer.
fn is_error_or_redirect(view: &PacketView, kind: u8) -> bool {
    match view.protocol() {
        protocol::ICMP => matches!(kind, icmpv4::SOURCE_QUENCH | icmpv4::REDIRECT),
        _ => kind < icmpv6::ECHO_REQUEST || kind == icmpv6::REDIRECT,
    }
}

/// Only the limited broadcast is recognisable: that of a subnet looks like a host from here.
fn is_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

fn is_single_host(address: IpAddr) -> bool {
    if is_many(address) || address.is_loopback() || address.is_unspecified() {
        return false;
    }
    // "This network" and the reserved class E are no hosts (RFC 1122, 3.2.1.3; RFC 1112, 4).
    !matches!(address, IpAddr::V4(address) if address.octets()[0] == 0 || address.octets()[0] >= 240)
}

impl IcmpError {
    fn header_v4(self) -> IcmpHeader {
        let (kind, code, mtu) = match self {
            Self::NetworkUnreachable => (icmpv4::DESTINATION_UNREACHABLE, 0, 0),
            Self::HostUnreachable => (icmpv4::DESTINATION_UNREACHABLE, 1, 0),
            Self::PortUnreachable => (icmpv4::DESTINATION_UNREACHABLE, 3, 0),
            Self::AdministrativelyProhibited => (icmpv4::DESTINATION_UNREACHABLE, 13, 0),
            Self::PacketTooBig { mtu } => (icmpv4::DESTINATION_UNREACHABLE, 4, mtu.min(u16::MAX.into())),
            Self::HopLimitExceeded => (icmpv4::TIME_EXCEEDED, 0, 0),
        };
        header(kind, code, mtu)
    }

    fn header_v6(self) -> IcmpHeader {
        let (kind, code, mtu) = match self {
            Self::NetworkUnreachable => (icmpv6::DESTINATION_UNREACHABLE, 0, 0),
            Self::AdministrativelyProhibited => (icmpv6::DESTINATION_UNREACHABLE, 1, 0),
            Self::HostUnreachable => (icmpv6::DESTINATION_UNREACHABLE, 3, 0),
            Self::PortUnreachable => (icmpv6::DESTINATION_UNREACHABLE, 4, 0),
            Self::PacketTooBig { mtu } => (icmpv6::PACKET_TOO_BIG, 0, mtu),
            Self::HopLimitExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
        };
        header(kind, code, mtu)
    }
}

/// Both families keep the MTU in the word after the checksum (RFC 1191, 4; RFC 4443, 3.2).
fn header(kind: u8, code: u8, mtu: u32) -> IcmpHeader {
    let (high, low) = ((mtu >> 16) as u16, mtu as u16);
    IcmpHeader { kind, code, checksum: 0.into(), identifier: high.into(), sequence: low.into() }
}
