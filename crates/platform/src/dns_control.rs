//! Who answers the host's name queries: pointing the system's resolver at the tunnel's, and back.
//!
//! Implementations: [`ResolvConf`] (rewrites `/etc/resolv.conf`), [`Disabled`] (touches nothing),
//! [`FakeDns`]. Others, such as systemd-resolved over D-Bus, can stand beside them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod resolv_conf;

pub use resolv_conf::ResolvConf;

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
}

/// Sets the host's resolver as a whole.
pub trait DnsControl: Send {
    /// Makes the host ask `settings.servers`. Calling it again asserts the settings again, in case another
    /// program has changed them.
    ///
    /// # Errors
    /// See [`DnsControlError`]; the host's own settings are in force then.
    fn apply(&mut self, settings: &DnsSettings) -> Result<(), DnsControlError>;

    /// Gives the host its own settings back.
    ///
    /// # Errors
    /// See [`DnsControlError`].
    fn clear(&mut self) -> Result<(), DnsControlError>;

    /// Gives back what a crashed run has taken. Call it before the first `apply`.
    ///
    /// # Errors
    /// See [`DnsControlError`].
    fn recover(&mut self) -> Result<(), DnsControlError>;

    /// The host's own name servers, whether or not ours are in force.
    fn upstreams(&self) -> Vec<IpAddr>;
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
    fn apply(&mut self, _settings: &DnsSettings) -> Result<(), DnsControlError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), DnsControlError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<(), DnsControlError> {
        Ok(())
    }

    fn upstreams(&self) -> Vec<IpAddr> {
        resolv_conf::servers_in(&std::fs::read_to_string(&self.path).unwrap_or_default())
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
    fn apply(&mut self, settings: &DnsSettings) -> Result<(), DnsControlError> {
        self.lock().push(DnsCall::Apply(settings.clone()));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), DnsControlError> {
        self.lock().push(DnsCall::Clear);
        Ok(())
    }

    fn recover(&mut self) -> Result<(), DnsControlError> {
        self.lock().push(DnsCall::Recover);
        Ok(())
    }

    fn upstreams(&self) -> Vec<IpAddr> {
        self.upstreams.clone()
    }
}
