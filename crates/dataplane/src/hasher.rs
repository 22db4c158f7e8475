//! A seeded SipHash-1-3: keys come from the network and must not be made to collide.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;

use rand::RngCore;
use siphasher::sip::SipHasher13;

use crate::{FlowKey, Origin};

/// Hashes under one secret key.
#[derive(Debug, Clone)]
pub(crate) struct SeededState(u64, u64);

impl SeededState {
    pub(crate) fn new(random: &mut impl RngCore) -> Self {
        Self(random.next_u64(), random.next_u64())
    }

    /// The hash of a flow key, from one run over its packed bytes instead of one per field.
    pub(crate) fn hash_flow(&self, key: &FlowKey) -> u32 {
        let mut bytes = [0; 48];
        let origin = match key.origin {
            Origin::Local => 0,
            Origin::Peer(peer) => peer.0.wrapping_add(1),
        };
        bytes[..8].copy_from_slice(&origin.to_ne_bytes());
        pack(key.source, &mut bytes[8..24]);
        pack(key.destination, &mut bytes[24..40]);
        bytes[40..42].copy_from_slice(&key.source_port.to_ne_bytes());
        bytes[42..44].copy_from_slice(&key.destination_port.to_ne_bytes());
        bytes[44] = key.protocol;
        SipHasher13::new_with_keys(self.0, self.1).hash(&bytes) as u32
    }
}

fn pack(address: IpAddr, bytes: &mut [u8]) {
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.copy_from_slice(&address.octets()),
    }
}

impl BuildHasher for SeededState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A map under a secret hash.
pub(crate) type SeededMap<K, V> = HashMap<K, V, SeededState>;
