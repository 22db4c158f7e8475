//! An hour in which nothing happens but loss: no connection may end.
//!
//! Five of a hundred datagrams vanish, application data and probes and handshakes alike. One in two worlds has
//! traffic in one direction only, which makes the client doubt its gateway after every silence.

use std::time::Duration;

use crate::transition::Transition;
use crate::world::{Shape, World};

/// How long.
const HOUR: Duration = Duration::from_secs(3600);

/// Connections that ended during the hour of a seed; each was a false failover.
pub fn false_failovers(seed: u64) -> usize {
    let is_one_way = seed.is_multiple_of(2);
    let shape = Shape {
        gateways_per_site: 2,
        loss: 50,
        jitter: Duration::from_millis(5),
        lease_time: HOUR * 8,
        has_echo: !is_one_way,
        ..Shape::PLAIN
    };
    let mut world = World::new(shape, seed);
    let every_ms = if is_one_way { 1_000 } else { 2_000 };
    world.apply(&Transition::Traffic { client: 0, resource: 0, every_ms });
    // The connection may need more than one try to come up.
    world.run_for(Duration::from_secs(30));
    let before = world.closings;
    for _ in 0..60 {
        world.run_for(HOUR / 60);
        world.take_probes(world.now);
        world.take_arrivals();
    }
    world.closings - before
}
