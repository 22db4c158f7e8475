//! A gateway restarts, and nobody's connections notice but for a pause.

use std::net::SocketAddr;
use std::time::Duration;

use adit_packet::PacketView;
use adit_tunnel::Handover;

use crate::packets::{self, A, ip, socket};
use crate::portal::{cidr, dns, gateway_id, resource, resource_id};
use crate::world::{World, client_address};

const HOLD: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_millis(300);

/// A flow by address and one by name, both through gateway 0.
fn connected() -> (World, SocketAddr, SocketAddr) {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    let by_address = socket("10.1.0.7:9");
    assert!(world.exchange(0, 5000, by_address).is_answer());
    let by_name = SocketAddr::new(world.look_up(0, "wiki.corp", A)[0], 443);
    assert!(world.exchange(0, 5001, by_name).is_answer());
    (world, by_address, by_name)
}

/// The gateway restarts; the portal finds the successor again after `portal_after`.
fn restart(world: &mut World, portal_after: Option<Duration>) {
    let handover = world.hand_over(0, HOLD);
    world.run(AWAY);
    world.take_over(0, through_a_file(&handover), AWAY);
    if let Some(after) = portal_after {
        world.run(after);
        world.connect_gateway(0);
    }
}

/// The successor reads what its predecessor wrote.
fn through_a_file(handover: &Handover) -> Handover {
    let text = serde_json::to_vec(handover).expect("plain data");
    serde_json::from_slice(&text).expect("what was written")
}

/// A packet of the resource arrives at the gateway; whether the client got it.
fn pushed(world: &mut World, from: SocketAddr, port: u16, as_seen_by_client: SocketAddr) -> bool {
    let before = world.clients[0].received.len();
    world.resource_sends(0, &packets::udp(from, client_address(0, port), b"news"));
    world.run(Duration::from_millis(100));
    let arrived = world.clients[0].received[before..].iter();
    arrived.clone().any(|(_, packet)| {
        PacketView::parse(packet).expect("well-formed").source_socket() == Some(as_seen_by_client)
    })
}

#[test]
fn flows_go_on_in_both_directions_under_the_same_grants() {
    let (mut world, by_address, by_name) = connected();
    let requests = world.portal.requests.len();
    restart(&mut world, Some(Duration::from_millis(50)));
    world.run(Duration::from_millis(300));
    assert!(world.exchange(0, 5000, by_address).is_answer());
    assert!(world.exchange(0, 5001, by_name).is_answer());
    assert!(pushed(&mut world, by_address, 5000, by_address));
    assert_eq!(world.portal.requests.len(), requests, "nobody asked the portal");
    assert!(world.portal.closed.is_empty(), "for the portal the connection never ended");
    assert_eq!(world.gateways[0].machine.statistics().leases, 2);
}

#[test]
fn who_only_receives_is_found_again_without_a_word() {
    let (mut world, by_address, by_name) = connected();
    restart(&mut world, Some(Duration::from_millis(50)));
    world.run(Duration::from_millis(300));
    assert!(pushed(&mut world, by_address, 5000, by_address));
    assert!(pushed(&mut world, socket("10.9.0.1:443"), 5001, by_name), "translated back as before");
}

#[test]
fn packets_of_the_pause_wait_and_arrive() {
    let (mut world, by_address, _) = connected();
    let handover = world.hand_over(0, HOLD);
    world.run(Duration::from_millis(100));
    let before = world.clients[0].received.len();
    for _ in 0..3 {
        world.client_sends_udp(0, 5000, by_address);
    }
    world.run(AWAY);
    world.take_over(0, handover, AWAY);
    world.run(Duration::from_millis(300));
    assert_eq!(world.clients[0].received.len(), before + 3);
}

#[test]
fn it_works_while_the_portal_is_away() {
    let (mut world, by_address, by_name) = connected();
    world.stop_portal();
    restart(&mut world, None);
    world.run(Duration::from_millis(300));
    assert!(world.exchange(0, 5000, by_address).is_answer());
    assert!(world.exchange(0, 5001, by_name).is_answer());
}

#[test]
fn the_other_gateway_is_left_alone_meanwhile() {
    let (mut world, by_address, _) = connected();
    world.add_gateway(1);
    world.run(Duration::from_secs(1));
    let handover = world.hand_over(0, HOLD);
    world.run(Duration::from_secs(5));
    world.client_sends_udp(0, 5000, by_address);
    world.run(Duration::from_secs(2));
    world.take_over(0, handover, Duration::from_secs(7));
    world.connect_gateway(0);
    world.run(Duration::from_secs(1));
    assert!(world.exchange(0, 5000, by_address).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(0));
    assert_eq!(world.gateways[1].machine.statistics().connections, 0);
}

#[test]
fn a_successor_that_never_comes_is_given_up() {
    let (mut world, by_address, _) = connected();
    world.add_gateway(1);
    world.run(Duration::from_secs(1));
    world.hand_over(0, HOLD);
    world.run(HOLD + Duration::from_secs(1));
    assert!(world.clients[0].machine.connections().is_empty());
    assert_eq!(world.clients[0].worker.sizes().flows, 0);
    assert!(world.exchange(0, 5000, by_address).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
}

#[test]
fn a_successor_that_begins_anew_is_asked_for_access_like_any_other() {
    let (mut world, by_address, _) = connected();
    world.hand_over(0, HOLD);
    world.run(AWAY);
    world.restart_gateway(0);
    world.run(HOLD + Duration::from_secs(1));
    assert!(world.exchange(0, 5000, by_address).is_answer());
}

#[test]
fn what_is_revoked_meanwhile_is_gone_when_the_portal_is_heard() {
    let (mut world, by_address, by_name) = connected();
    let handover = world.hand_over(0, HOLD);
    world.run(Duration::from_millis(50));
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.run(AWAY);
    world.take_over(0, handover, AWAY);
    world.connect_gateway(0);
    world.run(Duration::from_millis(500));
    assert!(world.exchange(0, 5001, by_name).is_answer());
    assert_eq!(world.gateways[0].machine.statistics().leases, 1);
    assert_eq!(world.gateways[0].machine.statistics().flows, 1);
    assert!(!pushed(&mut world, by_address, 5000, by_address), "nothing of the revoked flow passes");
}

#[test]
fn a_lease_that_ends_meanwhile_does_not_come_back() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.portal.lease_time = Duration::from_secs(30);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world.run(Duration::from_secs(25));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let handover = world.hand_over(0, HOLD);
    world.run(Duration::from_secs(6));
    world.take_over(0, handover, Duration::from_secs(6));
    let statistics = world.gateways[0].machine.statistics();
    assert_eq!((statistics.leases, statistics.connections, statistics.flows), (0, 0, 0));
}

#[test]
fn a_relayed_connection_comes_back_too() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.network.is_direct_blocked = true;
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let requests = world.portal.requests.len();
    restart(&mut world, Some(Duration::from_millis(50)));
    world.run(Duration::from_secs(1));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.portal.requests.len(), requests);
}

#[test]
fn after_a_plain_stop_nobody_waits() {
    let (mut world, by_address, _) = connected();
    world.add_gateway(1);
    world.run(Duration::from_secs(1));
    world.with_gateway(0, |gateway, now| {
        gateway.shut_down(now, adit_protocol::peer::GoodbyeReason::ShuttingDown);
    });
    world.gateways[0].is_off = true;
    world.run(Duration::from_millis(100));
    assert!(world.exchange(0, 5000, by_address).is_answer());
    assert_eq!(world.clients[0].machine.connections()[0].gateway, gateway_id(1));
}

#[test]
fn a_handover_names_no_secret_when_shown() {
    let (mut world, ..) = connected();
    let handover = world.hand_over(0, HOLD);
    let shown = format!("{handover:?}");
    let written = serde_json::to_string(&handover).expect("plain data");
    let start = written.find("preshared_key\":\"").expect("a key") + 16;
    let secret = &written[start..start + 40];
    assert!(!shown.contains(secret));
}
