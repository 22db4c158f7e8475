//! The packet quoted inside an ICMP or ICMPv6 error (RFC 792, RFC 4443 2.4(c)).
//!
//! An error belongs to the flow whose packet it quotes. The quotation is usually cut short: IPv4 routers owe only the
//! header and 8 bytes, so nothing beyond ports or the echo identifier is required here.

use crate::header::IcmpHeader;
use crate::network::{Network, ParseError};
use crate::transport::Transport;
use crate::view::{FlowTuple, PacketView};

/// What an ICMP error says about the packet that caused it.
#[derive(Copy, Clone, Debug)]
pub struct Quoted {
    network: Network,
    transport: Transport,
    start: usize,
    end: usize,
}

impl Quoted {
    /// Reads the quotation out of `packet`, an ICMP error seen through `view`.
    ///
    /// # Errors
    ///
    /// [`ParseError::NotAnIcmpError`] if the packet quotes nothing, another [`ParseError`] if the quotation is malformed
    /// or too short to name a flow.
    pub fn parse(packet: &[u8], view: &PacketView) -> Result<Self, ParseError> {
        if !matches!(view.transport(), Transport::IcmpError { .. }) {
            return Err(ParseError::NotAnIcmpError);
        }
        let start = view.transport_offset() + size_of::<IcmpHeader>();
        let quotation = packet.get(start..view.total_length()).ok_or(ParseError::TruncatedPacket)?;
        let network = Network::parse(quotation)?;
        if network.source.is_ipv4() != view.is_ipv4() {
            return Err(ParseError::UnknownVersion(quotation[0] >> 4));
        }
        // Padding and ICMP extensions (RFC 4884) follow the quoted packet; they are not part of it.
        let length = quotation.len().min(network.total_length);
        let segment = quotation.get(network.transport_offset..length).ok_or(ParseError::TruncatedHeader)?;
        let transport = Transport::parse_quoted(&network, segment)?;
        Ok(Self { network, transport, start, end: start + length })
    }

    /// The flow of the quoted packet, in the direction in which that packet travelled.
    pub const fn flow(&self) -> Option<FlowTuple> {
        FlowTuple::new(&self.network, self.transport)
    }

    /// What the quoted packet carries; flags of TCP are zero when they were not quoted.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) const fn network(&self) -> &Network {
        &self.network
    }

    /// Where in the error packet the quoted packet starts and ends.
    pub(crate) const fn range(&self) -> std::ops::Range<usize> {
        self.start..self.end
    }
}
