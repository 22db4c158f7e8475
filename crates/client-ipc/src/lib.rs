//! Versioned messages between the client daemon `aditd` and its front ends.
//!
//! A Unix socket carries frames: a length (4 bytes, network order, at most 1 MiB) and that
//! many bytes of JSON. Both ends first send [`Hello`] with the range of protocol versions
//! they speak. Then a front end sends [`Request`]s, each with an id that its [`Reply`]
//! carries; after `subscribe` the daemon also sends [`Event`]s. Any number of front ends
//! may be connected at once, and each may come and go as it likes: none of them owns the
//! tunnel.
//!
//! Each request needs an [`Access`] tier, which the daemon derives from the kernel's
//! credentials of the connecting process, never from what the front end says.
//!
//! Deliberately absent: any secret in the daemon's answers, but for the [`LoginPrompt`], which
//! only those see who may sign in.

#![forbid(unsafe_code)]

mod connection;
mod dns;
mod frame;
mod login;
mod message;
mod netcheck;
mod profile;
#[cfg(test)]
mod schema;
mod settings;
mod status;

pub use connection::{CallError, FrontEnd};
pub use dns::{Answerer, DnsQueryReport, DnsRecord, DnsReport, UpstreamSource};
pub use frame::{FrameError, MAX_FRAME, read_frame, write_frame};
pub use login::{LoginEnd, LoginPrompt};
pub use message::{
    Access, ErrorCode, Event, FromDaemon, FromFrontEnd, Hello, Outcome, PROTOCOL, PingReport, Reply, Request,
    RequestError, Response, RouteReport, Token,
};
pub use netcheck::{
    Attempt, Failure, FailureKind, FamilyReport, Mapping, NetcheckReport, PathMtu, RelayReport,
};
pub use profile::{DEFAULT_SOCKET, InvalidProfile, PROFILE_SOCKETS, Profile, ProfileStatus};
pub use settings::{Setting, SettingSource};
pub use status::{
    Collision, Connection, PathKind, Reason, RelayTransport, ResourceState, ResourceStatus, SCHEMA, State,
    Status,
};
