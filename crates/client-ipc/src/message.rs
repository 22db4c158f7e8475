//! What front ends and daemon say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Collision, DnsReport, LoginEnd, LoginPrompt, NetcheckReport, PathKind, ResourceState, ResourceStatus,
    Setting, Status,
};

/// The version of this protocol that this build speaks.
pub const PROTOCOL: u16 = 1;

/// The first message of either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that the sender understands.
    pub oldest: u16,
    /// The newest protocol version that the sender understands.
    pub newest: u16,
    /// The sender's program version.
    pub version: String,
}

impl Hello {
    /// The hello of this build.
    pub fn new() -> Self {
        Self { oldest: PROTOCOL, newest: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Whether the other end understands a version that this build speaks.
    pub fn is_compatible(&self) -> bool {
        (self.oldest..=self.newest).contains(&PROTOCOL)
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

/// What the caller may do, by the kernel's word for who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// See state; any local user.
    Observe,
    /// Connect, disconnect, sign in and out; the group `adit`.
    Operate,
    /// Everything; root.
    Admin,
}

/// A sign-in token: never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a front end asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// The present state.
    Status {},
    /// Every resource of the user, with its state.
    Resources {},
    /// Connect, with a new token or the one kept from the last sign-in.
    Up {
        /// A token to sign in with; kept for the next start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// Sign somebody in with a browser, and connect; the reply says what to open, and
    /// [`Event::LoginEnded`] how it ended. Who is signed in already renews the sign-in.
    Login {
        /// Whether the browser is on another machine.
        #[serde(default)]
        device_code: bool,
    },
    /// Give up a sign-in that has not ended.
    CancelLogin {},
    /// Disconnect, but stay signed in.
    Down {},
    /// Sign out: end the session on the server and forget the token.
    Logout {},
    /// Ask for access to a resource and report the path to its gateway.
    Ping {
        /// The resource's name, id, address, or a host name that it covers.
        resource: String,
    },
    /// Say where packets to a destination go, and why; nothing is sent.
    Route {
        /// A host name or an address.
        destination: String,
    },
    /// See what the network lets through, to each relay and to the portal.
    Netcheck {},
    /// Every setting of the daemon.
    Settings {},
    /// Who answers for which names.
    DnsStatus {},
    /// The level of the daemon's log.
    LogLevel {},
    /// Change the level of the daemon's log.
    SetLogLevel {
        /// A `tracing` filter such as `info` or `adit_tunnel=debug`.
        level: String,
    },
    /// Send [`Event`]s from now on.
    Subscribe {},
}

impl Request {
    /// The tier that the request needs.
    pub const fn needs(&self) -> Access {
        match self {
            Self::Status {}
            | Self::Resources {}
            | Self::Subscribe {}
            | Self::Route { .. }
            | Self::Settings {}
            | Self::DnsStatus {}
            | Self::LogLevel {} => Access::Observe,
            Self::Up { .. }
            | Self::Login { .. }
            | Self::CancelLogin {}
            | Self::Down {}
            | Self::Logout {}
            | Self::Ping { .. }
            | Self::Netcheck {} => Access::Operate,
            Self::SetLogLevel { .. } => Access::Admin,
        }
    }
}

/// A request with the id that its reply carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromFrontEnd {
    /// Chosen by the front end.
    pub id: u64,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
}

/// What the daemon sends after its hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromDaemon {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request.
    pub id: u64,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It worked.
    Result(Response),
    /// It did not.
    Error(RequestError),
}

/// What a request that worked returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Response {
    /// The request was carried out.
    Done,
    /// The present state.
    Status(Box<Status>),
    /// Every resource of the user.
    Resources(Vec<ResourceStatus>),
    /// What to open to sign in.
    Login(LoginPrompt),
    /// The path to a resource's gateway.
    Ping(PingReport),
    /// Where packets to a destination go.
    Route(Box<RouteReport>),
    /// What the network lets through.
    Netcheck(Box<NetcheckReport>),
    /// Every setting of the daemon.
    Settings(Vec<Setting>),
    /// Who answers for which names.
    DnsStatus(Box<DnsReport>),
    /// The level of the daemon's log.
    LogLevel(String),
}

/// Where packets to a destination go, and why: through the tunnel if a resource is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteReport {
    /// What was asked for.
    pub destination: String,
    /// The resource that covers it best.
    pub resource: Option<String>,
    /// That resource's address, network or pattern.
    pub address: Option<String>,
    /// The site whose gateways serve it.
    pub site: Option<String>,
    /// What is known about the resource.
    pub state: Option<ResourceState>,
    /// The gateway that serves it now.
    pub gateway: Option<String>,
    /// How packets travel to the gateway.
    pub path: Option<PathKind>,
    /// The round trip to the gateway in milliseconds, when it is known.
    pub round_trip_ms: Option<f64>,
    /// The network of this device that has the address too, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision: Option<Collision>,
}

/// The path to a resource's gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PingReport {
    /// The resource's name.
    pub resource: String,
    /// The gateway's name.
    pub gateway: String,
    /// How packets travel.
    pub path: PathKind,
    /// The round trip to the gateway in milliseconds, when it is known.
    pub round_trip_ms: Option<f64>,
    /// Seconds since the last handshake.
    pub handshake_age_s: Option<f64>,
    /// How long it took until the connection stood, in milliseconds.
    pub connected_in_ms: f64,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// Stable, for programs.
    pub code: ErrorCode,
    /// One sentence for people: cause and what to do.
    pub message: String,
}

/// Stable codes of [`RequestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The caller may not do this.
    Denied,
    /// Nobody is signed in.
    SignedOut,
    /// The tunnel is not up.
    NotConnected,
    /// There is no such resource.
    NotFound,
    /// It took too long.
    Timeout,
    /// Somebody gave it up.
    Cancelled,
    /// The request makes no sense.
    Invalid,
    /// The daemon failed.
    #[serde(other)]
    Internal,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "value", rename_all = "snake_case")]
pub enum Event {
    /// The state changed.
    Status(Box<Status>),
    /// The resources or their states changed.
    Resources(Vec<ResourceStatus>),
    /// A sign-in ended.
    LoginEnded(LoginEnd),
}
