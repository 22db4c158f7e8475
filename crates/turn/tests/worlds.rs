//! The fuzz target `turn_machine`, fed with chance instead of what a fuzzer finds out.

#[expect(unreachable_pub, reason = "the fuzz targets use it too")]
#[path = "../../../fuzz/src/turn_world.rs"]
mod turn_world;

use arbitrary::{Arbitrary as _, Unstructured};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use turn_world::{Step, World};

#[test]
fn whatever_happens_nothing_is_left_in_the_end() {
    for seed in 0..300 {
        let mut bytes = [0; 1500];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let steps = Vec::<Step>::arbitrary(&mut Unstructured::new(&bytes)).expect("enough bytes");
        let mut world = World::default();
        for step in steps.into_iter().take(100) {
            world.perform(step);
        }
        world.end();
    }
}
