//! What a device is known by, and the randomness of one run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_platform::secrets::{SecretError, SecretStore};
use adit_protocol::{EncodedKey, Hello, REVISION};
use adit_wireguard::{PrivateKey, PublicKey};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use uuid::Uuid;

/// The name under which the device id is kept.
const DEVICE_ID: &str = "device-id";

/// Why a device has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] SecretError),
    /// The kernel gives no randomness.
    #[error("the system has no randomness: {0}")]
    Randomness(#[from] rand::rand_core::OsError),
}

/// What a device is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Made once and kept; the portal knows the device by it.
    pub device_id: Uuid,
    /// Shown to people.
    pub name: String,
}

impl Identity {
    /// The identity kept in `store`; a new one on the first run. Without a `name` it is the
    /// host's.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written.
    pub fn load(store: &dyn SecretStore, name: Option<String>) -> Result<Self, IdentityError> {
        let name = name.unwrap_or_else(host_name);
        let kept = store.read(DEVICE_ID)?;
        let kept = kept.and_then(|bytes| Uuid::parse_str(std::str::from_utf8(&bytes).ok()?.trim()).ok());
        if let Some(device_id) = kept {
            return Ok(Self { device_id, name });
        }
        let mut bytes = [0; 16];
        OsRng.try_fill_bytes(&mut bytes)?;
        let device_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        store.write(DEVICE_ID, device_id.to_string().as_bytes())?;
        Ok(Self { device_id, name })
    }

    pub(crate) fn hello(&self, public_key: PublicKey) -> Hello {
        Hello {
            revision: REVISION,
            device_id: self.device_id,
            name: self.name.clone(),
            public_key: EncodedKey(public_key.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Vec::new(),
        }
    }
}

/// What the host calls itself.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned())
}

/// The secrets of one run: never stored, so recorded traffic stays closed.
pub(crate) struct Run {
    pub(crate) private_key: PrivateKey,
    pub(crate) seed: [u8; 32],
    pub(crate) hash_seed: [u8; 32],
}

impl Run {
    pub(crate) fn new() -> Result<Self, IdentityError> {
        let mut secrets = [[0; 32]; 3];
        for secret in &mut secrets {
            OsRng.try_fill_bytes(secret)?;
        }
        let [key, seed, hash_seed] = secrets;
        Ok(Self { private_key: PrivateKey::from_bytes(key), seed, hash_seed })
    }
}

/// 32 fresh bytes kept under `name`, so that they survive a restart.
pub(crate) fn lasting_secret(store: &dyn SecretStore, name: &str) -> Result<[u8; 32], IdentityError> {
    if let Some(secret) = store.read(name)?.and_then(|bytes| bytes.try_into().ok()) {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    OsRng.try_fill_bytes(&mut secret)?;
    store.write(name, &secret)?;
    Ok(secret)
}

/// The time of day; a clock before 1970 counts as 1970.
pub(crate) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use adit_platform::secrets::FakeSecrets;

    use super::*;

    #[test]
    fn an_identity_is_made_once() {
        let store = FakeSecrets::default();
        let first = Identity::load(&store, Some("a".to_owned())).unwrap();
        let second = Identity::load(&store, Some("b".to_owned())).unwrap();
        assert_eq!(first.device_id, second.device_id);
        assert_eq!(second.name, "b");
    }

    #[test]
    fn a_damaged_identity_is_replaced() {
        let store = FakeSecrets::default();
        store.write(DEVICE_ID, b"garbage").unwrap();
        let first = Identity::load(&store, Some("a".to_owned())).unwrap();
        assert_eq!(Identity::load(&store, Some("a".to_owned())).unwrap(), first);
    }

    #[test]
    fn a_lasting_secret_lasts() {
        let store = FakeSecrets::default();
        let secret = lasting_secret(&store, "reset").unwrap();
        assert_ne!(secret, [0; 32]);
        assert_eq!(lasting_secret(&store, "reset").unwrap(), secret);
    }
}
