//! The client's first packet may reach the gateway before the grant does.

use std::time::Duration;

use adit_protocol::peer::GoodbyeReason;
use adit_tunnel::DropReason;

use crate::packets::{A, PROHIBITED, ip, socket};
use crate::portal::{cidr, dns, resource};
use crate::world::World;

/// A world whose connection stands; the gateway hears of new grants later than the client.
fn world(delay_ms: u64) -> World {
    let mut world = World::new([
        resource(1, cidr("10.1.0.0/16")),
        resource(2, cidr("10.2.0.0/16")),
        resource(3, dns("*.corp")),
    ]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.gateway_delay = Duration::from_millis(delay_ms);
    world
}

#[test]
fn a_packet_waits_for_its_grant() {
    let mut world = world(100);
    // The packet takes 20 ms to the gateway and so is 80 ms early.
    assert!(world.exchange(0, 5000, socket("10.2.0.7:9")).is_answer());
    assert_eq!(world.gateways[0].machine.drops().get(DropReason::Unauthorized), 0);
}

#[test]
fn a_packet_does_not_wait_for_ever() {
    let mut world = world(5000);
    assert!(world.exchange(0, 5000, socket("10.2.0.7:9")).is_error(PROHIBITED));
    assert_eq!(world.gateways[0].machine.drops().get(DropReason::Unauthorized), 1);
    assert_eq!(world.gateways[0].machine.statistics().waiting, 0);
    world.run(Duration::from_secs(5));
    assert!(world.exchange(0, 5000, socket("10.2.0.7:9")).is_answer(), "the grant came after all");
}

#[test]
fn an_announced_name_waits_for_its_grant() {
    let mut world = world(100);
    let proxies = world.look_up(0, "wiki.corp", A);
    let reply = world.exchange(0, 5000, (proxies[0], 443).into());
    assert!(reply.is_answer(), "{reply:?}");
}

#[test]
fn what_waits_for_one_peer_is_bounded() {
    let mut world = world(10_000);
    for port in 0..500 {
        world.client_sends_udp(0, 6000 + port, socket("10.2.0.7:9"));
    }
    // All of it arrives in one burst once the client has its authorization.
    world.run(Duration::from_millis(70));
    assert_eq!(world.gateways[0].machine.statistics().waiting, 32);
    world.run(Duration::from_millis(200));
    assert_eq!(world.gateways[0].machine.statistics().waiting, 0);
}

#[test]
fn a_client_that_leaves_takes_along_what_waits() {
    let mut world = world(10_000);
    world.client_sends_udp(0, 6000, socket("10.2.0.7:9"));
    world.run(Duration::from_millis(70));
    assert_eq!(world.gateways[0].machine.statistics().waiting, 1);
    world.with_client(0, |client, now| client.shut_down(now, GoodbyeReason::SignedOut));
    world.run(Duration::from_millis(25));
    world.assert_nothing_left();
}
