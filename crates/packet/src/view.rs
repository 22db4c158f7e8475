//! One validated pass over a packet, for the hot path.

use std::net::{IpAddr, SocketAddr};

use crate::network::{Fragment, Network, ParseError};
use crate::transport::{TcpFlags, Transport};

/// Everything about a packet that flow lookup, NAT and edits need; made once, by [`PacketView::parse`].
///
/// A view stands beside the bytes it was made from, borrows nothing and goes stale when addresses or ports are
/// rewritten. Edits check the length of the buffer they get against the view, so a view of *another* packet may spoil a
/// packet but cannot cause a panic.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct PacketView {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport: Transport,
    fragment: Option<Fragment>,
    transport_offset: u32,
    total_length: u32,
}

/// The tuple by which packets of one flow in one direction are recognised.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowTuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port; for ICMP echo its identifier.
    pub source_port: u16,
    /// Destination port; for ICMP echo its identifier too.
    pub destination_port: u16,
}

impl FlowTuple {
    /// The tuple of packets in the opposite direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    pub(crate) const fn new(network: &Network, transport: Transport) -> Option<Self> {
        let (source_port, destination_port) = match transport {
            Transport::Tcp { source_port, destination_port, .. }
            | Transport::Udp { source_port, destination_port } => (source_port, destination_port),
            Transport::Echo { identifier, .. } => (identifier, identifier),
            Transport::IcmpError { .. }
            | Transport::Icmp { .. }
            | Transport::LaterFragment
            | Transport::Other => {
                return None;
            }
        };
        let Network { protocol, source, destination, .. } = *network;
        Some(Self { protocol, source, destination, source_port, destination_port })
    }
}

impl PacketView {
    /// Reads all headers of `packet`, which may be followed by padding.
    ///
    /// # Errors
    ///
    /// [`ParseError`] for anything that is not a well-formed IPv4 or IPv6 packet, source-routed packets included.
    #[inline(always)]
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let network = Network::parse(packet)?;
        let whole = packet.get(..network.total_length).ok_or(ParseError::TruncatedPacket)?;
        let segment = whole.get(network.transport_offset..).ok_or(ParseError::HeaderLength)?;
        let transport = Transport::parse(&network, segment)?;
        Ok(Self {
            source: network.source,
            destination: network.destination,
            protocol: network.protocol,
            transport,
            fragment: network.fragment,
            transport_offset: network.transport_offset as u32,
            total_length: network.total_length as u32,
        })
    }

    /// Source address.
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// Destination address.
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Whether the packet is IPv4 (else IPv6).
    pub const fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Upper-layer protocol number, after all IPv6 extension headers.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// What the packet carries.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Set for fragments, first ones included; atomic fragments (RFC 6946) count as whole.
    pub const fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Where the upper layer starts, in bytes.
    pub const fn transport_offset(&self) -> usize {
        self.transport_offset as usize
    }

    /// Length of the packet in bytes; the buffer may be longer (padding).
    pub const fn total_length(&self) -> usize {
        self.total_length as usize
    }

    /// TCP or UDP source port.
    pub const fn source_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp { source_port, .. } | Transport::Udp { source_port, .. } => Some(source_port),
            _ => None,
        }
    }

    /// TCP or UDP destination port.
    pub const fn destination_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp { destination_port, .. } | Transport::Udp { destination_port, .. } => {
                Some(destination_port)
            }
            _ => None,
        }
    }

    /// TCP control bits; none set for other protocols.
    pub const fn tcp_flags(&self) -> TcpFlags {
        match self.transport {
            Transport::Tcp { flags, .. } => flags,
            _ => TcpFlags(0),
        }
    }

    /// The flow this packet belongs to: TCP, UDP and ICMP echo only, and no later fragments.
    pub const fn flow(&self) -> Option<FlowTuple> {
        let network = self.network();
        FlowTuple::new(&network, self.transport)
    }

    /// Source address and port of TCP and UDP.
    pub const fn source_socket(&self) -> Option<SocketAddr> {
        match self.source_port() {
            Some(port) => Some(SocketAddr::new(self.source, port)),
            None => None,
        }
    }

    /// Destination address and port of TCP and UDP.
    pub const fn destination_socket(&self) -> Option<SocketAddr> {
        match self.destination_port() {
            Some(port) => Some(SocketAddr::new(self.destination, port)),
            None => None,
        }
    }

    /// The payload of a UDP packet that is not a fragment.
    pub fn udp_payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        if !matches!(self.transport, Transport::Udp { .. }) || self.fragment.is_some() {
            return None;
        }
        let segment = packet.get(self.transport_offset()..self.total_length())?;
        let length = usize::from(u16::from_be_bytes([*segment.get(4)?, *segment.get(5)?]));
        segment.get(8..length)
    }

    const fn network(&self) -> Network {
        Network {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            transport_offset: self.transport_offset as usize,
            total_length: self.total_length as usize,
            fragment: self.fragment,
        }
    }
}
