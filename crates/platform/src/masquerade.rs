//! A gateway's way out: packets from the tunnel leave through the host's own interfaces with the host's
//! addresses.
//!
//! [`NftablesMasquerade`] keeps one nftables table of its own and turns on the forwarding settings of the
//! kernel; both are taken back on `clear`. It never touches tables of others, so a firewall that forbids
//! forwarding still wins.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

#[cfg(target_os = "linux")]
mod nftables;

#[cfg(target_os = "linux")]
pub use nftables::NftablesMasquerade;

/// Everything that should be masqueraded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasqueradeState {
    /// The tunnel interface; packets that leave through any other one are masqueraded.
    pub interface: String,
    /// Source ranges: the tunnel addresses of clients.
    pub ranges: Vec<IpNet>,
}

/// Why masquerading could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    /// The `nft` program is missing.
    #[error("the program `nft` is missing (install the package `nftables`)")]
    NoNft,
    /// `nft` refused; often the kernel lacks a module.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    /// A kernel setting could not be changed.
    #[error("cannot {action}: {error}")]
    System {
        /// What was being done.
        action: String,
        /// What the operating system said.
        error: std::io::Error,
    },
}

/// Sets the whole masquerading state. The calls block for some milliseconds; they are for start and stop.
pub trait MasqueradeControl: Send {
    /// Makes the host masquerade exactly `desired`.
    ///
    /// # Errors
    /// See [`MasqueradeError`].
    fn apply(&mut self, desired: &MasqueradeState) -> Result<(), MasqueradeError>;

    /// Takes everything back, also what a crashed run has left.
    ///
    /// # Errors
    /// See [`MasqueradeError`].
    fn clear(&mut self) -> Result<(), MasqueradeError>;
}

/// Records the state in force, for tests; clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeMasquerade {
    states: Arc<Mutex<Vec<Option<MasqueradeState>>>>,
}

impl FakeMasquerade {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<MasqueradeState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One entry per call: the state of `apply`, `None` for `clear`.
    #[must_use]
    pub fn calls(&self) -> Vec<Option<MasqueradeState>> {
        self.lock().clone()
    }
}

impl MasqueradeControl for FakeMasquerade {
    fn apply(&mut self, desired: &MasqueradeState) -> Result<(), MasqueradeError> {
        self.lock().push(Some(desired.clone()));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), MasqueradeError> {
        self.lock().push(None);
        Ok(())
    }
}
