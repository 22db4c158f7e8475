//! NAT: new addresses, ports and echo identifiers in place, checksums by difference.
//!
//! A [`Rewrite`] names what changes; everything else stays. For an ICMP error that travels with a flow, the quoted
//! packet travelled the *other* way, so there the same rewrite acts with source and destination exchanged, and the
//! error's own checksum follows every changed word (RFC 5508, 4).

use std::net::IpAddr;

use crate::checksum::Delta;
use crate::network::{Network, ParseError};
use crate::protocol;
use crate::quoted::Quoted;
use crate::transport::Transport;
use crate::view::PacketView;

/// What to change in the packets of a flow; `None` leaves a field alone.
#[derive(Copy, Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Rewrite {
    /// New source address, of the packet's family.
    pub source: Option<IpAddr>,
    /// New destination address, of the packet's family.
    pub destination: Option<IpAddr>,
    /// New source port. For ICMP echo: new identifier.
    pub source_port: Option<u16>,
    /// New destination port. For ICMP echo: new identifier, unless `source_port` names one.
    pub destination_port: Option<u16>,
}

/// Why a packet was not rewritten; it is unchanged then.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum RewriteError {
    /// A new address is of the other IP family.
    #[error("rewrite would change the IP version")]
    FamilyMismatch,
    /// The buffer is shorter than the view says.
    #[error("view does not belong to this packet")]
    WrongView,
    /// The ICMP error's quotation cannot be read.
    #[error("quoted packet: {0}")]
    Quotation(#[from] ParseError),
}

impl Rewrite {
    /// Changes nothing.
    pub const NONE: Self =
        Self { source: None, destination: None, source_port: None, destination_port: None };

    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The same changes for packets that travel the other way.
    #[must_use]
    pub const fn exchanged(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// Rewrites a packet of the flow in place.
    ///
    /// Ports are left alone in packets that have none (later fragments, other protocols).
    ///
    /// # Errors
    ///
    /// See [`RewriteError`]; the packet is unchanged then.
    #[inline]
    pub fn apply(&self, packet: &mut [u8], view: &PacketView) -> Result<(), RewriteError> {
        let packet = packet.get_mut(..view.total_length()).ok_or(RewriteError::WrongView)?;
        self.check_family(view.is_ipv4())?;
        self.edit(packet, &Layers::of(view));
        Ok(())
    }

    /// Rewrites a TCP or UDP packet of the flow whose transport checksum is *partial*: it holds the sum of the pseudo
    /// header alone, and whoever sends the packet on completes it.
    ///
    /// The sum follows the new addresses, so that it stays what it is; new ports are no part of it. Packets of other
    /// protocols are treated as in [`apply`](Self::apply).
    ///
    /// # Errors
    ///
    /// See [`RewriteError`]; the packet is unchanged then.
    pub fn apply_partial(&self, packet: &mut [u8], view: &PacketView) -> Result<(), RewriteError> {
        let packet = packet.get_mut(..view.total_length()).ok_or(RewriteError::WrongView)?;
        self.check_family(view.is_ipv4())?;
        self.edit(packet, &Layers { is_partial: true, ..Layers::of(view) });
        Ok(())
    }

    /// Rewrites an ICMP error that travels in the direction this rewrite is for.
    ///
    /// The outer addresses change as in any packet of that direction; in the quoted packet, source and destination are
    /// exchanged. Whoever sent the error appears as the flow's far end, because its own address means nothing on the
    /// other side of the translation.
    ///
    /// # Errors
    ///
    /// See [`RewriteError`]; the packet is unchanged then.
    pub fn apply_to_icmp_error(&self, packet: &mut [u8], view: &PacketView) -> Result<(), RewriteError> {
        let packet = packet.get_mut(..view.total_length()).ok_or(RewriteError::WrongView)?;
        self.check_family(view.is_ipv4())?;
        let quoted = Quoted::parse(packet, view)?;
        let inner = self.exchanged().edit(&mut packet[quoted.range()], &Layers::of_quoted(&quoted));
        let outer = Self { source_port: None, destination_port: None, ..*self };
        outer.edit(packet, &Layers::of(view));
        change_word(packet, view.transport_offset() + 2, |checksum| inner.apply(checksum));
        Ok(())
    }

    fn check_family(&self, is_ipv4: bool) -> Result<(), RewriteError> {
        let right = |address: Option<IpAddr>| address.is_none_or(|address| address.is_ipv4() == is_ipv4);
        if right(self.source) && right(self.destination) { Ok(()) } else { Err(RewriteError::FamilyMismatch) }
    }

    /// Edits one packet, which may be cut short behind the first 8 transport bytes, and returns all that changed.
    // Inlined with all that it calls: half the time per packet.
    #[inline(always)]
    fn edit(&self, packet: &mut [u8], layers: &Layers) -> Delta {
        let (source_at, destination_at) = if layers.is_ipv4 { (12, 16) } else { (8, 24) };
        let addresses = replace_address(packet, source_at, self.source).and(replace_address(
            packet,
            destination_at,
            self.destination,
        ));
        let mut all = addresses;
        if layers.is_ipv4 {
            all = all.and(change_word(packet, 10, |checksum| addresses.apply(checksum)));
        }
        let ports = self.edit_ports(packet, layers);
        let checksum = layers.checksum(packet);
        let covered = if layers.pseudo_header { addresses.and(ports) } else { ports };
        all = all.and(ports);
        match checksum {
            Some((at, Checksum::Udp)) => all.and(change_word(packet, at, |old| covered.apply_udp(old))),
            Some((at, Checksum::Plain)) => all.and(change_word(packet, at, |old| covered.apply(old))),
            // A partial checksum is not complemented yet.
            Some((at, Checksum::Partial)) => all.and(change_word(packet, at, |old| !addresses.apply(!old))),
            None => all,
        }
    }

    #[inline(always)]
    fn edit_ports(&self, packet: &mut [u8], layers: &Layers) -> Delta {
        let at = layers.transport_offset;
        match layers.transport {
            Transport::Tcp { .. } | Transport::Udp { .. } => replace_word(packet, at, self.source_port)
                .and(replace_word(packet, at + 2, self.destination_port)),
            Transport::Echo { .. } => {
                replace_word(packet, at + 4, self.source_port.or(self.destination_port))
            }
            Transport::IcmpError { .. }
            | Transport::Icmp { .. }
            | Transport::LaterFragment
            | Transport::Other => Delta::new(),
        }
    }
}

/// Which rule a transport checksum follows.
enum Checksum {
    Plain,
    Udp,
    Partial,
}

/// What an edit needs to know of a packet, whole or quoted.
struct Layers {
    is_ipv4: bool,
    transport_offset: usize,
    transport: Transport,
    pseudo_header: bool,
    is_partial: bool,
}

impl Layers {
    const fn of(view: &PacketView) -> Self {
        Self::new(view.is_ipv4(), view.transport_offset(), view.transport(), view.protocol())
    }

    const fn of_quoted(quoted: &Quoted) -> Self {
        let Network { source, transport_offset, protocol, .. } = *quoted.network();
        Self::new(source.is_ipv4(), transport_offset, quoted.transport(), protocol)
    }

    const fn new(is_ipv4: bool, transport_offset: usize, transport: Transport, protocol: u8) -> Self {
        // ICMP for IPv4 is the one checksum here that does not cover the addresses.
        let pseudo_header = protocol != protocol::ICMP;
        Self { is_ipv4, transport_offset, transport, pseudo_header, is_partial: false }
    }

    /// Where the transport checksum lies, if it is within the packet.
    #[inline(always)]
    fn checksum(&self, packet: &[u8]) -> Option<(usize, Checksum)> {
        let (offset, rule) = match self.transport {
            Transport::Tcp { .. } if self.is_partial => (16, Checksum::Partial),
            Transport::Udp { .. } if self.is_partial => (6, Checksum::Partial),
            Transport::Tcp { .. } => (16, Checksum::Plain),
            Transport::Udp { .. } => (6, Checksum::Udp),
            Transport::Echo { .. } | Transport::IcmpError { .. } | Transport::Icmp { .. } => {
                (2, Checksum::Plain)
            }
            Transport::LaterFragment | Transport::Other => return None,
        };
        let at = self.transport_offset + offset;
        (at + 2 <= packet.len()).then_some((at, rule))
    }
}

#[inline(always)]
fn replace_address(packet: &mut [u8], at: usize, new: Option<IpAddr>) -> Delta {
    match new {
        Some(IpAddr::V4(address)) => replace_bytes(packet, at, &address.octets()),
        Some(IpAddr::V6(address)) => replace_bytes(packet, at, &address.octets()),
        None => Delta::new(),
    }
}

#[inline(always)]
fn replace_bytes(packet: &mut [u8], at: usize, new: &[u8]) -> Delta {
    let field = &mut packet[at..at + new.len()];
    let delta = Delta::new().bytes(field, new);
    field.copy_from_slice(new);
    delta
}

#[inline(always)]
fn replace_word(packet: &mut [u8], at: usize, new: Option<u16>) -> Delta {
    match new {
        Some(new) => change_word(packet, at, |_| new),
        None => Delta::new(),
    }
}

#[inline(always)]
fn change_word(packet: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) -> Delta {
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let new = change(old);
    packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
    Delta::new().word(old, new)
}
