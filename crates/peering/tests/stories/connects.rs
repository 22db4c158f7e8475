//! Two introduced peers find a path through whatever lies between them.

use std::time::Duration;

use crate::world::{NatKind, World, ms};
use adit_peering::{CloseReason, PathKind, Role};

/// A client and a gateway, each behind a NAT of its own kind (or none), and one relay.
fn pair(client: Option<NatKind>, gateway: Option<NatKind>) -> World {
    let mut world = World::new(1);
    world.add_relay("198.51.100.1");
    match client {
        Some(kind) => {
            let nat = world.add_nat(kind, "203.0.113.10");
            world.add_host(Role::Client, &["192.168.1.2:51820"], Some(nat));
        }
        None => drop(world.add_host(Role::Client, &["203.0.113.10:51820"], None)),
    }
    match gateway {
        Some(kind) => {
            let nat = world.add_nat(kind, "203.0.113.20");
            world.add_host(Role::Gateway, &["10.0.0.2:51820"], Some(nat));
        }
        None => drop(world.add_host(Role::Gateway, &["203.0.113.20:51820"], None)),
    }
    world.run_for(Duration::from_secs(1));
    world
}

/// Introduces the two and returns when the first answer was there, in milliseconds.
fn time_to_answer(world: &mut World) -> u128 {
    world.introduce(0, 1);
    let introduced = world.now;
    let answered = world.exchange(0, b"hello", Duration::from_secs(5)).expect("an answer");
    (answered - introduced).as_millis()
}

#[test]
fn without_nat_the_first_packet_leaves_after_one_round_trip() {
    let mut world = pair(None, None);
    let answered = time_to_answer(&mut world);
    let connected = (world.connected_at(0).unwrap() - world.start).as_millis() - 1000;
    assert_eq!(connected, 40, "the response to the first copy of the initiation");
    assert!(answered <= 2 * 40 + 50, "{answered} ms");
    assert!(world.is_direct(0) && world.is_direct(1));
}

#[test]
fn on_one_lan_the_private_addresses_are_used() {
    let mut world = World::new(2);
    world.add_relay("198.51.100.1");
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.10");
    world.add_host(Role::Client, &["192.168.1.2:51820"], Some(nat));
    world.add_host(Role::Gateway, &["192.168.1.3:51820"], Some(nat));
    world.run_for(Duration::from_secs(1));
    assert!(time_to_answer(&mut world) <= 20);
    world.run_for(Duration::from_secs(2));
    let connection = world.hosts[0].connection.unwrap();
    let path = world.hosts[0].node.path(connection).unwrap();
    assert_eq!(path.remote, crate::world::address("192.168.1.3:51820"));
    assert!(path.rtt.unwrap() <= ms(3), "{:?}", path.rtt);
}

#[test]
fn every_pair_of_nats_is_crossed_in_time() {
    use NatKind::{FullCone, PortRestricted, Symmetric};
    let kinds = [None, Some(FullCone), Some(PortRestricted), Some(Symmetric)];
    for client in kinds {
        for gateway in kinds {
            let mut world = pair(client, gateway);
            let answered = time_to_answer(&mut world);
            // The longest way in use is through two allocations of the relay: four hops of 20 ms
            // each way would be 120 ms of round trip; most pairs do better.
            assert!(answered <= 2 * 120 + 50, "{client:?} {gateway:?}: {answered} ms");
            world.run_for(Duration::from_secs(1));
            let hopeless = matches!(
                (client, gateway),
                (Some(Symmetric), Some(Symmetric | PortRestricted)) | (Some(PortRestricted), Some(Symmetric))
            );
            assert_eq!(world.is_direct(0), !hopeless, "{client:?} {gateway:?}");
            assert_eq!(world.is_direct(1), !hopeless, "{client:?} {gateway:?}");
            println!("{client:?} {gateway:?}: {answered} ms");
        }
    }
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_channel_by_workers() {
    let mut world = pair(Some(NatKind::Symmetric), Some(NatKind::Symmetric));
    time_to_answer(&mut world);
    world.run_for(Duration::from_secs(1));
    assert!(matches!(world.path(0), Some(PathKind::Relayed { .. })));
    let before = (world.hosts[0].worker.sealed, world.hosts[1].worker.sealed);
    for _ in 0..10 {
        world.send(0, b"data");
        world.run_for(ms(200));
    }
    let after = (world.hosts[0].worker.sealed, world.hosts[1].worker.sealed);
    assert_eq!((after.0 - before.0, after.1 - before.1), (10, 10), "all of it by workers");
}

#[test]
fn the_relay_carries_what_comes_before_the_direct_path() {
    let mut world = pair(Some(NatKind::PortRestricted), Some(NatKind::PortRestricted));
    // The firewalls let the two talk directly only after a while.
    world.blocked = Some(Box::new(|datagram| {
        datagram.from.ip().to_string().starts_with("203.0.113.")
            && datagram.to.ip().to_string().starts_with("203.0.113.")
    }));
    let answered = time_to_answer(&mut world);
    assert!(answered <= 2 * 80 + 50, "{answered} ms");
    assert!(!world.is_direct(0));
    world.run_for(ms(500));
    world.blocked = None;
    let sessions = world.hosts[0].node.wireguard_counters().handshakes_completed;
    world.run_while(Duration::from_secs(2), |world| !world.is_direct(0) || !world.is_direct(1));
    assert_eq!(world.hosts[0].node.wireguard_counters().handshakes_completed, sessions);
    assert!(world.exchange(0, b"direct", Duration::from_secs(1)).is_some());
}

#[test]
fn a_gateway_that_hears_late_is_reached_all_the_same() {
    for delay in [10, 35, 100, 400] {
        let mut world = pair(Some(NatKind::PortRestricted), Some(NatKind::PortRestricted));
        let start = world.now;
        world.introduce_with_delay(0, 1, ms(delay));
        let answered = world.exchange(0, b"late", Duration::from_secs(5)).expect("an answer");
        let took = (answered - start).as_millis() as u64;
        println!("delay {delay} ms: answered after {took} ms");
        assert!(took <= delay + 2 * 80 + 50 + 40, "delay {delay}: {took} ms");
    }
}

#[test]
fn ipv6_is_used_where_both_have_it() {
    let mut world = World::new(3);
    world.add_host(Role::Client, &["203.0.113.10:51820", "[2001:db8:1::10]:51820"], None);
    world.add_host(Role::Gateway, &["[2001:db8:2::20]:51820"], None);
    time_to_answer(&mut world);
    let path = world.hosts[0].node.path(world.hosts[0].connection.unwrap()).unwrap();
    assert!(path.remote.is_ipv6());
}

#[test]
fn hosts_without_ipv4_meet_directly_and_through_a_relay() {
    for is_blocked in [false, true] {
        let mut world = World::new(5);
        world.add_relay("2001:db8:9::1");
        world.add_host(Role::Client, &["[2001:db8:1::10]:51820"], None);
        world.add_host(Role::Gateway, &["[2001:db8:2::20]:51820"], None);
        let relay = world.relays[0].ip;
        if is_blocked {
            world.blocked =
                Some(Box::new(move |datagram| ![datagram.from.ip(), datagram.to.ip()].contains(&relay)));
        }
        world.run_for(Duration::from_secs(1));
        time_to_answer(&mut world);
        let path = world.hosts[0].node.path(world.hosts[0].connection.unwrap()).unwrap();
        assert!(path.remote.is_ipv6());
        assert_eq!(matches!(path.kind, PathKind::Relayed { .. }), is_blocked);
    }
}

#[test]
fn hosts_of_different_families_meet_through_a_relay_that_has_both() {
    let (v4, v6) = ("203.0.113.10:51820", "[2001:db8:2::20]:51820");
    for [client, gateway] in [[v4, v6], [v6, v4]] {
        let mut world = World::new(6);
        world.add_dual_relay("198.51.100.1", "2001:db8:9::1");
        world.add_host(Role::Client, &[client], None);
        world.add_host(Role::Gateway, &[gateway], None);
        world.run_for(Duration::from_secs(1));
        time_to_answer(&mut world);
        let path = world.hosts[0].node.path(world.hosts[0].connection.unwrap()).unwrap();
        assert!(matches!(path.kind, PathKind::Relayed { .. }), "{path:?}");
    }
}

#[test]
fn peers_that_cannot_reach_each_other_give_up_and_forget() {
    let mut world = World::new(4);
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.blocked = Some(Box::new(|_| true));
    world.introduce(0, 1);
    world.run_for(Duration::from_secs(21));
    for host in [0, 1] {
        assert_eq!(world.closed(host).map(|(_, reason)| reason), Some(CloseReason::IceFailed));
        world.assert_nothing_left(host);
    }
}

#[test]
fn a_peer_with_the_wrong_preshared_key_is_given_up() {
    let mut world = pair(None, None);
    world.introduce(0, 1);
    // Handshakes vanish, checks pass.
    world.blocked = Some(Box::new(|datagram| {
        matches!(datagram.payload.first(), Some(1..=3)) && datagram.payload.get(1..4) == Some(&[0, 0, 0])
    }));
    world.run_for(ms(1));
    world.run_for(Duration::from_secs(45));
    for host in [0, 1] {
        let reason = world.closed(host).map(|(_, reason)| reason);
        assert!(matches!(reason, Some(CloseReason::WireGuardExpired | CloseReason::Liveness)), "{reason:?}");
        world.assert_nothing_left(host);
    }
}
