//! Relay credentials as the portal mints them and the relay checks them.
//!
//! The form is the one of the TURN REST draft that other servers and clients understand:
//! the user name is `expiry:salt` and the password the base64 of an HMAC-SHA1 over it under
//! the relay's secret. The relay needs no state to check it.

use std::fmt;
use std::net::SocketAddr;

use adit_policy::RelayId;
use serde::{Deserialize, Serialize};

/// A relay and the credentials to use it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAccess {
    /// Names the relay.
    pub id: RelayId,
    /// Its IPv4 listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<SocketAddr>,
    /// Its IPv6 listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<SocketAddr>,
    /// Port of its TCP listeners, at the same addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_port: Option<u16>,
    /// Its TLS listeners, at the same addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RelayTls>,
    /// The TURN user name.
    pub username: String,
    /// The TURN password.
    pub password: String,
    /// When the credentials end, in Unix milliseconds; the portal renews them before.
    pub expires_at_ms: u64,
}

/// How a relay is reached over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTls {
    /// The port.
    pub port: u16,
    /// The name to ask for (SNI) and to verify: a DNS name, or an IP address as text, for which no SNI is sent.
    pub server_name: String,
    /// SHA-256 of the relay's own certificate (DER) as 64 lower-case hexadecimal digits.
    ///
    /// If present, exactly this certificate is accepted, whatever its issuer, name and dates, because the portal
    /// vouches for it. If absent, the certificate must be valid for `server_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
}

impl RelayTls {
    /// Whether a client can make sense of it: a port, a name, and a hash of the right form if there is one.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let is_hash = |hash: &String| {
            hash.len() == 64 && hash.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_name = |name: &str| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
        };
        self.port != 0 && is_name(&self.server_name) && self.certificate_sha256.as_ref().is_none_or(is_hash)
    }
}

impl fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAccess")
            .field("id", &self.id)
            .field("ipv4", &self.ipv4)
            .field("ipv6", &self.ipv6)
            .field("tcp_port", &self.tcp_port)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_client_can_use_is_sound() {
        let tls = |port, server_name: &str, hash: Option<&str>| RelayTls {
            port,
            server_name: server_name.to_owned(),
            certificate_sha256: hash.map(str::to_owned),
        };
        let hash = "0123456789abcdef".repeat(4);
        assert!(tls(443, "relay.example.com", None).is_sound());
        assert!(tls(5349, "2001:db8::9", Some(&hash)).is_sound());
        assert!(!tls(0, "relay.example.com", None).is_sound());
        assert!(!tls(443, "", None).is_sound());
        assert!(!tls(443, "relay example", None).is_sound());
        assert!(!tls(443, &"a".repeat(254), None).is_sound());
        assert!(!tls(443, "relay.example.com", Some("0123")).is_sound());
        assert!(!tls(443, "relay.example.com", Some(&hash.to_uppercase())).is_sound());
    }
}
