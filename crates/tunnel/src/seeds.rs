//! One seed becomes several, so that no two parts draw the same numbers.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Seeds for the parts of a machine.
#[derive(Debug)]
pub(crate) struct Seeds(ChaCha20Rng);

impl Seeds {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A seed that was not given out before.
    pub(crate) fn next(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}
