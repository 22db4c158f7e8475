//! Leases end at their deadline, not later and not with the next poll.

use std::net::SocketAddr;
use std::time::Duration;

use crate::packets::{A, ip, socket, udp};
use crate::portal::{cidr, dns, resource};
use crate::world::{World, client_address};

#[test]
fn a_lease_ends_at_its_deadline_on_both_ends() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, cidr("10.2.0.0/16"))]);
    world.portal.lease_time = Duration::from_secs(10);
    let (first, second) = (socket("10.1.0.7:9"), socket("10.2.0.7:9"));
    let begin = world.now;
    assert!(world.exchange(0, 5000, first).is_answer());
    world.portal.lease_time = Duration::from_secs(3600);
    assert!(world.exchange(0, 5000, second).is_answer());
    // A lease that is in use would be renewed.
    world.portal.refusal = Some(adit_protocol::client::FailureReason::Unavailable);

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

    world.portal.refusal = None;
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

#[test]
fn a_lease_in_use_is_renewed_and_its_flows_go_on_in_both_directions() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    world.portal.lease_time = Duration::from_secs(60);
    let by_address = socket("10.1.0.7:9");
    assert!(world.exchange(0, 5000, by_address).is_answer());
    let by_name = SocketAddr::new(world.look_up(0, "wiki.corp", A)[0], 443);
    assert!(world.exchange(0, 5001, by_name).is_answer());
    for second in 0..200 {
        // Only the resources speak: nothing of the client could begin a flow anew.
        let before = world.clients[0].received.len();
        world.resource_sends(0, &udp(by_address, client_address(0, 5000), b"news"));
        world.resource_sends(0, &udp(socket("10.9.0.1:443"), client_address(0, 5001), b"news"));
        world.run(Duration::from_secs(1));
        assert_eq!(world.clients[0].received.len(), before + 2, "after {second} s");
    }
    assert_eq!(world.clients[0].machine.connections()[0].epoch, 1);
    assert!(world.gateways[0].machine.statistics().leases <= 4, "older ones end");
}

#[test]
fn a_lease_that_nobody_uses_ends() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.portal.lease_time = Duration::from_secs(300);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let requests = world.portal.requests.len();
    world.run(Duration::from_secs(301));
    assert_eq!(world.portal.requests.len(), requests);
    world.assert_nothing_left();
}
