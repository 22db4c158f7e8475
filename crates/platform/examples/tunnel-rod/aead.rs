//! The same AEAD from the same library as the product's, with keys that everybody knows.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::TAG;

/// Seals and opens packets in place; without keys it does neither.
pub(super) struct Aead {
    keys: Option<Keys>,
}

struct Keys {
    sealing: LessSafeKey,
    opening: LessSafeKey,
}

impl Aead {
    pub(super) fn new(is_client: bool, is_null: bool) -> Self {
        let (own, other) = if is_client { (1, 2) } else { (2, 1) };
        let keys = || Keys { sealing: key(own), opening: key(other) };
        Self { keys: (!is_null).then(keys) }
    }

    /// Seals all but the last [`TAG`] bytes, which receive the tag.
    pub(super) fn seal(&self, counter: u64, packet: &mut [u8]) {
        let Some(keys) = &self.keys else { return };
        let (text, tag) = packet.split_at_mut(packet.len() - TAG);
        let made = keys.sealing.seal_in_place_separate_tag(nonce(counter), Aad::empty(), text);
        // It fails only for packets longer than any that exist here.
        if let Ok(made) = made {
            tag.copy_from_slice(made.as_ref());
        }
    }

    /// Opens a packet with its tag in place; whether it is genuine.
    pub(super) fn open(&self, counter: u64, packet: &mut [u8]) -> bool {
        let Some(keys) = &self.keys else { return true };
        keys.opening.open_in_place(nonce(counter), Aad::empty(), packet).is_ok()
    }
}

fn key(byte: u8) -> LessSafeKey {
    let bytes = [byte; 32];
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &bytes).expect("a key of 32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
