//! A change of network keeps sessions and connections.

use std::time::Duration;

use adit_peering::Role;

use crate::world::{NatKind, World, ms};

/// Behind NATs (or not), connected, settled.
fn connected(client: Option<NatKind>, gateway: Option<NatKind>) -> World {
    let mut world = World::new(50);
    world.add_relay("198.51.100.1");
    let nat = client.map(|kind| world.add_nat(kind, "203.0.113.10"));
    let inside = if nat.is_some() { "192.168.1.2:51820" } else { "203.0.113.10:51820" };
    world.add_host(Role::Client, &[inside], nat);
    let nat = gateway.map(|kind| world.add_nat(kind, "203.0.113.20"));
    let inside = if nat.is_some() { "10.0.0.2:51820" } else { "203.0.113.20:51820" };
    world.add_host(Role::Gateway, &[inside], nat);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(15));
    world
}

/// How long until an answer arrives, in milliseconds; sessions and connections must be kept.
fn time_to_next_answer(world: &mut World, limit: u64) -> u128 {
    let sessions = world.hosts[0].node.wireguard_counters().handshakes_completed;
    let moved = world.now;
    let answered = world.exchange(0, b"next", Duration::from_millis(limit)).expect("an answer");
    world.run_for(Duration::from_secs(25));
    assert!(world.closed(0).is_none() && world.closed(1).is_none(), "the connection lives");
    assert_eq!(world.hosts[0].node.wireguard_counters().handshakes_completed, sessions);
    (answered - moved).as_millis()
}

#[test]
fn a_client_moves_to_another_network_and_the_gateway_follows_at_once() {
    let mut world = connected(Some(NatKind::PortRestricted), None);
    let nat = world.add_nat(NatKind::Symmetric, "203.0.113.30");
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    assert_eq!(time_to_next_answer(&mut world, 3000), 40, "one round trip");
    assert!(world.is_direct(0) && world.is_direct(1));
}

#[test]
fn the_gateway_answers_at_the_new_address_even_if_only_it_has_data() {
    let mut world = connected(Some(NatKind::PortRestricted), None);
    world.hosts[1].echoes = false;
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.30");
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    world.run_for(ms(21));
    world.send(1, b"push");
    world.run_for(ms(21));
    let last = world.hosts[0].received.last().expect("a packet");
    assert!(last.1.starts_with(b"push"));
}

#[test]
fn behind_two_nats_the_relay_carries_it_until_the_portal_has_told() {
    let mut world = connected(Some(NatKind::PortRestricted), Some(NatKind::PortRestricted));
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.30");
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    let took = time_to_next_answer(&mut world, 3000);
    assert!(took <= 500, "{took} ms");
    assert!(world.is_direct(0) && world.is_direct(1));
}

#[test]
fn a_roam_completes_while_the_portal_is_away() {
    let mut world = connected(Some(NatKind::PortRestricted), Some(NatKind::PortRestricted));
    world.portal = None;
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.30");
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    let took = time_to_next_answer(&mut world, 10_000);
    println!("without the portal: {took} ms");
    assert!(took <= 1000, "{took} ms");
    assert!(world.is_direct(0) && world.is_direct(1), "candidates travelled inside the tunnel");
}

#[test]
fn a_gateway_moves_too() {
    let mut world = connected(None, None);
    world.move_host(1, &["203.0.113.40:51820"], None);
    let took = time_to_next_answer(&mut world, 3000);
    assert!(took <= 500, "{took} ms");
    assert!(world.is_direct(0) && world.is_direct(1));
}

#[test]
fn a_while_without_any_network_is_survived() {
    let mut world = connected(Some(NatKind::PortRestricted), None);
    world.move_host(0, &[], Some(0));
    for _ in 0..100 {
        world.send(0, b"into the void");
        world.run_for(ms(100));
    }
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
    world.move_host(0, &["192.168.1.9:51820"], Some(0));
    assert_eq!(time_to_next_answer(&mut world, 3000), 40);
}

#[test]
fn a_nat_that_restarts_is_survived() {
    let mut world = connected(Some(NatKind::PortRestricted), None);
    world.nats[0].forget();
    let took = time_to_next_answer(&mut world, 3000);
    assert_eq!(took, 40, "the gateway sees the same client at another port");
}

#[test]
fn many_moves_leave_no_growing_pile() {
    let mut world = connected(Some(NatKind::PortRestricted), None);
    for number in 0..200_u32 {
        let address = format!("192.168.2.{}:{}", number % 250, 1000 + number);
        world.move_host(0, &[&address], Some(0));
        world.exchange(0, b"moved", Duration::from_secs(3)).expect("an answer");
    }
    let statistics = world.hosts[0].node.statistics();
    assert!(statistics.channels < 40 && statistics.transactions <= 512, "{statistics:?}");
    let statistics = world.hosts[1].node.statistics();
    assert!(statistics.channels < 80 && statistics.transactions <= 512, "{statistics:?}");
    world.run_for(Duration::from_secs(30));
    assert!(world.hosts[1].node.statistics().channels < 10);
}

#[test]
fn a_way_out_that_comes_after_the_address_is_used_at_once() {
    for without_route in [200, 700, 1500, 1900, 3300] {
        let mut world = connected(Some(NatKind::PortRestricted), Some(NatKind::PortRestricted));
        let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.30");
        world.blocked = Some(Box::new(|_| true));
        world.move_host(0, &["192.168.7.7:51820"], Some(nat));
        world.run_for(ms(without_route));
        world.blocked = None;
        let now = world.now;
        world.hosts[0].node.handle_route_change(now);
        let took = time_to_next_answer(&mut world, 9000);
        assert!(took <= 250, "{took} ms after {without_route} ms without a route");
    }
}
