//! Frames made by etherparse, and taken apart again; it shares no code with the program.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, LinkSlice,
    NetSlice, SlicedPacket, TransportSlice, UdpHeader,
};

use crate::ground::{RELAY, ROUTER};
use crate::relay::Datagram;

/// Everything around a datagram.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) hop_limit: u8,
    pub(crate) class: u8,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    /// Bytes behind the IP packet, as Ethernet adds to short frames.
    pub(crate) trailer: Vec<u8>,
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            hop_limit: 57,
            class: 0,
            identification: 77,
            dont_fragment: true,
            trailer: Vec::new(),
            to: RELAY,
            from: ROUTER,
        }
    }
}

/// The frame of a datagram, with right checksums.
pub(crate) fn build(datagram: &Datagram, envelope: &Envelope) -> Vec<u8> {
    let (source, destination) = (datagram.source, datagram.destination);
    let payload = &datagram.payload;
    let mut frame = Vec::new();
    let ether_type = if source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let ethernet = Ethernet2Header { source: envelope.from, destination: envelope.to, ether_type };
    ethernet.write(&mut frame).expect("writes");
    let udp = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = 8 + payload.len() as u16;
            let mut ip =
                Ipv4Header::new(length, envelope.hop_limit, IpNumber::UDP, from.octets(), to.octets())
                    .expect("fits");
            ip.dscp = (envelope.class >> 2).try_into().expect("six bits");
            ip.ecn = (envelope.class & 3).try_into().expect("two bits");
            ip.identification = envelope.identification;
            ip.dont_fragment = envelope.dont_fragment;
            ip.fragment_offset = IpFragOffset::ZERO;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut frame).expect("writes");
            UdpHeader::with_ipv4_checksum(source.port(), destination.port(), &ip, payload).expect("fits")
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header {
                traffic_class: envelope.class,
                flow_label: Ipv6FlowLabel::try_from(0x12345).expect("20 bits"),
                payload_length: 8 + payload.len() as u16,
                next_header: IpNumber::UDP,
                hop_limit: envelope.hop_limit,
                source: from.octets(),
                destination: to.octets(),
            };
            ip.write(&mut frame).expect("writes");
            UdpHeader::with_ipv6_checksum(source.port(), destination.port(), &ip, payload).expect("fits")
        }
        _ => panic!("families differ"),
    };
    udp.write(&mut frame).expect("writes");
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&envelope.trailer);
    frame
}

/// A frame taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) datagram: Datagram,
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) hop_limit: u8,
    pub(crate) class: u8,
    /// Identification and whether it may be fragmented; IPv4 alone.
    pub(crate) ipv4: Option<(u16, bool)>,
    pub(crate) flow_label: u32,
    pub(crate) checksum: u16,
    /// What the checksum should be.
    pub(crate) right_checksum: u16,
    /// Sum of the pseudo header, as a sender leaves it that does not finish the checksum.
    pub(crate) unfinished_checksum: u16,
    /// Bytes from the Ethernet header to the end of the UDP payload.
    pub(crate) length: usize,
}

/// Takes apart a frame that is plain and complete, or says why it is not.
pub(crate) fn parse(frame: &[u8]) -> Result<Parsed, String> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else { return Err("not Ethernet".to_owned()) };
    if !sliced.link_exts.is_empty() {
        return Err("tagged".to_owned());
    }
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else { return Err("not UDP".to_owned()) };
    let header = udp.to_header();
    let (hop_limit, class, ipv4, flow_label, source, destination, ip_length, right, header_length);
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let ip_header = ip.header().to_header();
            if ip_header.header_len() != 20 || !ip.extensions().is_empty() {
                return Err("IPv4 options".to_owned());
            }
            if ip_header.more_fragments
                || ip_header.fragment_offset != IpFragOffset::ZERO
                || frame[20] & 0x80 != 0
            {
                return Err("a fragment".to_owned());
            }
            if ip_header.calc_header_checksum() != ip_header.header_checksum {
                return Err("IPv4 checksum".to_owned());
            }
            hop_limit = ip_header.time_to_live;
            class = ip_header.dscp.value() << 2 | ip_header.ecn.value();
            ipv4 = Some((ip_header.identification, ip_header.dont_fragment));
            flow_label = 0;
            source = IpAddr::from(ip_header.source);
            destination = IpAddr::from(ip_header.destination);
            ip_length = usize::from(ip_header.total_len) - 20;
            right =
                header.calc_checksum_ipv4(&ip_header, udp.payload()).map_err(|error| error.to_string())?;
            header_length = 34;
        }
        Some(NetSlice::Ipv6(ip)) => {
            let ip_header = ip.header().to_header();
            if ip_header.next_header != IpNumber::UDP {
                return Err("IPv6 extension headers".to_owned());
            }
            hop_limit = ip_header.hop_limit;
            class = ip_header.traffic_class;
            ipv4 = None;
            flow_label = ip_header.flow_label.value();
            source = IpAddr::from(ip_header.source);
            destination = IpAddr::from(ip_header.destination);
            ip_length = usize::from(ip_header.payload_length);
            right =
                header.calc_checksum_ipv6(&ip_header, udp.payload()).map_err(|error| error.to_string())?;
            header_length = 54;
        }
        _ => return Err("not IP".to_owned()),
    }
    if ip_length != usize::from(header.length) || ip_length != 8 + udp.payload().len() {
        return Err("UDP length".to_owned());
    }
    let datagram = Datagram {
        source: SocketAddr::new(source, header.source_port),
        destination: SocketAddr::new(destination, header.destination_port),
        payload: udp.payload().to_vec(),
    };
    Ok(Parsed {
        unfinished_checksum: pseudo_header_sum(&datagram),
        datagram,
        to: ethernet.destination(),
        from: ethernet.source(),
        hop_limit,
        class,
        ipv4,
        flow_label,
        checksum: header.checksum,
        right_checksum: right,
        length: header_length + ip_length,
    })
}

/// Adds 16-bit words with end-around carry.
fn pseudo_header_sum(datagram: &Datagram) -> u16 {
    let mut bytes = Vec::new();
    for ip in [datagram.source.ip(), datagram.destination.ip()] {
        match ip {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
    }
    bytes.extend_from_slice(&17_u16.to_be_bytes());
    bytes.extend_from_slice(&(8 + datagram.payload.len() as u16).to_be_bytes());
    let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the UDP checksum lies.
pub(crate) fn checksum_place(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] { 14 + 20 + 6 } else { 14 + 40 + 6 }
}

/// Overwrites the UDP checksum.
pub(crate) fn set_checksum(frame: &mut [u8], checksum: u16) {
    let place = checksum_place(frame);
    frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
}
