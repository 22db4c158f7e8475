//! A seeded SipHash-1-3 for maps whose keys come from the network.

use std::collections::HashMap;
use std::hash::BuildHasher;

use rand::RngCore;
use siphasher::sip::SipHasher13;

/// Builds hashers under one secret key.
#[derive(Debug, Clone)]
pub(crate) struct SeededState(u64, u64);

impl SeededState {
    pub(crate) fn new(random: &mut impl RngCore) -> Self {
        Self(random.next_u64(), random.next_u64())
    }
}

impl BuildHasher for SeededState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A map that an attacker cannot fill with colliding keys.
pub(crate) type SeededMap<K, V> = HashMap<K, V, SeededState>;
