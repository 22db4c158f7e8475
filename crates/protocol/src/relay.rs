//! Messages between relay and portal.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::RelayId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::client::{Disconnect, Empty};
use crate::frame::messages;
use crate::relay_access::RelayTls;

messages! {
    /// What a relay says to the portal.
    RelayToPortal {
        /// The first message.
        Hello(RelayHello) = "hello",
        /// The relay has a new secret; credentials under the old one are still accepted.
        SecretRotated(SecretRotated) = "secret_rotated",
        /// The relay is about to stop: hand it out no more.
        Draining(Empty) = "draining",
    }
}

messages! {
    /// What the portal says to a relay.
    PortalToRelay {
        /// The answer to hello.
        Init(RelayInit) = "init",
        /// The portal is about to close the session.
        Disconnect(Disconnect) = "disconnect",
    }
}

/// The first message of a relay.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayHello {
    /// The newest revision that the relay speaks, see [`crate::REVISION`].
    pub revision: u16,
    /// Made by the relay once and kept.
    pub device_id: Uuid,
    /// Shown to people; the host name unless configured.
    pub name: String,
    /// The program's version (semver).
    pub version: String,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The port of its UDP listeners.
    pub port: u16,
    /// Port of its TCP listeners, at the same addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_port: Option<u16>,
    /// Its TLS listeners, at the same addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RelayTls>,
    /// The secret under which the portal mints credentials.
    pub secret: String,
}

impl fmt::Debug for RelayHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHello")
            .field("device_id", &self.device_id)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("ipv4", &self.ipv4)
            .field("ipv6", &self.ipv6)
            .field("port", &self.port)
            .field("tcp_port", &self.tcp_port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// A new secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRotated {
    /// The secret under which the portal mints credentials from now on.
    pub secret: String,
}

impl fmt::Debug for SecretRotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRotated(…)")
    }
}

/// The answer to a relay's hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInit {
    /// The portal's clock, in Unix milliseconds.
    pub portal_time_ms: u64,
    /// The relay's id.
    pub relay: RelayId,
}
