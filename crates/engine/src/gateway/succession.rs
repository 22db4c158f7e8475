//! What one run of a gateway leaves for the next on the same host, as a file.

use std::path::Path;
use std::time::Duration;

use adit_platform::handover::HandoverFile;
use adit_protocol::SecretKey;
use adit_tunnel::Handover;
use adit_wireguard::PrivateKey;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What an earlier run left.
pub(super) struct Inheritance {
    pub(super) private_key: PrivateKey,
    /// The UDP port it had.
    pub(super) port: Option<u16>,
    pub(super) state: Handover,
    /// How long nobody served.
    pub(super) away: Duration,
}

/// The file's contents.
#[derive(Serialize, Deserialize)]
struct Document<State> {
    private_key: SecretKey,
    port: Option<u16>,
    state: State,
}

/// The file, and the key that goes into it.
pub(super) struct Succession {
    file: HandoverFile,
    private_key: Option<SecretKey>,
}

impl Succession {
    pub(super) fn new(state_directory: &Path) -> Self {
        Self { file: HandoverFile::new(state_directory), private_key: None }
    }

    /// Remembers the key of this run.
    pub(super) fn with_key(mut self, key: &PrivateKey) -> Self {
        self.private_key = Some(SecretKey(*key.as_bytes()));
        self
    }

    /// Takes what an earlier run left; what cannot be used is said and forgotten.
    pub(super) fn take(&self) -> Option<Inheritance> {
        let taken = self.file.take().map_err(anyhow::Error::from).and_then(|taken| {
            let Some((contents, away)) = taken else { return Ok(None) };
            let document: Document<Handover> =
                serde_json::from_slice(&contents).context("the handover cannot be read")?;
            let Document { private_key, port, state } = document;
            let private_key = PrivateKey::from_bytes(private_key.0);
            Ok(Some(Inheritance { private_key, port, state, away }))
        });
        taken.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the handover of the last run is not used");
            None
        })
    }

    /// Leaves `state` for the next run.
    pub(super) fn leave(
        &self,
        state: &Handover,
        port: Option<u16>,
        fresh_for: Duration,
    ) -> anyhow::Result<()> {
        let private_key = self.private_key.clone().context("the key is not known")?;
        let document = Document { private_key, port, state };
        let contents = serde_json::to_vec(&document).context("the handover cannot be written")?;
        Ok(self.file.leave(&contents, fresh_for)?)
    }
}
