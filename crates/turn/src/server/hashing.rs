//! Hash maps whose buckets nobody outside can aim at: SipHash with a secret key from the seed.

use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// A map hashed with a secret key.
pub(super) type SecretMap<Key, Value> = HashMap<Key, Value, SecretState>;

/// Makes keyed hashers.
#[derive(Copy, Clone)]
pub(super) struct SecretState(u64, u64);

impl SecretState {
    pub(super) fn new((first, second): (u64, u64)) -> Self {
        Self(first, second)
    }
}

impl BuildHasher for SecretState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl std::fmt::Debug for SecretState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretState(..)")
    }
}
