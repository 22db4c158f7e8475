//! Translation of packets between IPv4 and IPv6, of flows whose two ends speak different families (RFC 7915).
//!
//! The same [`Rewrite`] that describes NAT describes it: it names new addresses of the other family. The IP header is
//! made anew; what lies above it is copied, and its checksum follows by difference, so that a damaged packet stays
//! damaged. Traffic class and hop limit are kept, because who forwards the packet before or after us counts the hop; the
//! flow label is zero. IPv4 packets of at most 1,260 bytes may be fragmented on their way and longer ones may not
//! (section 5.1). IPv4 options and IPv6 extension headers are not carried over (sections 4.1, 5.1). ICMP errors are
//! translated with what they quote.
//!
//! Deliberately absent: fragments, which are refused (an ICMP message in fragments cannot be translated at all, section
//! 4.2, and UDP that needs fragments is rare behind a tunnel); protocols other than TCP, UDP and ICMP echo, whose
//! checksums nobody could correct (RFC 6146, 1.2); addresses with an embedded address of the other family (RFC 6052).

mod icmp_error;

use std::net::IpAddr;

use zerocopy::IntoBytes;

use crate::checksum::{self, Delta, Sum};
use crate::header::{Ipv4Header, Ipv6Header};
use crate::protocol::{self, icmpv4, icmpv6};
use crate::rewrite::Rewrite;
use crate::transport::Transport;
use crate::view::PacketView;

/// What a packet becomes longer or shorter by: the difference of the two headers.
pub const HEADER_DIFFERENCE: usize = size_of::<Ipv6Header>() - size_of::<Ipv4Header>();

/// IPv6 and TCP headers without options, in bytes: what a segment needs besides its payload in the longer of the families.
pub const TCP_HEADERS_V6: u16 = (size_of::<Ipv6Header>() + 20) as u16;

/// An IPv4 packet up to this length becomes one that every IPv6 link carries (RFC 7915, 5.1).
const LONGEST_FRAGMENTABLE: usize = 1280 - HEADER_DIFFERENCE;

/// Why a packet was not translated.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum TranslateError {
    /// The new addresses are missing, or not both of the other family.
    #[error("new addresses are not of the other IP version")]
    FamilyMismatch,
    /// The buffer is shorter than the view says.
    #[error("view does not belong to this packet")]
    WrongView,
    /// It is a fragment, or quotes one.
    #[error("fragments are not translated")]
    Fragment,
    /// Neither TCP, UDP, an ICMP echo nor an ICMP error with a counterpart in the other family.
    #[error("nothing of the other IP version corresponds to the packet")]
    NoCounterpart,
    /// A checksum that must be made anew was wrong, or one that must be there was missing.
    #[error("checksum is wrong")]
    Checksum,
    /// It does not fit the buffer, or would have more than 65,535 bytes.
    #[error("translated packet is too long")]
    TooLong,
}

/// How a transport checksum is kept right.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Mode {
    /// By difference; a UDP checksum that IPv6 must have is made.
    Whole,
    /// The field holds the sum of the pseudo header alone.
    Partial,
    /// As far as the field was quoted.
    Quoted,
}

impl Rewrite {
    /// Whether packets of the given family become packets of the other one.
    #[must_use]
    pub fn changes_family(&self, is_ipv4: bool) -> bool {
        self.source.is_some_and(|source| source.is_ipv4() != is_ipv4)
    }

    /// Writes to the start of `out` what a packet of the flow becomes in the other family, and returns its length in
    /// bytes. An ICMP error that travels with the flow is translated with the packet that it quotes; of that, no more is
    /// kept than fits `out`.
    ///
    /// `identification` is used where the result is an IPv4 packet that may be fragmented; it should differ from those
    /// of other packets lately.
    ///
    /// # Errors
    ///
    /// See [`TranslateError`]; what `out` holds then means nothing.
    pub fn translate(
        &self,
        packet: &[u8],
        view: &PacketView,
        identification: u16,
        out: &mut [u8],
    ) -> Result<usize, TranslateError> {
        let passage = Passage::new(self, packet, view)?;
        if let Transport::IcmpError { kind, code } = view.transport() {
            return icmp_error::translate(self, &passage, view, [kind, code], identification, out);
        }
        let length = passage.new_header_length() + passage.length;
        passage.write(Mode::Whole, may_be_fragmented(length).then_some(identification), out)
    }

    /// The same for a TCP or UDP super-packet: its transport checksum is partial, as in
    /// [`apply_partial`](Self::apply_partial), and it stands for packets with at most `segment_size` bytes of payload.
    ///
    /// # Errors
    ///
    /// See [`TranslateError`].
    pub fn translate_partial(
        &self,
        packet: &[u8],
        view: &PacketView,
        segment_size: usize,
        identification: u16,
        out: &mut [u8],
    ) -> Result<usize, TranslateError> {
        let passage = Passage::new(self, packet, view)?;
        // The transport header is left out: a few bytes more or less decide nothing.
        let length = passage.new_header_length() + segment_size;
        passage.write(Mode::Partial, may_be_fragmented(length).then_some(identification), out)
    }
}

const fn may_be_fragmented(length: usize) -> bool {
    length <= LONGEST_FRAGMENTABLE
}

/// One packet, whole or quoted, on its way to the other family.
struct Passage<'a> {
    is_ipv4: bool,
    /// Source and destination, before and after.
    before: [IpAddr; 2],
    after: [IpAddr; 2],
    /// New source and destination ports.
    ports: [Option<u16>; 2],
    /// All IP headers.
    network: &'a [u8],
    protocol: u8,
    transport: Transport,
    /// What lies above IP, as far as it is there.
    body: &'a [u8],
    /// What lies above IP, in bytes, if nothing is cut off.
    length: usize,
}

impl<'a> Passage<'a> {
    fn new(rewrite: &Rewrite, packet: &'a [u8], view: &PacketView) -> Result<Self, TranslateError> {
        if view.fragment().is_some() {
            return Err(TranslateError::Fragment);
        }
        let packet = packet.get(..view.total_length()).ok_or(TranslateError::WrongView)?;
        let (network, body) =
            packet.split_at_checked(view.transport_offset()).ok_or(TranslateError::WrongView)?;
        Ok(Self {
            is_ipv4: view.is_ipv4(),
            before: [view.source(), view.destination()],
            after: new_addresses(rewrite, view.is_ipv4())?,
            ports: [rewrite.source_port, rewrite.destination_port],
            network,
            protocol: view.protocol(),
            transport: view.transport(),
            body,
            length: body.len(),
        })
    }

    const fn new_header_length(&self) -> usize {
        if self.is_ipv4 { size_of::<Ipv6Header>() } else { size_of::<Ipv4Header>() }
    }

    /// Writes it to the start of `out`. An IPv4 packet with an `identification` may be fragmented.
    fn write(
        &self,
        mode: Mode,
        identification: Option<u16>,
        out: &mut [u8],
    ) -> Result<usize, TranslateError> {
        let at = self.write_header(self.new_protocol()?, self.length, identification, out)?;
        let body = out.get_mut(at..at + self.body.len()).ok_or(TranslateError::TooLong)?;
        body.copy_from_slice(self.body);
        self.finish_body(mode, body)?;
        Ok(at + self.body.len())
    }

    const fn new_protocol(&self) -> Result<u8, TranslateError> {
        match self.transport {
            Transport::Tcp { .. } | Transport::Udp { .. } => Ok(self.protocol),
            Transport::Echo { .. } if self.is_ipv4 => Ok(protocol::ICMPV6),
            Transport::Echo { .. } => Ok(protocol::ICMP),
            _ => Err(TranslateError::NoCounterpart),
        }
    }

    /// Writes the new IP header in front of `length` bytes and returns its own length.
    fn write_header(
        &self,
        protocol: u8,
        length: usize,
        identification: Option<u16>,
        out: &mut [u8],
    ) -> Result<usize, TranslateError> {
        let too_long = |_| TranslateError::TooLong;
        match self.after {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                let total_length = size_of::<Ipv4Header>() + length;
                let dont_fragment = if identification.is_some() { 0 } else { Ipv4Header::DONT_FRAGMENT };
                let mut header = Ipv4Header {
                    version_and_length: 0x45,
                    traffic_class: self.network[0] << 4 | self.network[1] >> 4,
                    total_length: u16::try_from(total_length).map_err(too_long)?.into(),
                    identification: identification.unwrap_or(0).into(),
                    fragment: dont_fragment.into(),
                    time_to_live: self.network[7],
                    protocol,
                    checksum: 0.into(),
                    source: source.octets(),
                    destination: destination.octets(),
                };
                header.checksum = Sum::new().bytes(header.as_bytes()).checksum().into();
                put(out, header.as_bytes())
            }
            [IpAddr::V6(source), IpAddr::V6(destination)] => {
                let header = Ipv6Header {
                    version_class_label: (6 << 28 | u32::from(self.network[1]) << 20).into(),
                    payload_length: u16::try_from(length).map_err(too_long)?.into(),
                    next_header: protocol,
                    hop_limit: self.network[8],
                    source: source.octets(),
                    destination: destination.octets(),
                };
                put(out, header.as_bytes())
            }
            _ => Err(TranslateError::FamilyMismatch),
        }
    }

    /// Gives the copied body its ports and its checksum.
    fn finish_body(&self, mode: Mode, body: &mut [u8]) -> Result<(), TranslateError> {
        let addresses = self.addresses_delta();
        match self.transport {
            Transport::Tcp { .. } => {
                let ports = self.replace_ports(body);
                change(body, 16, |old| match mode {
                    Mode::Partial => !addresses.apply(!old),
                    Mode::Whole | Mode::Quoted => addresses.and(ports).apply(old),
                });
            }
            Transport::Udp { .. } => {
                let ports = self.replace_ports(body);
                let is_without = body.get(6..8) == Some(&[0, 0]);
                if is_without && mode == Mode::Whole {
                    return self.make_udp_checksum(body);
                }
                change(body, 6, |old| match mode {
                    Mode::Partial => !addresses.apply(!old),
                    Mode::Whole | Mode::Quoted => addresses.and(ports).apply_udp(old),
                });
            }
            Transport::Echo { request, .. } => self.finish_echo(request, body),
            _ => return Err(TranslateError::NoCounterpart),
        }
        Ok(())
    }

    fn replace_ports(&self, body: &mut [u8]) -> Delta {
        self.ports.iter().zip([0, 2]).fold(Delta::new(), |delta, (port, at)| match port {
            Some(port) => delta.and(change(body, at, |_| *port)),
            None => delta,
        })
    }

    /// Over IPv4 a datagram may be without a checksum, over IPv6 it may not (RFC 7915, 4.5; RFC 8200, 8.1).
    fn make_udp_checksum(&self, body: &mut [u8]) -> Result<(), TranslateError> {
        let claimed = usize::from(u16::from_be_bytes([body[4], body[5]]));
        let datagram = body.get(..claimed).filter(|_| self.is_ipv4).ok_or(TranslateError::Checksum)?;
        let [source, destination] = self.after;
        let sum = Sum::new()
            .pseudo_header(source, destination, protocol::UDP, datagram.len() as u32)
            .bytes(datagram)
            .checksum();
        change(body, 6, |_| checksum::zero_as_ones(sum));
        Ok(())
    }

    /// Only the checksum of ICMPv6 covers a pseudo header.
    fn finish_echo(&self, request: bool, body: &mut [u8]) {
        let kind = match (self.is_ipv4, request) {
            (true, true) => icmpv6::ECHO_REQUEST,
            (true, false) => icmpv6::ECHO_REPLY,
            (false, true) => icmpv4::ECHO_REQUEST,
            (false, false) => icmpv4::ECHO_REPLY,
        };
        let kind_and_code = change(body, 0, |old| u16::from(kind) << 8 | old & 0xff);
        let identifier = match self.ports[0].or(self.ports[1]) {
            Some(identifier) => change(body, 4, |_| identifier),
            None => Delta::new(),
        };
        let delta = self.icmpv6_pseudo_header_delta().and(kind_and_code).and(identifier);
        change(body, 2, |old| delta.apply(old));
    }

    /// Other addresses in the pseudo headers of TCP and UDP, which are alike in all else (RFC 8200, 8.1).
    fn addresses_delta(&self) -> Delta {
        let [source, destination] = [0, 1].map(|end| {
            let [before, after] = [self.before[end], self.after[end]].map(octets);
            Delta::new().bytes(&before, &after)
        });
        source.and(destination)
    }

    /// The pseudo header that begins, or ceases, to count.
    fn icmpv6_pseudo_header_delta(&self) -> Delta {
        let words = [self.length as u32, u32::from(protocol::ICMPV6)].map(u32::to_be_bytes);
        let [source, destination] = if self.is_ipv4 { self.after } else { self.before }.map(octets);
        let (none, pseudo_header) = ([0; 40], [&source[..], &destination, &words[0], &words[1]].concat());
        if self.is_ipv4 {
            Delta::new().bytes(&none, &pseudo_header)
        } else {
            Delta::new().bytes(&pseudo_header, &none)
        }
    }
}

/// The addresses that the rewrite names, when both are of the other family.
fn new_addresses(rewrite: &Rewrite, is_ipv4: bool) -> Result<[IpAddr; 2], TranslateError> {
    match (rewrite.source, rewrite.destination) {
        (Some(source), Some(destination))
            if source.is_ipv4() != is_ipv4 && destination.is_ipv4() != is_ipv4 =>
        {
            Ok([source, destination])
        }
        _ => Err(TranslateError::FamilyMismatch),
    }
}

/// An address as it counts in a checksum, with zeros behind the shorter one.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn put(out: &mut [u8], bytes: &[u8]) -> Result<usize, TranslateError> {
    out.get_mut(..bytes.len()).ok_or(TranslateError::TooLong)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// Changes one word, unless it is cut off.
fn change(bytes: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) -> Delta {
    let Some([high, low]) = bytes.get_mut(at..at + 2) else { return Delta::new() };
    let old = u16::from_be_bytes([*high, *low]);
    let new = change(old);
    [*high, *low] = new.to_be_bytes();
    Delta::new().word(old, new)
}
