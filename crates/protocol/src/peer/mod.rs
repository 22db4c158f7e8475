//! Peer control messages: what client and gateway say to each other inside the tunnel.
//!
//! A message is an ordinary IPv6 packet with next header 253 (RFC 3692) and hop limit 1,
//! from the sender's tunnel address to the receiver's. After the IPv6 header come 8 bytes
//! (version, kind, flags, reserved, message id in network order) and a CBOR map with
//! integer keys. 1,280 bytes at most in all; only a size probe may be larger, and has zeros
//! behind its map up to the size that it names.
//!
//! ```text
//!  0      1      2      3      4                            8
//! +------+------+------+------+----------------------------+---------
//! | ver  | kind | flags|  0   |         message id         | CBOR …
//! +------+------+------+------+----------------------------+---------
//! ```
//!
//! Delivery is not guaranteed and nothing is acknowledged; a request that needs an answer
//! (assigned addresses) is repeated by its sender's timer. Unknown kinds and keys are
//! ignored. Authenticity comes from the tunnel: the packet is only looked at after
//! WireGuard opened it, and the source address must be the peer's.

mod wire;

use std::net::{IpAddr, Ipv6Addr};

use adit_policy::ResourceId;
use minicbor::{Decode, Encode};

use crate::Candidate;

/// The next header of peer control messages: reserved for experimentation (RFC 3692).
pub const NEXT_HEADER: u8 = 253;

/// The largest peer control packet in bytes, IPv6 header included.
pub const MAX_PACKET: usize = 1280;

const VERSION: u8 = 1;
const IPV6_HEADER: usize = 40;
const MESSAGE_HEADER: usize = 8;
const HOP_LIMIT: u8 = 1;

/// Why a connection is closed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum GoodbyeReason {
    /// The last authorization was revoked.
    #[n(0)]
    Revoked,
    /// The last authorization expired.
    #[n(1)]
    Expired,
    /// The sender stops.
    #[n(2)]
    ShuttingDown,
    /// The client has no resource left at this site.
    #[n(3)]
    NoResources,
    /// The client signed out.
    #[n(4)]
    SignedOut,
    /// The sender failed.
    #[n(5)]
    InternalError,
}

impl GoodbyeReason {
    /// The stable name, for logs and status output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::ShuttingDown => "shutting_down",
            Self::NoResources => "no_resources",
            Self::SignedOut => "signed_out",
            Self::InternalError => "internal_error",
        }
    }
}

/// Whether a name of a DNS resource can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DomainState {
    /// The gateway resolved it; packets to its proxy addresses flow.
    #[n(0)]
    Active,
    /// The name does not exist or has no usable address.
    #[n(1)]
    NotFound,
    /// The gateway's resolver did not answer.
    #[n(2)]
    ResolverFailed,
    /// The client may not reach this name.
    #[n(3)]
    Forbidden,
}

/// A peer control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// The sender has forgotten this connection.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// Do not choose the sender again for this long, in milliseconds.
        retry_after_ms: Option<u32>,
    },
    /// The token with which the gateway may later disown this session.
    ResetTicket {
        /// Sent back, in the clear, by a gateway that does not know the session any more.
        token: [u8; 16],
    },
    /// The sender's candidates changed.
    Candidates {
        /// Candidates that are new.
        added: Vec<Candidate>,
        /// Candidates that no longer work.
        removed: Vec<Candidate>,
    },
    /// The client gave a name of a DNS resource these proxy addresses.
    AssignedAddresses {
        /// The DNS resource.
        resource: ResourceId,
        /// The name.
        name: String,
        /// Its proxy addresses.
        addresses: Vec<IpAddr>,
    },
    /// The answer to assigned addresses.
    DomainStatus {
        /// The DNS resource.
        resource: ResourceId,
        /// The name.
        name: String,
        /// Whether it can be reached.
        state: DomainState,
    },
    /// The gateway will stop: new flows should go elsewhere.
    Draining {
        /// When it stops, in milliseconds from now.
        deadline_ms: u32,
    },
    /// A packet as large as it says, to find out whether the path carries it.
    SizeProbe {
        /// Length of the whole packet in bytes, IPv6 header included, at least 128.
        size: u16,
    },
    /// The answer to a size probe: one of this size has arrived.
    SizeConfirmed {
        /// Length of the probe in bytes.
        size: u16,
    },
}

/// A received peer control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The sender's tunnel address, as the packet says.
    pub source: Ipv6Addr,
    /// The receiver's tunnel address, as the packet says.
    pub destination: Ipv6Addr,
    /// The message id; an answer carries the id of its request.
    pub id: u32,
    /// The message.
    pub message: PeerMessage,
}

/// Why a packet was not read as a peer control message. Always the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerMessageError {
    /// Truncated, or its length field is wrong.
    #[error("truncated or with a wrong length")]
    Length,
    /// Longer than [`MAX_PACKET`], and no size probe.
    #[error("larger than 1,280 bytes")]
    TooLarge,
    /// Not an IPv6 packet with our next header and hop limit.
    #[error("not a peer control packet")]
    NotControl,
    /// Another version.
    #[error("version {0} is not supported")]
    Version(u8),
    /// A kind that this build does not know; to be ignored.
    #[error("kind {0} is not known")]
    UnknownKind(u8),
    /// The content does not fit the kind.
    #[error("wrong content")]
    Content,
}

/// Whether an IP packet looks like a peer control message: IPv6 with our next header.
///
/// Such a packet never reaches the TUN device, and one that comes from it is dropped.
pub fn is_control(packet: &[u8]) -> bool {
    packet.len() >= IPV6_HEADER && packet[0] >> 4 == 6 && packet[6] == NEXT_HEADER
}

/// Writes a whole IPv6 packet with `message`.
///
/// # Errors
///
/// [`PeerMessageError::TooLarge`] when it would be larger than [`MAX_PACKET`].
pub fn encode(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    id: u32,
    message: &PeerMessage,
) -> Result<Vec<u8>, PeerMessageError> {
    let (kind, content) = wire::encode(message);
    let written = IPV6_HEADER + MESSAGE_HEADER + content.len();
    let total = match message {
        PeerMessage::SizeProbe { size } => written.max(usize::from(*size)),
        _ if written > MAX_PACKET => return Err(PeerMessageError::TooLarge),
        _ => written,
    };
    let payload = u16::try_from(total - IPV6_HEADER).map_err(|_| PeerMessageError::TooLarge)?;
    let mut packet = Vec::with_capacity(total);
    packet.extend_from_slice(&[0x60, 0, 0, 0]);
    packet.extend_from_slice(&payload.to_be_bytes());
    packet.extend_from_slice(&[NEXT_HEADER, HOP_LIMIT]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&[VERSION, kind, 0, 0]);
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&content);
    packet.resize(total, 0);
    Ok(packet)
}

/// Reads a whole IPv6 packet.
///
/// Trailing bytes after the IPv6 payload (WireGuard's padding) are ignored.
///
/// # Errors
///
/// See [`PeerMessageError`]; nothing panics whatever the bytes.
pub fn decode(packet: &[u8]) -> Result<Received, PeerMessageError> {
    if !is_control(packet) || packet[7] != HOP_LIMIT {
        return Err(PeerMessageError::NotControl);
    }
    let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let body = packet.get(IPV6_HEADER..IPV6_HEADER + payload).ok_or(PeerMessageError::Length)?;
    let (header, content) = body.split_at_checked(MESSAGE_HEADER).ok_or(PeerMessageError::Length)?;
    if header[0] != VERSION {
        return Err(PeerMessageError::Version(header[0]));
    }
    let is_probe = header[1] == wire::SIZE_PROBE;
    if IPV6_HEADER + payload > MAX_PACKET && !is_probe {
        return Err(PeerMessageError::TooLarge);
    }
    let message = wire::decode(header[1], content)?;
    if matches!(message, PeerMessage::SizeProbe { size } if usize::from(size) != IPV6_HEADER + payload) {
        return Err(PeerMessageError::Content);
    }
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Ok(Received { source: address_at(packet, 8), destination: address_at(packet, 24), id, message })
}

fn address_at(packet: &[u8], offset: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&packet[offset..offset + 16]);
    Ipv6Addr::from(octets)
}
