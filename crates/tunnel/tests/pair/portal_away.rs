//! The portal is away: what was granted stays, what is new waits, and all is in line again afterwards.

use std::time::Duration;

use crate::packets::{HOST_UNREACHABLE, socket};
use crate::portal::{cidr, resource, resource_id};
use crate::world::World;

fn world() -> World {
    World::new([resource(1, cidr("10.1.0.0/16")), resource(2, cidr("10.2.0.0/16"))])
}

#[test]
fn flows_old_and_new_of_a_granted_resource_go_on() {
    let mut world = world();
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.stop_portal();
    world.run(Duration::from_secs(600));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert!(world.exchange(0, 5001, socket("10.1.0.8:9")).is_answer());
    world.start_portal();
    world.run(Duration::from_secs(1));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.portal.requests.len(), 1);
    assert_eq!(world.clients[0].machine.statistics().connections, 1);
}

#[test]
fn leases_end_while_the_portal_is_away() {
    let mut world = world();
    world.portal.lease_time = Duration::from_secs(60);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.stop_portal();
    world.run(Duration::from_secs(61));
    world.assert_nothing_left();
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_error(HOST_UNREACHABLE));
}

#[test]
fn what_waits_is_asked_for_when_the_portal_is_back() {
    let mut world = world();
    world.stop_portal();
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    world.run(Duration::from_secs(3));
    assert!(world.portal.requests.is_empty());
    world.start_portal();
    assert!(world.await_packet(0, Duration::from_secs(1)).is_some());
    assert_eq!(world.portal.requests.len(), 1, "not once more by the timer");
}

#[test]
fn what_was_revoked_meanwhile_ends_with_the_next_init() {
    let mut world = world();
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert!(world.exchange(0, 5000, socket("10.2.0.7:9")).is_answer());
    world.stop_portal();
    drop(world.portal.revoke(resource_id(1)));
    world.start_portal();
    world.run(Duration::from_millis(100));
    for statistics in [world.gateways[0].machine.statistics(), world.clients[0].machine.statistics()] {
        assert_eq!((statistics.connections, statistics.leases), (1, 1));
    }
    world.stop_portal();
    drop(world.portal.revoke(resource_id(2)));
    world.start_portal();
    world.run(Duration::from_millis(200));
    world.assert_nothing_left();
}

#[test]
fn a_resource_that_vanished_meanwhile_is_gone() {
    let mut world = world();
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.stop_portal();
    world.portal.resources.clear();
    drop(world.portal.revoke(resource_id(1)));
    world.start_portal();
    world.run(Duration::from_millis(200));
    world.assert_nothing_left();
    assert!(world.clients[0].machine.resources(world.now).is_empty());
}
