//! The four goodbyes, and that no close leaves anything behind.

use std::time::Duration;

use adit_protocol::peer::GoodbyeReason;
use adit_tunnel::ClientEvent;

use crate::packets::{A, ip, socket};
use crate::portal::{cidr, client_id, dns, gateway_id, resource, resource_id, site};
use crate::world::World;

/// A world with a connection that carries a flow by address and one by name.
fn connected() -> World {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let proxies = world.look_up(0, "wiki.corp", A);
    assert!(world.exchange(0, 5000, (proxies[0], 443).into()).is_answer());
    assert_eq!(world.gateways[0].machine.statistics().flows, 2);
    world
}

/// Less than any timeout: whoever is gone by then was told.
const AT_ONCE: Duration = Duration::from_millis(100);

#[test]
fn one_of_several_authorizations_takes_only_its_own_flows_along() {
    let mut world = connected();
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.run(AT_ONCE);
    let statistics = world.gateways[0].machine.statistics();
    assert_eq!((statistics.connections, statistics.leases, statistics.flows), (1, 1, 1));
    assert_eq!(world.gateways[0].worker.sizes().flows, 1);
    assert_eq!(world.clients[0].worker.sizes().flows, 1);
    assert!(world.portal.closed.is_empty());
}

#[test]
fn case_1_the_last_authorization_is_revoked() {
    let mut world = connected();
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.administer(|portal| portal.revoke(resource_id(2)));
    world.run(AT_ONCE);
    world.assert_nothing_left();
    assert!(world.portal.closed.contains(&(client_id(0), gateway_id(0), 1)));
    let last = world.client_events.iter().rev().find_map(|event| match event {
        ClientEvent::ConnectionChanged { status, .. } => Some(status.is_some()),
        _ => None,
    });
    assert_eq!(last, Some(false));
    // The next packet asks again, and gets a new connection.
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].epoch, 2);
}

#[test]
fn case_1_the_last_authorization_expires() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.portal.lease_time = Duration::from_secs(30);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.run(Duration::from_secs(30));
    world.assert_nothing_left();
}

#[test]
fn case_2_the_gateway_stops() {
    let mut world = connected();
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    world.run(AT_ONCE);
    world.assert_nothing_left();
    assert!(world.portal.is_draining(gateway_id(0)));
    // The portal chooses it no more, and so nobody is online.
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    world.run(AT_ONCE);
    assert_eq!(world.portal.requests.last().unwrap().avoid_gateways, [gateway_id(0)]);
    assert!(world.portal.requests.last().unwrap().connected_gateways.is_empty());
}

#[test]
fn case_3_the_client_has_lost_a_site() {
    let mut world = connected();
    world.administer(|portal| portal.remove_resource(resource_id(1)));
    world.run(AT_ONCE);
    assert_eq!(world.clients[0].machine.statistics().connections, 1, "the site has another resource");
    world.administer(|portal| portal.remove_resource(resource_id(2)));
    world.run(AT_ONCE);
    world.assert_nothing_left();
    assert!(world.portal.closed.contains(&(client_id(0), gateway_id(0), 1)));
}

#[test]
fn case_3_a_site_is_lost_when_its_last_resource_moves() {
    let mut world = connected();
    for number in [1, 2] {
        let mut moved = world.portal.resources[&resource_id(number)].clone();
        moved.site = site(2);
        world.administer(|portal| portal.change_resource(moved));
    }
    world.run(AT_ONCE);
    world.assert_nothing_left();
}

#[test]
fn case_4_the_client_signs_out() {
    let mut world = connected();
    world.with_client(0, |client, now| client.shut_down(now, GoodbyeReason::SignedOut));
    world.run(AT_ONCE);
    world.assert_nothing_left();
    assert_eq!(world.portal.signed_out, [client_id(0)]);
    // A packet that comes late is dropped; nothing starts again.
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    world.run(Duration::from_secs(10));
    world.assert_nothing_left();
}

#[test]
fn a_goodbye_that_is_lost_is_made_good() {
    let mut world = connected();
    world.network.loss = 100;
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.administer(|portal| portal.revoke(resource_id(2)));
    world.run(AT_ONCE);
    assert_eq!(world.gateways[0].machine.statistics().connections, 0);
    assert_eq!(world.clients[0].machine.statistics().connections, 1, "the client heard nothing");
    world.network.loss = 0;
    // The next check of the path finds nobody.
    world.run(Duration::from_secs(30));
    world.assert_nothing_left();
}

#[test]
fn what_waits_when_a_connection_closes_asks_again() {
    let mut world = connected();
    world.add_gateway(1);
    world.run(Duration::from_secs(1));
    world.with_gateway(0, |gateway, now| gateway.shut_down(now, GoodbyeReason::ShuttingDown));
    // Before the goodbye arrives, this one leaves for the gateway that is gone; the next one finds the other.
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    world.run(AT_ONCE);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
}
