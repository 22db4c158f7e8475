//! The client's network changes; flows, leases and the connection do not.

use std::time::Duration;

use crate::packets::socket;
use crate::portal::{cidr, resource};
use crate::world::{Reply, World};

fn roam(is_portal_up: bool) {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.run(Duration::from_secs(2));
    if !is_portal_up {
        world.stop_portal();
    }
    world.roam_client(0);
    let begin = world.now;
    let answered = (0..20).any(|_| {
        world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
        world.await_packet(0, Duration::from_millis(50)).is_some()
    });
    assert!(answered);
    assert!(world.now - begin <= Duration::from_millis(500), "{:?}", world.now - begin);
    assert_eq!(world.portal.requests.len(), 1);
    assert_eq!(world.clients[0].machine.connections()[0].epoch, 1);
    world.run(Duration::from_secs(30));
    let reply = world.exchange(0, 5000, socket("10.1.0.7:9"));
    assert!(matches!(reply, Reply::Answer(_)), "{reply:?}");
}

#[test]
fn traffic_goes_on_from_the_new_address() {
    roam(true);
}

#[test]
fn it_does_so_while_the_portal_is_away() {
    roam(false);
}
