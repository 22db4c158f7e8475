//! How datagrams reach a peer.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::CHANNEL_HEADER;

/// Names a byte stream to a relay; never used again for another one.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct StreamId(pub u32);

/// A way to a peer: directly, or through a channel of a TURN relay.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct Path {
    /// Our address to send from.
    pub local: SocketAddr,
    /// Where to send: the peer, or the relay when `channel` is set.
    pub remote: SocketAddr,
    /// The channel number at the relay, 0x4000 to 0x4fff.
    pub channel: Option<u16>,
    /// The stream that leads to the relay instead of datagrams from `local` to `remote`.
    pub stream: Option<StreamId>,
}

impl Path {
    /// Where something came from over a stream, which has no addresses of its own.
    pub(crate) const fn of_stream(stream: StreamId) -> Self {
        let nowhere = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self { local: nowhere, remote: nowhere, channel: None, stream: Some(stream) }
    }

    /// Whether both lead to the same place, wherever they begin.
    pub(crate) fn leads_where(&self, other: &Self) -> bool {
        let same_end = self.remote == other.remote || self.stream.is_some();
        self.channel == other.channel && self.stream == other.stream && same_end
    }
}

/// A channel data message (RFC 8656 section 12.4), header read.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct ChannelData {
    pub(crate) channel: u16,
    /// Bytes of payload behind the header.
    pub(crate) length: usize,
}

impl ChannelData {
    /// Reads a header. `None` when the datagram is something else or shorter than it says.
    ///
    /// Over UDP there may be padding behind the payload (RFC 8656 section 12.5).
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let &[high @ 0x40..=0x4f, low, length_high, length_low] = datagram.first_chunk::<CHANNEL_HEADER>()?
        else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let fits = datagram.len() >= CHANNEL_HEADER + length;
        fits.then_some(Self { channel: u16::from_be_bytes([high, low]), length })
    }

    /// Writes a header for `length` bytes. `None` when they are too many for one message.
    pub(crate) fn write(channel: u16, length: usize, header: &mut [u8]) -> Option<()> {
        let length = u16::try_from(length).ok()?;
        let header = header.first_chunk_mut::<CHANNEL_HEADER>()?;
        header[..2].copy_from_slice(&channel.to_be_bytes());
        header[2..].copy_from_slice(&length.to_be_bytes());
        Some(())
    }
}

/// Whether a datagram begins like channel data.
pub(crate) const fn is_channel_data(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0x40..=0x4f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        let mut message = [0; 12];
        ChannelData::write(0x4001, 5, &mut message).unwrap();
        assert_eq!(message[..4], [0x40, 0x01, 0, 5]);
        assert_eq!(ChannelData::parse(&message), Some(ChannelData { channel: 0x4001, length: 5 }));
        assert_eq!(ChannelData::parse(&message[..8]), None, "truncated");
        assert_eq!(ChannelData::parse(&[0x50, 0, 0, 0]), None);
        assert_eq!(ChannelData::write(0x4001, 65_536, &mut message), None);
    }
}
