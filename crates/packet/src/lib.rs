//! IP packets as bytes: views, edits, checksums, NAT rewrite, translation between IPv4 and IPv6, ICMP errors,
//! super-packets and buffers.
//!
//! The hot path reads a packet once: [`PacketView::parse`] checks every length and returns a small `Copy` value with
//! the addresses, the ports, the fragment state and the *real* length (the buffer may be longer). All edits take that
//! view next to the bytes, so no header is walked twice:
//!
//! ```
//! use adit_packet::{PacketView, Rewrite, build};
//!
//! let mut packet = build::udp("10.0.0.1:4000".parse()?, "10.0.0.2:53".parse()?, b"hello")?;
//! let view = PacketView::parse(&packet)?;
//! let nat = Rewrite { source: Some("192.0.2.7".parse()?), source_port: Some(61_000), ..Rewrite::NONE };
//! nat.apply(&mut packet, &view)?;
//! assert_eq!(PacketView::parse(&packet)?.source_port(), Some(61_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Two rules hold everywhere. Input is hostile: a wrong length is an error from a closed enum, never a panic. Edits
//! update checksums incrementally (RFC 1624), so a packet whose checksum was wrong before stays wrong after and dies at
//! its receiver instead of being laundered here.
//!
//! Deliberately absent: reassembly of fragments, verification of checksums on the hot path other than before packets
//! are merged ([`offload`]; see [`checksum`] for doing it on demand), and any notion of flows beyond the [`FlowTuple`].

#![forbid(unsafe_code)]

pub mod buffer;
pub mod build;
pub mod checksum;
mod edit;
mod extension;
mod header;
mod icmp_error;
mod network;
pub mod offload;
pub mod protocol;
mod quoted;
mod rewrite;
pub mod translate;
mod transport;
mod view;

pub use buffer::{BufferPool, PacketBuffer};
pub use edit::{Ecn, EditError, clamp_mss, decrement_hop_limit, ecn, hop_limit, set_ecn};
pub use header::{IcmpHeader, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
pub use icmp_error::{IcmpError, NotAnswerable, icmp_error};
pub use network::{Fragment, ParseError};
pub use quoted::Quoted;
pub use rewrite::{Rewrite, RewriteError};
pub use translate::TranslateError;
pub use transport::{TcpFlags, Transport};
pub use view::{FlowTuple, PacketView};
