//! A packet that may be part of a batch: plain headers, whole, with payload.

use super::{Offload, TCP_CHECKSUM, UDP_CHECKSUM, double_word_at, word_at};
use crate::checksum::Sum;
use crate::header::{Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use crate::protocol;
use crate::transport::TcpFlags;

/// What decides which segments go together and how.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Tcp,
    Udp,
}

/// A packet without options, extension headers or fragmentation, with TCP or UDP payload.
#[derive(Copy, Clone, Debug)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    pub(super) is_ipv4: bool,
    pub(super) transport_offset: usize,
    pub(super) header_length: usize,
    /// Length of the packet in bytes.
    pub(super) length: usize,
    /// TCP sequence number.
    pub(super) sequence: u32,
    /// Nothing may follow it: its sender wants it delivered.
    pub(super) is_pushed: bool,
}

impl Segment {
    /// `None` for packets that always travel alone.
    #[inline(always)]
    pub(super) fn parse(packet: &[u8], offload: Offload) -> Option<Self> {
        let (is_ipv4, transport_offset, protocol) = plain_network(packet)?;
        let transport = packet.get(transport_offset..)?;
        let (kind, transport_length, sequence, is_pushed) = match protocol {
            protocol::TCP if offload >= Offload::Tcp => {
                let (length, sequence, is_pushed) = plain_tcp(transport)?;
                (Kind::Tcp, length, sequence, is_pushed)
            }
            protocol::UDP if offload >= Offload::TcpAndUdp => {
                let is_plain = is_plain_udp(transport);
                is_plain.then_some((Kind::Udp, size_of::<UdpHeader>(), 0, false))?
            }
            _ => return None,
        };
        let (header_length, length) = (transport_offset + transport_length, packet.len());
        (length > header_length).then_some(Self {
            kind,
            is_ipv4,
            transport_offset,
            header_length,
            length,
            sequence,
            is_pushed,
        })
    }

    /// Payload in bytes, at least 1.
    pub(super) const fn payload(&self) -> usize {
        self.length - self.header_length
    }

    /// Whether both checksums of the packet are right.
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let (network, transport) = packet.split_at(self.transport_offset);
        if self.is_ipv4 && Sum::new().bytes(network).folded() != 0xffff {
            return false;
        }
        self.pseudo_header(network, transport.len()).bytes(transport).folded() == 0xffff
    }

    /// The pseudo header over `length` bytes of transport header and payload.
    pub(super) fn pseudo_header(&self, network: &[u8], length: usize) -> Sum {
        let (addresses, protocol) = match self.kind {
            Kind::Tcp => (addresses(network, self.is_ipv4), protocol::TCP),
            Kind::Udp => (addresses(network, self.is_ipv4), protocol::UDP),
        };
        Sum::new().bytes(addresses).word(protocol.into()).double_word(length as u32)
    }

    /// Where the checksum field lies in the transport header.
    pub(super) const fn checksum_offset(&self) -> usize {
        match self.kind {
            Kind::Tcp => TCP_CHECKSUM,
            Kind::Udp => UDP_CHECKSUM,
        }
    }
}

/// Source and destination, side by side.
pub(super) fn addresses(network: &[u8], is_ipv4: bool) -> &[u8] {
    if is_ipv4 { &network[12..20] } else { &network[8..40] }
}

/// IP version (is it 4), header length and protocol, when there is nothing special about the header.
fn plain_network(packet: &[u8]) -> Option<(bool, usize, u8)> {
    const IPV4: usize = size_of::<Ipv4Header>();
    const IPV6: usize = size_of::<Ipv6Header>();
    match packet {
        [0x45, ..] if packet.len() > IPV4 => {
            let is_whole = usize::from(word_at(packet, 2)) == packet.len();
            let is_fragment = word_at(packet, 6) & !Ipv4Header::DONT_FRAGMENT != 0;
            (is_whole && !is_fragment).then_some((true, IPV4, packet[9]))
        }
        [0x60..=0x6f, ..] if packet.len() > IPV6 => {
            let is_whole = IPV6 + usize::from(word_at(packet, 4)) == packet.len();
            is_whole.then_some((false, IPV6, packet[6]))
        }
        _ => None,
    }
}

/// Header length, sequence number and whether it is pushed, of a segment with no control bit but ACK and PSH.
fn plain_tcp(transport: &[u8]) -> Option<(usize, u32, bool)> {
    if transport.len() < size_of::<TcpHeader>() {
        return None;
    }
    let length = usize::from(transport[12] >> 4) * 4;
    let is_plain = transport[13] & !TcpFlags::PSH.0 == TcpFlags::ACK.0;
    let is_pushed = transport[13] & TcpFlags::PSH.0 != 0;
    let fits = (size_of::<TcpHeader>()..transport.len()).contains(&length);
    (is_plain && fits).then(|| (length, double_word_at(transport, 4), is_pushed))
}

/// Without a checksum nobody could say whether the datagram is intact.
fn is_plain_udp(transport: &[u8]) -> bool {
    transport.len() > size_of::<UdpHeader>()
        && usize::from(word_at(transport, 4)) == transport.len()
        && word_at(transport, UDP_CHECKSUM) != 0
}

/// Whether `packet` may belong to the flow of the plain packet that begins with `headers`; when in doubt it may.
pub(super) fn may_share_flow(headers: &[u8], segment: &Segment, packet: &[u8]) -> bool {
    let is_ipv4 = match packet.first().map(|first| first >> 4) {
        Some(4) => true,
        Some(6) => false,
        _ => return false,
    };
    let at = segment.transport_offset;
    if is_ipv4 != segment.is_ipv4 || packet.len() < at {
        return false;
    }
    if addresses(packet, is_ipv4) != addresses(headers, is_ipv4) {
        return false;
    }
    let next = if is_ipv4 { 9 } else { 6 };
    let (own, other) = (headers[next], packet[next]);
    // A fragment may lack the ports, and options or extension headers move them.
    let is_plain = !is_ipv4 || (packet[0] == 0x45 && word_at(packet, 6) & 0x3fff == 0);
    match other {
        protocol::TCP | protocol::UDP if is_plain && packet.len() >= at + 4 => {
            own == other && packet[at..at + 4] == headers[at..at + 4]
        }
        protocol::ICMP | protocol::ICMPV6 => false,
        _ => true,
    }
}
