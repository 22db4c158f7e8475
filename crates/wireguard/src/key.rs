//! Key types: 32 bytes each, told apart by type so that they cannot be swapped.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// An X25519 private key.
///
/// Never printed; wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Takes 32 secret bytes; X25519 clamps them when it uses them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Draws a key from a generator that must be cryptographically strong.
    pub fn generate(random: &mut impl RngCore) -> Self {
        let mut bytes = [0; 32];
        random.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The secret bytes, for storage. Handle with care.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key that belongs to this key (one X25519 operation).
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        *crate::agreement::KeyPair::from_private(self).public()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

/// An X25519 public key. Its text form is standard base64 with padding (44 characters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyParseError {
    /// The text is not standard base64 with padding.
    #[error("a key is written in standard base64 with padding")]
    InvalidBase64,
    /// The text decodes to another number of bytes than 32.
    #[error("a key has 32 bytes")]
    WrongLength,
}

impl FromStr for PublicKey {
    type Err = KeyParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyParseError::InvalidBase64)?;
        let bytes = bytes.try_into().map_err(|_| KeyParseError::WrongLength)?;
        Ok(Self(bytes))
    }
}

/// A symmetric key that both peers mix into the handshake.
///
/// It keeps recorded traffic closed to whoever breaks X25519 later. Never printed; wiped
/// when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(pub [u8; 32]);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_survive_their_text_form() {
        let key = PublicKey([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(KeyParseError::WrongLength));
        assert_eq!("!".parse::<PublicKey>(), Err(KeyParseError::InvalidBase64));
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?} {:?}", PrivateKey::from_bytes([66; 32]), PresharedKey([66; 32]));
        assert!(!text.contains("66") && !text.contains("42"), "{text}");
    }

    /// RFC 7748 section 6.1, Alice's key pair.
    #[test]
    fn public_key_matches_rfc_7748() {
        let private = PrivateKey::from_bytes([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        assert_eq!(private.public_key().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }
}
