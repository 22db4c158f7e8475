//! What introduces two peers to each other: keys, credentials, candidates, addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A public key, base64 on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EncodedKey(pub [u8; 32]);

/// A secret of 32 bytes, base64 on the wire and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretKey(pub [u8; 32]);

/// The text was not the base64 form of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64")]
pub struct InvalidKey;

fn decode_key(text: &str) -> Result<[u8; 32], InvalidKey> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidKey)
}

impl TryFrom<String> for EncodedKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        decode_key(&text).map(Self)
    }
}

impl From<EncodedKey> for String {
    fn from(key: EncodedKey) -> Self {
        STANDARD.encode(key.0)
    }
}

impl fmt::Display for EncodedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for EncodedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for SecretKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        decode_key(&text).map(Self)
    }
}

impl From<SecretKey> for String {
    fn from(key: SecretKey) -> Self {
        STANDARD.encode(key.0)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// ICE user name fragment and password of one end of one connection epoch (RFC 8445, 5.3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// The user name fragment: 4 to 256 characters.
    pub ufrag: String,
    /// The password: 22 to 256 characters.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// How a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// The address that a STUN server saw.
    ServerReflexive,
    /// An address that a relay lends.
    Relayed,
}

/// An address at which a peer may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was found.
    pub kind: CandidateKind,
    /// Where to send to.
    pub address: SocketAddr,
    /// The address it was derived from: the local one for server-reflexive candidates, the
    /// relay's mapped one for relayed candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SocketAddr>,
}

/// A change of a peer's candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateUpdate {
    /// Candidates that are new.
    #[serde(default)]
    pub added: Vec<Candidate>,
    /// Candidates that no longer work.
    #[serde(default)]
    pub removed: Vec<Candidate>,
}

/// Everything that one end needs to connect to the other; both ends get theirs at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIntroduction<Id> {
    /// The other end.
    pub id: Id,
    /// Shown to people.
    pub name: String,
    /// The other end's WireGuard key.
    pub public_key: EncodedKey,
    /// The other end's tunnel address.
    pub ipv4: Ipv4Addr,
    /// The other end's tunnel address.
    pub ipv6: Ipv6Addr,
    /// Mixed into every handshake of this epoch.
    pub preshared_key: SecretKey,
    /// Counts the connections of this pair. A new epoch replaces an older connection; the
    /// same epoch adds an authorization to the connection that is open.
    pub epoch: u64,
    /// The receiver's own credentials.
    pub local_ice: IceCredentials,
    /// The other end's credentials.
    pub remote_ice: IceCredentials,
    /// The other end's candidates as the portal knows them now; later ones trickle.
    pub candidates: Vec<Candidate>,
}

/// The first message of every peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest revision that the peer speaks, see [`crate::REVISION`].
    pub revision: u16,
    /// Made by the device once and kept; it is the same device as long as this is the same.
    pub device_id: Uuid,
    /// Shown to people; the host name unless configured.
    pub name: String,
    /// The WireGuard key of this run.
    pub public_key: EncodedKey,
    /// The program's version (semver).
    pub version: String,
    /// Optional abilities, by name.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// How the receiver's tunnel interface is to be configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The receiver's tunnel address.
    pub ipv4: Ipv4Addr,
    /// The receiver's tunnel address.
    pub ipv6: Ipv6Addr,
    /// The range of all tunnel addresses of the account.
    pub ipv4_range: Ipv4Net,
    /// The range of all tunnel addresses of the account.
    pub ipv6_range: Ipv6Net,
    /// The range that clients take proxy addresses of DNS resources from.
    pub ipv4_proxy_range: Ipv4Net,
    /// The range that clients take proxy addresses of DNS resources from.
    pub ipv6_proxy_range: Ipv6Net,
    /// Upstream resolvers for all names that are no resources; empty means the system's.
    #[serde(default)]
    pub dns_upstreams: Vec<SocketAddr>,
    /// Search domains for the system's resolver.
    #[serde(default)]
    pub search_domains: Vec<String>,
}
