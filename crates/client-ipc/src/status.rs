//! The state of a client as its users see it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::LoginPrompt;

/// The version of everything that `--json` prints.
pub const SCHEMA: u16 = 1;

/// What the client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody is signed in, or the client was told to disconnect.
    SignedOut,
    /// A browser is open for signing in.
    WaitingBrowser,
    /// The portal has not answered yet.
    ConnectingPortal,
    /// The interface is being set up.
    Configuring,
    /// Resources can be reached.
    Online,
    /// Resources can be reached, but something is wrong; the reason says what.
    Degraded,
    /// There is no network.
    WaitingNetwork,
    /// The session cannot go on; the reason says why.
    Blocked,
}

/// Why the client is in its state, or what is wrong beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `adit down` was called.
    Disconnected,
    /// No token is there.
    NoToken,
    /// Somebody began to sign in.
    WaitingBrowser,
    /// The portal cannot be reached; what is connected stays connected.
    PortalUnreachable,
    /// The token is not one of this portal.
    InvalidToken,
    /// The token has expired.
    ExpiredToken,
    /// The token was revoked or the session ended.
    RevokedToken,
    /// Another machine uses the same device identity.
    Superseded,
    /// The system's resolver could not be set.
    DnsNotControlled,
    /// The tunnel interface could not be set up.
    InterfaceFailed,
    /// A network of this device uses addresses of the tunnel's.
    TunnelRangeTaken,
    /// A resource covers a network of this device.
    LocalNetworkHidden,
    /// A resource, or a range of the tunnel's, covers the router.
    RouterHidden,
    /// A resource, or a range of the tunnel's, covers a name server that the client asks.
    ResolverHidden,
    /// A reason of a newer daemon.
    #[serde(other)]
    Unknown,
}

impl Reason {
    /// Every reason of this version.
    pub const ALL: [Self; 14] = [
        Self::Disconnected,
        Self::NoToken,
        Self::WaitingBrowser,
        Self::PortalUnreachable,
        Self::InvalidToken,
        Self::ExpiredToken,
        Self::RevokedToken,
        Self::Superseded,
        Self::DnsNotControlled,
        Self::InterfaceFailed,
        Self::TunnelRangeTaken,
        Self::LocalNetworkHidden,
        Self::RouterHidden,
        Self::ResolverHidden,
    ];

    /// Stable, for people who look it up: `adit help E-…`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Disconnected => "E-DISCONNECTED",
            Self::NoToken => "E-NO-TOKEN",
            Self::WaitingBrowser => "E-WAITING-BROWSER",
            Self::PortalUnreachable => "E-PORTAL-UNREACHABLE",
            Self::InvalidToken => "E-INVALID-TOKEN",
            Self::ExpiredToken => "E-EXPIRED-TOKEN",
            Self::RevokedToken => "E-REVOKED-TOKEN",
            Self::Superseded => "E-SUPERSEDED",
            Self::DnsNotControlled => "E-DNS-NOT-CONTROLLED",
            Self::InterfaceFailed => "E-INTERFACE-FAILED",
            Self::TunnelRangeTaken => "E-TUNNEL-RANGE-TAKEN",
            Self::LocalNetworkHidden => "E-LOCAL-NETWORK-HIDDEN",
            Self::RouterHidden => "E-ROUTER-HIDDEN",
            Self::ResolverHidden => "E-RESOLVER-HIDDEN",
            Self::Unknown => "E-UNKNOWN",
        }
    }

    /// The reason with this code, in any case of letters.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code().eq_ignore_ascii_case(code))
    }

    /// One sentence for people: what has happened.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected on request.",
            Self::NoToken => "Nobody is signed in on this device.",
            Self::WaitingBrowser => "Somebody began to sign in, and has not finished in the browser.",
            Self::PortalUnreachable => "The portal cannot be reached; open connections keep working.",
            Self::InvalidToken => "The portal does not know this token.",
            Self::ExpiredToken => "The session has expired.",
            Self::RevokedToken => "The session was ended by an administrator or another sign-out.",
            Self::Superseded => "Another machine uses the identity of this device.",
            Self::DnsNotControlled => "The system's resolver could not be set; names will not resolve.",
            Self::InterfaceFailed => "The tunnel interface could not be set up.",
            Self::TunnelRangeTaken => {
                "A network of this device has addresses that the tunnel uses too; hosts there cannot be reached."
            }
            Self::LocalNetworkHidden => {
                "A resource covers a network of this device; what is sent there goes to the resource's site."
            }
            Self::RouterHidden => {
                "The tunnel covers the address of this network's router: traffic through it works, its own pages do not."
            }
            Self::ResolverHidden => {
                "The tunnel covers a name server that the client asks past the tunnel; behind the tunnel it is not asked."
            }
            Self::Unknown => "A newer daemon gives a reason that this program does not know.",
        }
    }

    /// One sentence for people: what to do about it.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Disconnected => "`adit up` connects again.",
            Self::NoToken => "`adit login` signs in.",
            Self::WaitingBrowser => "Finish in the browser; `adit login` shows again what to open.",
            Self::PortalUnreachable => {
                "Check this device's network; the client keeps trying and needs no restart."
            }
            Self::InvalidToken => "`adit login` signs in anew; or ask your administrator for a token.",
            Self::ExpiredToken | Self::RevokedToken => "`adit login` signs in again.",
            Self::Superseded => {
                "Do not copy the state directory between machines: sign out on one and sign in anew."
            }
            Self::DnsNotControlled => "`adit log tail` says why; `aditd --dns-control` chooses another way.",
            Self::InterfaceFailed => {
                "`adit log tail` says why; aditd needs root or CAP_NET_ADMIN, and /dev/net/tun."
            }
            Self::TunnelRangeTaken => {
                "Leave the other network or VPN, or give it other addresses; your administrator sees the tunnel's on the portal's page `Settings`."
            }
            Self::LocalNetworkHidden => {
                "`adit down` gives the network back for a while; ask your administrator for a smaller resource."
            }
            Self::RouterHidden => {
                "`adit down` makes the router's pages reachable for a while; ask your administrator for a smaller resource."
            }
            Self::ResolverHidden => {
                "Ask your administrator for a name server outside of every resource, or for the names as resources."
            }
            Self::Unknown => "`adit log tail` says more; update this program.",
        }
    }
}

/// The state of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// See [`SCHEMA`].
    pub schema: u16,
    /// What the client is doing.
    pub state: State,
    /// Why, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// More about the reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The profile that the daemon serves, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The portal's URL.
    pub portal: String,
    /// Who is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The tunnel address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The tunnel address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The name of the tunnel interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Who sets the system's resolver, such as `systemd-resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Where the daemon's log is.
    #[serde(default)]
    pub log_directory: String,
    /// When the session ends, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expires_at_ms: Option<u64>,
    /// When somebody last signed in with a browser, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated_at_ms: Option<u64>,
    /// Whether the session ends soon: within a day, or in the last quarter of a shorter one.
    #[serde(default)]
    pub is_expiring: bool,
    /// Whether signing in again would give access to something that asks for a fresh sign-in.
    #[serde(default)]
    pub is_sign_in_too_old: bool,
    /// What to open, while somebody signs in; only for those who may operate the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginPrompt>,
    /// Open connections.
    pub connections: Vec<Connection>,
    /// Addresses that are in use both in the tunnel and in networks of this device, the worst first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collisions: Vec<Collision>,
}

/// Addresses that are in use twice: they go into the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Collision {
    /// What that takes away; `adit help` explains its code.
    pub reason: Reason,
    /// The addresses that are in both, as a network.
    pub addresses: String,
    /// The network of this device; a single address if it is a router or a name server.
    pub network: String,
    /// The interface that leads to the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The network of the resource, or the range of the tunnel.
    pub claimed: String,
    /// The resource whose network it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// How packets travel to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight to the gateway.
    Direct,
    /// Through a relay.
    Relayed,
}

/// What carries datagrams to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RelayTransport {
    /// UDP.
    Udp,
    /// TCP, because the network lets no UDP out.
    Tcp,
    /// TLS, because the network lets no UDP out.
    Tls,
}

/// An open connection to a gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connection {
    /// The gateway.
    pub gateway: Uuid,
    /// The gateway's name.
    pub name: String,
    /// How packets travel; nothing while the connection is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathKind>,
    /// Where packets are sent to: the gateway's address, or the relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// What carries datagrams to the relay, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_transport: Option<RelayTransport>,
    /// The round trip in milliseconds, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Seconds since the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<f64>,
}

/// What is known about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// Not used yet.
    NoActivity,
    /// Access was asked for.
    Connecting,
    /// Packets flow.
    Connected,
    /// No gateway of its site is online.
    Offline,
    /// Policy said no.
    Forbidden,
}

/// A resource of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResourceStatus {
    /// The resource.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its address as its administrator wrote it: a pattern, an address, a network, or `internet`.
    pub address: String,
    /// The name of its site.
    pub site: String,
    /// What is known about it.
    pub state: ResourceState,
    /// The gateway that serves it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_code_and_says_what_to_do() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(&reason.code().to_lowercase()), Some(reason));
            assert!(reason.cause().ends_with('.') && reason.fix().ends_with('.'), "{reason:?}");
        }
        assert_eq!(Reason::from_code("E-NONSENSE"), None);
    }
}
