//! The fixed headers as zero-copy structs over packet bytes.
//!
//! Each struct has the exact layout of its header, so a checked reference into the packet replaces decoding. Fields keep
//! their wire names; anything that spans bits has an accessor. [`PacketView`](crate::PacketView) says where a header
//! starts; the structs themselves know nothing of options, payloads or lengths.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of an IPv4 header (RFC 791, 3.1), 20 bytes.
#[derive(Copy, Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    pub version_and_length: u8,
    /// Differentiated services (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Length of header and payload in bytes.
    pub total_length: U16,
    /// Groups the fragments of one packet.
    pub identification: U16,
    /// Reserved bit, don't fragment, more fragments, and offset in units of 8 bytes (13 bits).
    pub fragment: U16,
    /// Hops left.
    pub time_to_live: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Checksum over the header with options.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Bit of [`fragment`](Self::fragment): routers may not fragment.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// Bit of [`fragment`](Self::fragment): not the last fragment.
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// Header length with options, in bytes (0–60; below 20 is invalid).
    pub const fn length(&self) -> usize {
        (self.version_and_length & 0x0f) as usize * 4
    }

    /// Whether routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        self.fragment.get() & Self::DONT_FRAGMENT != 0
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.source))
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.destination))
    }
}

/// The fixed IPv6 header (RFC 8200, 3), 40 bytes.
#[derive(Copy, Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_label: U32,
    /// Length of all that follows this header, in bytes.
    pub payload_length: U16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Differentiated services and ECN.
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.source))
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.destination))
    }
}

/// The UDP header (RFC 768), 8 bytes.
#[derive(Copy, Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Length of header and payload in bytes.
    pub length: U16,
    /// Checksum; zero over IPv4 means none.
    pub checksum: U16,
}

/// The fixed part of a TCP header (RFC 9293, 3.1), 20 bytes.
#[derive(Copy, Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number of the first payload byte.
    pub sequence: U32,
    /// Next sequence number expected.
    pub acknowledgment: U32,
    /// Header length in 32-bit words (4 bits) and reserved bits.
    pub data_offset: u8,
    /// Control bits; see [`TcpFlags`](crate::TcpFlags).
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Checksum with pseudo header.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl TcpHeader {
    /// Header length with options, in bytes (0–60; below 20 is invalid).
    pub const fn length(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}

/// The first 8 bytes of ICMP (RFC 792) and ICMPv6 (RFC 4443) messages.
#[derive(Copy, Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// Message type.
    pub kind: u8,
    /// Code within the type.
    pub code: u8,
    /// Checksum; with pseudo header for ICMPv6 only.
    pub checksum: U16,
    /// Echo identifier, or high half of a message-specific word.
    pub identifier: U16,
    /// Echo sequence number, or low half of a message-specific word (such as the MTU of IPv4's "fragmentation needed").
    pub sequence: U16,
}

const _: () = assert!(size_of::<Ipv4Header>() == 20 && align_of::<Ipv4Header>() == 1);
const _: () = assert!(size_of::<Ipv6Header>() == 40 && align_of::<Ipv6Header>() == 1);
const _: () = assert!(size_of::<UdpHeader>() == 8 && align_of::<UdpHeader>() == 1);
const _: () = assert!(size_of::<TcpHeader>() == 20 && align_of::<TcpHeader>() == 1);
const _: () = assert!(size_of::<IcmpHeader>() == 8 && align_of::<IcmpHeader>() == 1);
