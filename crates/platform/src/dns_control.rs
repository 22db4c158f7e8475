//! Who answers the host's name queries: pointing the system's resolver at the tunnel's, and back.
//!
//! Whoever writes `/etc/resolv.conf` on a host must be asked, or it writes over what we wrote. So there is one
//! implementation for each: [`Resolved`] (systemd-resolved over D-Bus), [`NetworkManager`] (its global
//! configuration, over D-Bus), [`Resolvconf`] (the program `resolvconf` of openresolv or Debian) and
//! [`ResolvConf`] (nobody else: the file itself). [`Automatic`] finds out which; [`Disabled`] touches nothing;
//! [`FakeDns`] is for tests. [`Delegating`] lets several tunnels of one host share its resolver.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;

mod automatic;
mod bus;
mod delegation;
mod network_manager;
mod resolv_conf;
mod resolvconf_program;
mod resolved;

pub use automatic::{Automatic, Manager};
pub use bus::Bus;
pub use delegation::{Delegating, Delegation};
pub use network_manager::NetworkManager;
pub use resolv_conf::ResolvConf;
pub use resolvconf_program::Resolvconf;
pub use resolved::Resolved;

/// What the host's resolver should use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Name servers, in order; at least one.
    pub servers: Vec<IpAddr>,
    /// Search domains that go in front of the host's own.
    pub search: Vec<String>,
}

/// Why name resolution could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DnsControlError {
    /// A state without servers would leave the host without names.
    #[error("no name server was given")]
    NoServers,
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A service on the system bus refused, failed or is not there.
    #[error("{service} did not {action}: {reason}")]
    Service {
        /// Which service.
        service: &'static str,
        /// What was asked of it.
        action: &'static str,
        /// What it, or the bus, said.
        reason: String,
    },
    /// A program failed.
    #[error("`{program}` failed: {reason}")]
    Program {
        /// Which program.
        program: PathBuf,
        /// What it said, or why it could not be started.
        reason: String,
    },
    /// The tunnel's interface, to which the settings belong, is not there.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
}

/// What a call comes to.
pub type DnsFuture<'a, T> = BoxFuture<'a, Result<T, DnsControlError>>;

/// Sets the host's resolver as a whole.
///
/// Every call ends within a few seconds, whatever state other programs are in.
pub trait DnsControl: Send + Sync {
    /// Makes the host ask `settings.servers`. Calling it again asserts the settings again, in case another
    /// program has changed them.
    ///
    /// # Errors
    /// See [`DnsControlError`]; the host's own settings are in force then.
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()>;

    /// Gives the host its own settings back.
    ///
    /// # Errors
    /// See [`DnsControlError`].
    fn clear(&mut self) -> DnsFuture<'_, ()>;

    /// Gives back what a crashed run has taken. Call it before the first `apply`.
    ///
    /// # Errors
    /// See [`DnsControlError`].
    fn recover(&mut self) -> DnsFuture<'_, ()>;

    /// As [`recover`](Self::recover), but only what is kept under the name of this tunnel's interface: all else is in
    /// force for another tunnel now.
    ///
    /// # Errors
    /// See [`DnsControlError`].
    fn recover_interface(&mut self) -> DnsFuture<'_, ()> {
        ready(Ok(()))
    }

    /// The host's own name servers, whether or not ours are in force; none if nobody can say.
    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>>;

    /// Who is asked to set the resolver, in a word for people.
    fn name(&self) -> &'static str;

    /// Whether the resolver is set at all.
    fn is_enabled(&self) -> bool {
        true
    }
}

/// More servers than this are not asked.
const MAX_SERVERS: usize = 8;

/// What a service of the bus said of the host's servers, IPv4 first; without an answer none are known.
fn known(servers: Result<Vec<IpAddr>, DnsControlError>) -> Vec<IpAddr> {
    let mut servers = servers.unwrap_or_else(|error| {
        tracing::warn!(%error, "the system's name servers are not known");
        Vec::new()
    });
    servers.sort_by_key(IpAddr::is_ipv6);
    servers.dedup();
    servers.truncate(MAX_SERVERS);
    servers
}

/// A call that needs no waiting.
fn ready<'a, T: Send + 'a>(outcome: Result<T, DnsControlError>) -> DnsFuture<'a, T> {
    Box::pin(std::future::ready(outcome))
}

/// Changes nothing; the host's names do not go through the tunnel.
#[derive(Clone, Debug)]
pub struct Disabled {
    path: PathBuf,
}

impl Disabled {
    /// Reads upstream servers from `path`, normally `/etc/resolv.conf`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl DnsControl for Disabled {
    fn apply<'a>(&'a mut self, _settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        ready(Ok(()))
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        ready(Ok(()))
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        ready(Ok(()))
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        Box::pin(std::future::ready(resolv_conf::servers_in(&text)))
    }

    fn name(&self) -> &'static str {
        "off"
    }

    fn is_enabled(&self) -> bool {
        false
    }
}

/// One call of a [`FakeDns`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsCall {
    /// `apply` with these settings.
    Apply(DnsSettings),
    /// `clear`.
    Clear,
    /// `recover`.
    Recover,
}

/// Records what it was told, for tests; clones share the record.
#[derive(Clone, Debug, Default)]
pub struct FakeDns {
    calls: Arc<Mutex<Vec<DnsCall>>>,
    upstreams: Vec<IpAddr>,
}

impl FakeDns {
    /// A host with these name servers of its own.
    #[must_use]
    pub fn new(upstreams: Vec<IpAddr>) -> Self {
        Self { calls: Arc::default(), upstreams }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DnsCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<DnsCall> {
        self.lock().clone()
    }
}

impl DnsControl for FakeDns {
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        self.lock().push(DnsCall::Apply(settings.clone()));
        ready(Ok(()))
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        self.lock().push(DnsCall::Clear);
        ready(Ok(()))
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        self.lock().push(DnsCall::Recover);
        ready(Ok(()))
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(std::future::ready(self.upstreams.clone()))
    }

    fn name(&self) -> &'static str {
        "fake"
    }
}
