//! What the relay keeps in its state directory: who it is, and the secrets under which credentials are made.

use std::path::Path;

use adit_platform::secrets::{FileSecrets, SecretStore};
use anyhow::{Context as _, anyhow};
use rand::TryRngCore as _;
use uuid::Uuid;

const DEVICE_ID: &str = "device-id";
const SECRET: &str = "relay-secret";
const PREVIOUS: &str = "relay-secret-previous";

/// The relay's identity; survives restarts.
pub(crate) struct Identity {
    pub(crate) device_id: Uuid,
    /// Hexadecimal, so that it can travel in JSON.
    pub(crate) secret: String,
    /// The one before; still accepted.
    pub(crate) previous: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the identity, making what is missing; `rotate` makes a new secret and keeps the old one as the previous.
    ///
    /// # Errors
    ///
    /// When the directory or its files cannot be used.
    pub(crate) fn load(directory: &Path, rotate: bool) -> anyhow::Result<Self> {
        let store = FileSecrets::open(directory).context("cannot use the state directory")?;
        let device_id = match read(&store, DEVICE_ID)? {
            Some(text) => {
                text.parse().with_context(|| format!("{DEVICE_ID} in {} is damaged", directory.display()))?
            }
            None => {
                let id = Uuid::from_bytes(random()?);
                let id = uuid::Builder::from_random_bytes(id.into_bytes()).into_uuid();
                write(&store, DEVICE_ID, &id.to_string())?;
                id
            }
        };
        let secret = read(&store, SECRET)?;
        let previous = read(&store, PREVIOUS)?;
        let (secret, previous) = match secret {
            Some(secret) if !rotate => (secret, previous),
            old => {
                if let Some(old) = &old {
                    // First, so that a crash in between loses nothing.
                    write(&store, PREVIOUS, old)?;
                }
                let secret = hexadecimal(&random::<32>()?);
                write(&store, SECRET, &secret)?;
                (secret, old)
            }
        };
        Ok(Self { device_id, secret, previous })
    }
}

/// Bytes from the operating system.
///
/// # Errors
///
/// When it has none, in which case nothing secret can be made.
pub(crate) fn random<const LENGTH: usize>() -> anyhow::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| anyhow!("the operating system gives no randomness: {error}"))?;
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(store: &FileSecrets, name: &str) -> anyhow::Result<Option<String>> {
    let Some(bytes) = store.read(name)? else { return Ok(None) };
    let text =
        String::from_utf8(bytes).with_context(|| format!("{name} in the state directory is damaged"))?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn write(store: &FileSecrets, name: &str, text: &str) -> anyhow::Result<()> {
    Ok(store.write(name, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_survives_and_secrets_rotate() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let state = directory.path().join("state");
        let first = Identity::load(&state, false).expect("made");
        assert_eq!((first.secret.len(), &first.previous), (64, &None));
        let second = Identity::load(&state, false).expect("read");
        assert_eq!((first.device_id, &first.secret), (second.device_id, &second.secret));
        let third = Identity::load(&state, true).expect("rotated");
        assert_eq!((first.device_id, third.previous), (third.device_id, Some(first.secret.clone())));
        assert_ne!(third.secret, first.secret);
        let fourth = Identity::load(&state, false).expect("read");
        assert_eq!(fourth.previous, Some(first.secret));
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let state = directory.path().join("state");
        Identity::load(&state, false).expect("made");
        FileSecrets::open(&state).expect("opens").write(DEVICE_ID, b"not an id").expect("writes");
        let error = Identity::load(&state, false).expect_err("damaged");
        assert!(format!("{error:#}").contains("device-id"), "{error:#}");
    }
}
