//! BLAKE2s in the three ways WireGuard uses it: plain hash, keyed MAC, and HMAC-based HKDF.

use blake2s_simd::{Params, State};
use zeroize::Zeroizing;

/// BLAKE2s block size, for HMAC (RFC 2104).
const BLOCK: usize = 64;

/// Hash of the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    finish(State::new(), parts)
}

/// Takes in `parts` and ends with 32 bytes.
fn finish(mut state: State, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        state.update(part);
    }
    *state.finalize().as_array()
}

/// Keyed BLAKE2s with 16 bytes of output. `key` must have 1 to 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // Panics only for a key that is too long; all callers pass 16 or 32 bytes.
    let mut state = Params::new().hash_length(16).key(key).to_state();
    for part in parts {
        state.update(part);
    }
    let mut mac = [0; 16];
    mac.copy_from_slice(state.finalize().as_bytes());
    mac
}

/// HMAC (RFC 2104) with a key that has been taken in once for all messages.
#[derive(Clone)]
struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    fn new(key: &[u8; 32]) -> Self {
        let keyed = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK]);
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = State::new();
            state.update(block.as_slice());
            state
        };
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    fn of(&self, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let inner = Zeroizing::new(finish(self.inner.clone(), parts));
        Zeroizing::new(finish(self.outer.clone(), &[inner.as_slice()]))
    }
}

/// HKDF (RFC 5869) with BLAKE2s: `N` outputs of 32 bytes from a chaining key and an input.
pub(crate) fn derive<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Zeroizing<[u8; 32]>; N] {
    let secret = Hmac::new(&Hmac::new(chaining_key).of(&[input]));
    let mut previous: Option<Zeroizing<[u8; 32]>> = None;
    let mut counter = 0;
    std::array::from_fn(|_| {
        counter += 1;
        let before: &[u8] = previous.as_ref().map_or(&[], |output| output.as_slice());
        let output = secret.of(&[before, &[counter]]);
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

    /// RFC 2104 with BLAKE2s, as Python's `hmac` module computes it.
    #[test]
    fn hmac_matches_another_implementation() {
        let expected = [
            0x63, 0x27, 0x9d, 0x05, 0xe9, 0xae, 0x63, 0x3a, 0xab, 0x00, 0xf4, 0x99, 0xb9, 0xc9, 0x75, 0xcc,
            0x94, 0x01, 0x82, 0x2c, 0xba, 0x46, 0x54, 0x25, 0xb4, 0x0e, 0xdf, 0x4c, 0xe6, 0x1a, 0x5e, 0x15,
        ];
        assert_eq!(*Hmac::new(&[7; 32]).of(&[b"some ", b"message"]), expected);
    }

    #[test]
    fn derived_outputs_are_a_prefix_of_longer_derivations() {
        let [one] = derive::<1>(&[3; 32], b"input");
        let [first, second, third] = derive::<3>(&[3; 32], b"input");
        assert_eq!(one, first);
        assert!(first != second && second != third);
    }
}
