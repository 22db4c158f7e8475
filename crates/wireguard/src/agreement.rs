//! X25519 (RFC 7748), every operation counted.
//!
//! The count is what the defence against floods is about, so tests can prove that a
//! datagram without a valid MAC1 costs none.

use aws_lc_rs::agreement::{PrivateKey as Scalar, UnparsedPublicKey, X25519, agree};
use rand::RngCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{PrivateKey, PublicKey};

/// A secret scalar and its public key.
#[derive(Debug)]
pub(crate) struct KeyPair {
    scalar: Scalar,
    public: PublicKey,
}

/// The shared secret is all zeros: the other public key has low order (RFC 7748 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LowOrder;

impl KeyPair {
    pub(crate) fn from_private(key: &PrivateKey) -> Self {
        // Both fail only for another length than 32 or when memory is exhausted.
        let scalar =
            Scalar::from_private_key(&X25519, key.as_bytes()).expect("32 bytes are an X25519 scalar");
        let point = scalar.compute_public_key().expect("an X25519 scalar has a public key");
        let public = point.as_ref().try_into().map(PublicKey).expect("an X25519 public key has 32 bytes");
        Self { scalar, public }
    }

    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// Does the operations and counts them.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    pub(crate) operations: u64,
}

impl Agreement {
    /// Draws an ephemeral key pair.
    pub(crate) fn generate(&mut self, random: &mut impl RngCore) -> KeyPair {
        self.operations += 1;
        KeyPair::from_private(&PrivateKey::generate(random))
    }

    /// The shared secret of `own` and `other`.
    pub(crate) fn agree(
        &mut self,
        own: &KeyPair,
        other: &PublicKey,
    ) -> Result<Zeroizing<[u8; 32]>, LowOrder> {
        self.operations += 1;
        let other = UnparsedPublicKey::new(&X25519, other.as_bytes());
        agree(&own.scalar, other, LowOrder, |secret| {
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(secret.try_into().map_err(|_| LowOrder)?);
            // The library refuses zeros too; the rule is ours, so it is checked here.
            if bool::from(secret.ct_eq(&[0; 32])) { Err(LowOrder) } else { Ok(secret) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let (a, b) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
        let mut agreement = Agreement::default();
        let ab = agreement.agree(&KeyPair::from_private(&a), &b.public_key()).unwrap();
        let ba = agreement.agree(&KeyPair::from_private(&b), &a.public_key()).unwrap();
        assert_eq!(ab, ba);
        assert_eq!(agreement.operations, 2);
    }

    /// Points of order 1, 2 (u = 0), 4 (u = 1) and 8, and the non-canonical forms p and p + 1.
    #[test]
    fn low_order_points_are_refused() {
        let own = KeyPair::from_private(&PrivateKey::from_bytes([9; 32]));
        let mut one = [0; 32];
        one[0] = 1;
        let mut prime = [0xff; 32];
        (prime[0], prime[31]) = (0xed, 0x7f);
        let mut prime_plus_one = prime;
        prime_plus_one[0] = 0xee;
        let order_eight = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        for point in [[0; 32], one, prime, prime_plus_one, order_eight] {
            assert_eq!(Agreement::default().agree(&own, &PublicKey(point)), Err(LowOrder), "{point:02x?}");
        }
    }
}
