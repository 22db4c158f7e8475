//! The header that a TUN queue with `IFF_VNET_HDR` puts in front of every packet.

use super::OffloadError;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const NONE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// How a super-packet is to be cut.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum Segmentation {
    /// Not at all: it is an ordinary packet.
    None,
    /// Into TCP segments over IPv4.
    TcpV4,
    /// Into TCP segments over IPv6.
    TcpV6,
    /// Into UDP datagrams, over either IP version.
    Udp,
}

/// `virtio_net_hdr` (virtio 1.2, 5.1.6) in its legacy form of 10 bytes, in the byte order of the host.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub struct VirtioHeader {
    /// The transport checksum covers the pseudo header alone so far and must be completed.
    pub needs_checksum: bool,
    /// The checksum, complete or partial, has been found right.
    pub data_valid: bool,
    /// How to cut the packet.
    pub segmentation: Segmentation,
    /// The TCP super-packet takes part in congestion notification, so "window reduced" belongs to its first segment.
    pub ecn: bool,
    /// Length of all headers in bytes; a hint.
    pub header_length: u16,
    /// Payload of each segment but the last, in bytes.
    pub segment_size: u16,
    /// Where the range that the checksum covers begins, in bytes from the start of the packet.
    pub checksum_start: u16,
    /// Where the checksum field lies, in bytes from there.
    pub checksum_offset: u16,
}

impl VirtioHeader {
    /// Length in bytes.
    pub const LENGTH: usize = 10;

    /// Of an ordinary packet with complete checksums.
    pub const NONE: Self = Self {
        needs_checksum: false,
        data_valid: false,
        segmentation: Segmentation::None,
        ecn: false,
        header_length: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header at the start of `bytes`; flags without a meaning here are ignored.
    ///
    /// # Errors
    ///
    /// [`OffloadError::TruncatedHeader`] and [`OffloadError::UnknownSegmentation`].
    pub fn parse(bytes: &[u8]) -> Result<Self, OffloadError> {
        let (&[flags, kind, fields @ ..], _) =
            bytes.split_first_chunk::<{ Self::LENGTH }>().ok_or(OffloadError::TruncatedHeader)?;
        let segmentation = match kind & !ECN {
            NONE => Segmentation::None,
            TCP_V4 => Segmentation::TcpV4,
            TCP_V6 => Segmentation::TcpV6,
            UDP => Segmentation::Udp,
            _ => return Err(OffloadError::UnknownSegmentation(kind)),
        };
        let field = |index: usize| u16::from_ne_bytes([fields[2 * index], fields[2 * index + 1]]);
        Ok(Self {
            needs_checksum: flags & NEEDS_CHECKSUM != 0,
            data_valid: flags & DATA_VALID != 0,
            segmentation,
            ecn: kind & ECN != 0,
            header_length: field(0),
            segment_size: field(1),
            checksum_start: field(2),
            checksum_offset: field(3),
        })
    }

    /// The header as it goes in front of a packet.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = u8::from(self.needs_checksum) * NEEDS_CHECKSUM + u8::from(self.data_valid) * DATA_VALID;
        bytes[1] = u8::from(self.ecn) * ECN
            + match self.segmentation {
                Segmentation::None => NONE,
                Segmentation::TcpV4 => TCP_V4,
                Segmentation::TcpV6 => TCP_V6,
                Segmentation::Udp => UDP,
            };
        let fields = [self.header_length, self.segment_size, self.checksum_start, self.checksum_offset];
        for (to, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    /// Writes the header to the start of `out`, and returns its length; 0 when `out` is shorter.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let Some(out) = out.first_chunk_mut() else { return 0 };
        *out = self.to_bytes();
        Self::LENGTH
    }
}
