//! Several clients and peers do whatever they like to a server, with and without credentials; see
//! `turn_world` for what must hold all the time.

#![no_main]

use adit_fuzz::turn_world::{Step, World};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let mut world = World::new();
    for step in steps.into_iter().take(100) {
        world.perform(step);
    }
    world.end();
});
