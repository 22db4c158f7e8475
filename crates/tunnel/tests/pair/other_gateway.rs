//! A site with two gateways survives the loss of one.

use std::time::Duration;

use adit_protocol::PortalToClient;
use adit_protocol::client::GatewayGone;
use adit_protocol::peer::GoodbyeReason;

use crate::portal::{cidr, gateway_id, resource};
use crate::world::World;

fn world() -> World {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.add_gateway(1);
    world.run(Duration::from_secs(2));
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
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
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
    assert_eq!(world.portal.requests.last().unwrap().avoid_gateways, [gateway_id(0)]);

    world.run(Duration::from_secs(5));
    world.with_gateway(1, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(100));
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
    assert_eq!(world.portal.requests.last().unwrap().avoid_gateways, [gateway_id(1)]);
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(0));
}

#[test]
fn the_only_gateway_is_used_although_it_should_be_avoided() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(Duration::from_millis(100));
    world.restart_gateway(0);
    world.run(Duration::from_millis(500));
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
}

#[test]
fn a_gateway_that_vanished_is_noticed_by_traffic() {
    let mut world = world();
    world.gateways[0].is_off = true;
    let begin = world.now;
    let destination = "10.1.0.7:9".parse().unwrap();
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
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
    assert_eq!(world.portal.requests.len(), 1);
}

#[test]
fn a_gateway_that_crashed_and_came_back_disowns_the_session() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, "10.1.0.7:9".parse().unwrap()).is_answer());
    world.restart_gateway(0);
    world.run(Duration::from_secs(1));
    let begin = world.now;
    let destination = "10.1.0.7:9".parse().unwrap();
    let answered = (0..30).any(|_| {
        world.client_sends_udp(0, 5000, destination);
        world.await_packet(0, Duration::from_millis(100)).is_some()
    });
    assert!(answered);
    assert!(world.now - begin < Duration::from_secs(1), "{:?}", world.now - begin);
}
