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
    /// The TURN user name.
    pub username: String,
    /// The TURN password.
    pub password: String,
    /// When the credentials end, in Unix milliseconds; the portal renews them before.
    pub expires_at_ms: u64,
}

impl fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAccess")
            .field("id", &self.id)
            .field("ipv4", &self.ipv4)
            .field("ipv6", &self.ipv6)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
