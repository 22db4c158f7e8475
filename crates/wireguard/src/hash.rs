//! BLAKE2s in the three ways WireGuard uses it: plain hash, keyed MAC, and HMAC-based HKDF.

use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::Zeroizing;

/// BLAKE2s block size, for HMAC (RFC 2104).
const BLOCK: usize = 64;

/// Hash of the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hasher, part);
    }
    hasher.finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output. `key` must have 1 to 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // Fails only for a key that is too long; all callers pass 16 or 32 bytes.
    let mut mac =
        <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("a key of at most 32 bytes fits BLAKE2s");
    for part in parts {
        Update::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut inner_pad = Zeroizing::new([0x36; BLOCK]);
    let mut outer_pad = Zeroizing::new([0x5c; BLOCK]);
    for (position, byte) in key.iter().enumerate() {
        inner_pad[position] ^= byte;
        outer_pad[position] ^= byte;
    }
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, inner_pad.as_slice());
    for part in parts {
        Digest::update(&mut inner, part);
    }
    let mut outer = Blake2s256::new();
    Digest::update(&mut outer, outer_pad.as_slice());
    Digest::update(&mut outer, inner.finalize());
    Zeroizing::new(outer.finalize().into())
}

/// HKDF (RFC 5869) with BLAKE2s: `N` outputs of 32 bytes from a chaining key and an input.
pub(crate) fn derive<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Zeroizing<[u8; 32]>; N] {
    let secret = hmac(chaining_key, &[input]);
    let mut previous: Option<Zeroizing<[u8; 32]>> = None;
    let mut counter = 0;
    std::array::from_fn(|_| {
        counter += 1;
        let before: &[u8] = previous.as_ref().map_or(&[], |output| output.as_slice());
        let output = hmac(&secret, &[before, &[counter]]);
        previous = Some(output.clone());
        output
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7693 appendix B.
    #[test]
    fn hash_matches_rfc_7693() {
        assert_eq!(hash(&[b"a", b"bc"])[..8], [0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2]);
    }

    #[test]
    fn derived_outputs_are_a_prefix_of_longer_derivations() {
        let [one] = derive::<1>(&[3; 32], b"input");
        let [first, second, third] = derive::<3>(&[3; 32], b"input");
        assert_eq!(one, first);
        assert!(first != second && second != third);
    }
}
