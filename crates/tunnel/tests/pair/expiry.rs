//! Leases end at their deadline, not later and not with the next poll.

use std::time::Duration;

use crate::packets::socket;
use crate::portal::{cidr, resource};
use crate::world::World;

#[test]
fn a_lease_ends_at_its_deadline_on_both_ends() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, cidr("10.2.0.0/16"))]);
    world.portal.lease_time = Duration::from_secs(10);
    let (first, second) = (socket("10.1.0.7:9"), socket("10.2.0.7:9"));
    let begin = world.now;
    assert!(world.exchange(0, 5000, first).is_answer());
    world.portal.lease_time = Duration::from_secs(3600);
    assert!(world.exchange(0, 5000, second).is_answer());

    // The request took 20 ms to the portal, which counts from there; its clock is 20 ms behind ours.
    let deadline = begin + Duration::from_millis(10_040);
    world.run(deadline - Duration::from_millis(100) - world.now);
    assert!(world.exchange(0, 5000, first).is_answer());
    assert_eq!(world.gateways[0].machine.statistics().leases, 2);
    world.run(deadline - world.now);
    for statistics in [world.gateways[0].machine.statistics(), world.clients[0].machine.statistics()] {
        assert_eq!((statistics.leases, statistics.connections), (1, 1), "only the one that is over");
    }
    assert_eq!(world.gateways[0].worker.sizes().flows, 1, "its flow is gone with it");
    let before = world.portal.requests.len();
    assert!(world.exchange(0, 5000, second).is_answer());
    assert_eq!(world.portal.requests.len(), before, "the other lease stands");

    let unix_ms = world.unix_ms();
    world.portal.expire(unix_ms);
    assert!(world.exchange(0, 5000, first).is_answer());
    assert_eq!(world.portal.requests.len(), before + 1, "the next packet asks again");
}

#[test]
fn a_wall_clock_that_is_hours_off_does_not_matter() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    // Leases are measured against the portal's clock, which every init brings along.
    world.portal.lease_time = Duration::from_secs(7200);
    world.run(Duration::from_secs(3600));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.run(Duration::from_secs(7190));
    assert_eq!(world.gateways[0].machine.statistics().leases, 1);
    world.run(Duration::from_secs(11));
    assert_eq!(world.gateways[0].machine.statistics().leases, 0);
}
