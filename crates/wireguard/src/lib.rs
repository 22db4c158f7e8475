//! WireGuard as a pure machine: handshake, cookies, transport sessions and timers.
//!
//! # The protocol in one paragraph
//!
//! Two peers that know each other's X25519 public key and a preshared key run Noise
//! IKpsk2 in one round trip: an *initiation* (148 bytes) and a *response* (92 bytes).
//! The result is a [`Session`]: one ChaCha20-Poly1305 key each way, named on the wire by a
//! random 32-bit *receiver index* that each side chooses for itself. Data datagrams carry
//! that index and a counter. After 120 s of use the initiator makes the next session; after
//! 180 s a session is dead. Nothing is ever answered that does not prove knowledge of our
//! public key (MAC1), and under load nothing is computed for a source that does not prove
//! that it can receive at its address (MAC2, made with a cookie).
//!
//! # How to drive it
//!
//! One [`Device`] holds the local key and all peers. After each `handle_*` or command, drain
//! [`Device::poll_transmit`] and [`Device::poll_event`] and ask [`Device::poll_timeout`] for
//! the next deadline. Time must not run backwards.
//!
//! Sessions are shared as `Arc<Session>` with worker threads, which seal and open in place
//! without the device. A worker records what it did in [`Session::activity`]; when a record
//! call returns [`Attention::Wanted`], somebody must call [`Device::note_activity`]. That is how
//! the device learns of traffic after a quiet time without any periodic timer.
//!
//! # Deliberately absent
//!
//! - Addresses: the caller picks the path of each [`Transmit`] and learns roaming from the
//!   source of authenticated datagrams.
//! - Allowed IPs: what a peer may send is decided by the flow table, not here.
//! - Persistent keepalive: path checks of the connection layer keep mappings open.
//! - Packet queues: the caller buffers packets while no session exists.

#![forbid(unsafe_code)]

mod activity;
mod aead;
mod agreement;
mod cookie;
mod counters;
mod device;
mod hash;
mod hasher;
mod key;
mod load;
mod message;
mod noise;
mod peer;
mod replay;
mod session;
mod tai64n;
mod timer;

pub use activity::{Activity, Attention};
pub use counters::{Counters, DropReason};
pub use device::{AddPeerError, Device, Event, ExpiryReason, PeerId, Received, Transmit};
pub use key::{KeyParseError, PresharedKey, PrivateKey, PublicKey};
pub use message::{is_data, is_wireguard, receiver_index};
pub use session::{SealError, Session, WindowGuard};

use std::time::Duration;

/// Bytes of the data header before the ciphertext.
pub const HEADER: usize = 16;
/// Bytes of the authentication tag behind the ciphertext.
pub const TAG: usize = 16;
/// Bytes that a data datagram adds to its (padded) plaintext.
pub const OVERHEAD: usize = HEADER + TAG;
/// Plaintexts are padded to a multiple of this many bytes.
pub const PADDING: usize = 16;

/// Age at which the initiator of a session in use makes the next one.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a session is dropped.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// How long handshakes are retried before the peer is declared expired.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(20);
/// Longest time between two initiations of one attempt (before jitter).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two initiations of one attempt.
pub const REKEY_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// Received data is acknowledged by a keepalive if nothing else was sent for this long.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages sealed with one session before the next one is made.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages after which a session refuses to seal.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
