//! TCP and UDP flows as senders cut them: each packet made by etherparse from what the sender would say.

use adit_packet::offload::{Segmentation, VirtioHeader};
use adit_packet::{PacketView, checksum::Sum};
use etherparse::{IpFragOffset, IpNumber, PacketBuilder, TcpHeader, TcpOptionElement};
use proptest::prelude::*;

/// One direction of a flow, and a payload that its sender cuts into segments of one size.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) is_ipv4: bool,
    pub(crate) is_tcp: bool,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) sequence: u32,
    pub(crate) timestamps: Option<(u32, u32)>,
    /// On the last segment.
    pub(crate) push: bool,
    pub(crate) finish: bool,
    /// "Congestion window reduced", on the first segment.
    pub(crate) reduced: bool,
    pub(crate) segment_size: usize,
    pub(crate) payload: Vec<u8>,
}

impl Stream {
    pub(crate) fn count(&self) -> usize {
        self.payload.len().div_ceil(self.segment_size)
    }

    /// Segment `index`, complete.
    pub(crate) fn segment(&self, index: usize) -> Vec<u8> {
        let start = index * self.segment_size;
        let payload = &self.payload[start..(start + self.segment_size).min(self.payload.len())];
        self.packet(index, payload, index == 0, index + 1 == self.count())
    }

    pub(crate) fn segments(&self) -> Vec<Vec<u8>> {
        (0..self.count()).map(|index| self.segment(index)).collect()
    }

    /// The whole with its virtio header, as the kernel hands it over.
    pub(crate) fn super_packet(&self) -> (VirtioHeader, Vec<u8>) {
        let mut bytes = self.packet(0, &self.payload, true, true);
        let at = self.transport_offset();
        let view = PacketView::parse(&bytes).expect("valid");
        let length = (bytes.len() - at) as u32;
        let partial =
            Sum::new().pseudo_header(view.source(), view.destination(), view.protocol(), length).folded();
        let field = at + self.checksum_offset();
        bytes[field..field + 2].copy_from_slice(&partial.to_be_bytes());
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: self.segmentation(),
            header_length: (bytes.len() - self.payload.len()) as u16,
            segment_size: self.segment_size as u16,
            checksum_start: at as u16,
            checksum_offset: self.checksum_offset() as u16,
            ..VirtioHeader::NONE
        };
        (header, bytes)
    }

    pub(crate) fn transport_offset(&self) -> usize {
        if self.is_ipv4 { 20 } else { 40 }
    }

    pub(crate) fn checksum_offset(&self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    fn segmentation(&self) -> Segmentation {
        match (self.is_tcp, self.is_ipv4) {
            (true, true) => Segmentation::TcpV4,
            (true, false) => Segmentation::TcpV6,
            (false, _) => Segmentation::Udp,
        }
    }

    fn packet(&self, index: usize, payload: &[u8], is_first: bool, is_last: bool) -> Vec<u8> {
        let step = PacketBuilder::ip(self.ip_headers(index));
        let mut bytes = Vec::new();
        let written = if self.is_tcp {
            let sequence = self.sequence.wrapping_add((index * self.segment_size) as u32);
            let mut header = TcpHeader::new(self.source_port, self.destination_port, sequence, 501);
            (header.ack, header.acknowledgment_number) = (true, 77);
            (header.psh, header.fin) = (self.push && is_last, self.finish && is_last);
            header.cwr = self.reduced && is_first;
            if let Some((value, echo)) = self.timestamps {
                let options = [
                    TcpOptionElement::Noop,
                    TcpOptionElement::Noop,
                    TcpOptionElement::Timestamp(value, echo),
                ];
                header.set_options(&options).expect("fits");
            }
            step.tcp_header(header).write(&mut bytes, payload)
        } else {
            step.udp(self.source_port, self.destination_port).write(&mut bytes, payload)
        };
        written.expect("a valid packet");
        bytes
    }

    fn ip_headers(&self, index: usize) -> etherparse::IpHeaders {
        let protocol = if self.is_tcp { IpNumber::TCP } else { IpNumber::UDP };
        if self.is_ipv4 {
            let mut header = etherparse::Ipv4Header::new(0, 63, protocol, [10, 1, 2, 3], [192, 0, 2, 9])
                .expect("an empty payload fits");
            header.identification = self.identification.wrapping_add(index as u16);
            (header.dont_fragment, header.fragment_offset) = (self.dont_fragment, IpFragOffset::ZERO);
            etherparse::IpHeaders::Ipv4(header, Default::default())
        } else {
            let (mut source, mut destination) = ([0x20; 16], [0xfd; 16]);
            (source[15], destination[15]) = (1, 2);
            let header = etherparse::Ipv6Header {
                next_header: protocol,
                hop_limit: 63,
                source,
                destination,
                ..Default::default()
            };
            etherparse::IpHeaders::Ipv6(header, Default::default())
        }
    }
}

/// Flows of both protocols and IP versions, from one segment to 64 KiB.
pub(crate) fn stream() -> impl Strategy<Value = Stream> {
    let size = prop_oneof![1..40usize, 500..1_500usize];
    let flags = any::<(bool, bool, bool)>();
    let numbers = (any::<(u16, u16)>(), any::<u16>(), any::<u32>(), any::<Option<(u32, u32)>>());
    (any::<(bool, bool, bool)>(), numbers, flags, size, 1..46usize, any::<prop::sample::Index>(), any::<u8>())
        .prop_map(
            |(
                (is_ipv4, is_tcp, dont_fragment),
                (ports, identification, sequence, timestamps),
                flags,
                size,
                count,
                cut,
                seed,
            )| {
                let length = (count - 1) * size + 1 + cut.index(size);
                let length = length.min(65_000);
                Stream {
                    is_ipv4,
                    is_tcp,
                    source_port: ports.0,
                    destination_port: ports.1,
                    identification,
                    dont_fragment,
                    sequence,
                    timestamps,
                    push: flags.0,
                    finish: flags.1,
                    reduced: flags.2,
                    segment_size: size,
                    payload: (0..length).map(|at| (at * 31 / 7) as u8 ^ seed).collect(),
                }
            },
        )
}

/// Flows without control bits that end a batch before its time.
pub(crate) fn plain_stream() -> impl Strategy<Value = Stream> {
    stream().prop_map(|mut stream| {
        (stream.finish, stream.reduced) = (false, false);
        stream
    })
}
