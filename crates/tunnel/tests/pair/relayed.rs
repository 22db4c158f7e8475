//! Where no direct path works, the relay carries the traffic.

use std::time::Duration;

use adit_protocol::peer::GoodbyeReason;

use crate::packets::socket;
use crate::portal::{cidr, resource};
use crate::world::{Reply, World};

#[test]
fn traffic_goes_through_the_relay_and_leaves_nothing_there() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.network.is_direct_blocked = true;
    let Reply::Answer(took) = world.exchange(0, 5000, socket("10.1.0.7:9")) else { panic!("no answer") };
    // Portal 40 ms, then at most two round trips of up to 160 ms (relay to relay) and 50 ms.
    assert!(took < Duration::from_millis(40 + 320 + 50), "{took:?}");
    world.run(Duration::from_secs(3));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let path = world.clients[0].machine.connections()[0].path.expect("connected");
    assert_eq!(path.relay, Some(world.relay.address()));

    world.with_client(0, |client, now| client.shut_down(now, GoodbyeReason::SignedOut));
    world.run(Duration::from_millis(200));
    assert_eq!(world.gateways[0].machine.statistics().connections, 0, "the goodbye came through the relay");
    assert_eq!(world.relay.server.allocations(), 1, "only the gateway's is left");
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(200));
    assert_eq!(world.relay.server.allocations(), 0);
}
