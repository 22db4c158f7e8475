//! A site with two gateways survives the loss of one.

use std::time::Duration;

use adit_protocol::PortalToClient;
use adit_protocol::client::GatewayGone;
use adit_protocol::peer::{self, GoodbyeReason, PeerMessage};

use crate::packets::socket;
use crate::portal::{cidr, gateway_id, resource};
use crate::world::World;

fn world() -> World {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.add_gateway(1);
    world.run(Duration::from_secs(2));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(0));
    world
}

#[test]
fn a_gateway_that_stopped_is_avoided_and_then_welcome_again() {
    let mut world = world();
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(100));
    world.restart_gateway(0);
    world.run(Duration::from_millis(500));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
    assert_eq!(world.portal.requests.last().unwrap().avoid_gateways, [gateway_id(0)]);

    world.run(Duration::from_secs(5));
    world.with_gateway(1, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(100));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.portal.requests.last().unwrap().avoid_gateways, [gateway_id(1)]);
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(0));
}

#[test]
fn the_only_gateway_is_used_although_it_should_be_avoided() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(100));
    world.restart_gateway(0);
    world.run(Duration::from_millis(500));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
}

#[test]
fn a_gateway_that_vanished_is_noticed_by_traffic() {
    let mut world = world();
    world.gateways[0].is_off = true;
    let begin = world.now;
    let destination = socket("10.1.0.7:9");
    // An application that retries every 100 ms.
    let answered = (0..30).any(|_| {
        world.client_sends_udp(0, 5000, destination);
        world.await_packet(0, Duration::from_millis(100)).is_some()
    });
    assert!(answered);
    assert!(world.now - begin < Duration::from_millis(2500), "{:?}", world.now - begin);
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
}

#[test]
fn a_hint_of_the_portal_closes_nothing_by_itself() {
    let mut world = world();
    let gone = PortalToClient::GatewayGone(GatewayGone { gateway: gateway_id(0) });
    world.with_client(0, |client, now| client.handle_portal(now, gone));
    world.run(Duration::from_secs(5));
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(0));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.portal.requests.len(), 1);
}

#[test]
fn a_gateway_that_crashed_and_came_back_disowns_the_session() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.restart_gateway(0);
    world.run(Duration::from_secs(1));
    let begin = world.now;
    let destination = socket("10.1.0.7:9");
    let answered = (0..30).any(|_| {
        world.client_sends_udp(0, 5000, destination);
        world.await_packet(0, Duration::from_millis(100)).is_some()
    });
    assert!(answered);
    assert!(world.now - begin < Duration::from_secs(1), "{:?}", world.now - begin);
}

#[test]
fn new_flows_leave_a_gateway_that_will_stop_and_old_ones_stay() {
    let mut world = world();
    let draining = PeerMessage::Draining { deadline_ms: 60_000 };
    let (gateway, client) = ("fd00:ad17::64", "fd00:ad17::a");
    let (gateway, client) = (gateway.parse().expect("an address"), client.parse().expect("an address"));
    let mut packet = peer::encode(gateway, client, 7, &draining).expect("a packet");
    let peer = adit_dataplane::PeerId(1);
    world.with_client(0, |client, now| client.handle_peer_packet(now, peer, &mut packet));

    // The first new flow still goes the old way, and meanwhile another way is asked for.
    assert!(world.exchange(0, 5001, socket("10.1.0.7:9")).is_answer());
    world.run(Duration::from_secs(1));
    let before = world.gateways[0].received.len();
    assert!(world.exchange(0, 5002, socket("10.1.0.7:9")).is_answer());
    assert_eq!((world.gateways[0].received.len(), world.gateways[1].received.len()), (before, 1));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.gateways[0].received.len(), before + 1);
}
