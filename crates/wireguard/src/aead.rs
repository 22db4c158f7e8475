//! ChaCha20-Poly1305 behind one small type, so that another suite can take its place.
//!
//! Nonces are 96 bits: four zero bytes, then a 64-bit little-endian counter.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::TAG;

/// A key for sealing or opening; the library wipes its copy when freed.
#[derive(Debug)]
pub(crate) struct AeadKey(LessSafeKey);

/// The message is too long to seal, or it does not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AeadError;

impl AeadKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        // Fails only for another key length or when memory is exhausted.
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a 32-byte key fits ChaCha20-Poly1305");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `message` in place and returns the tag.
    pub(crate) fn seal(
        &self,
        counter: u64,
        associated: &[u8],
        message: &mut [u8],
    ) -> Result<[u8; TAG], AeadError> {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(associated), message)
            .map_err(|_| AeadError)?;
        tag.as_ref().try_into().map_err(|_| AeadError)
    }

    /// Decrypts `message` (ciphertext, then tag) in place; the plaintext is `TAG` bytes shorter.
    pub(crate) fn open(&self, counter: u64, associated: &[u8], message: &mut [u8]) -> Result<(), AeadError> {
        self.0
            .open_in_place(nonce(counter), Aad::from(associated), message)
            .map(|_| ())
            .map_err(|_| AeadError)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_was_sealed() {
        let key = AeadKey::new(&[1; 32]);
        let mut message = *b"hello, peer.................";
        let tag = key.seal(5, b"head", &mut message[..12]).unwrap();
        message[12..].copy_from_slice(&tag);
        let sealed = message;
        key.open(5, b"head", &mut message).unwrap();
        assert_eq!(&message[..12], b"hello, peer.");
        for (counter, associated) in [(6, b"head"), (5, b"tail")] {
            assert_eq!(key.open(counter, associated, &mut sealed.clone()), Err(AeadError));
        }
        assert_eq!(key.open(0, b"", &mut [0; 3]), Err(AeadError));
    }
}
