//! The client machine against the server machine.

mod pair;

use adit_turn::Family;
use adit_turn::client::{Event, FailureReason};
use adit_turn::server::EndReason;
use adit_turn::stun::ErrorCode;
use pair::{SERVER_V4, SERVER_V6, World, address, credentials_for, seconds, server_config};
use std::time::Duration;

const PEER_V4: &str = "198.51.100.7:7000";
const PEER_V6: &str = "[2001:db8:1::7]:7000";

fn lost(world: &World, node: usize) -> Vec<FailureReason> {
    let reason = |event: &Event| match event {
        Event::AllocationLost { reason } => Some(*reason),
        _ => None,
    };
    world.events(node).filter_map(reason).collect()
}

fn failed(world: &World, node: usize) -> Vec<FailureReason> {
    let reason = |event: &Event| match event {
        Event::AllocationFailed { reason } => Some(*reason),
        _ => None,
    };
    world.events(node).filter_map(reason).collect()
}

#[test]
fn a_client_gets_mapped_and_relayed_addresses_of_both_families() {
    let mut world = World::new(1);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    let client = &world.nodes[alice].client;
    assert_eq!(client.mapped_address(Family::V4), Some(world.nodes[alice].locals[0]));
    assert_eq!(client.mapped_address(Family::V6), Some(world.nodes[alice].locals[1]));
    assert_eq!(client.relayed_addresses().count(), 2);
    assert_eq!(client.server_for(Family::V6), Some(address(SERVER_V4)));
    assert_eq!(client.round_trip(), Some(Duration::from_millis(40)));
    let created = world.events(alice).filter(|e| matches!(e, Event::AllocationCreated { .. }));
    assert_eq!(created.count(), 1);
    // Challenge and request: two round trips.
    let created = |event: &Event| matches!(event, Event::AllocationCreated { .. });
    let mut events = world.nodes[alice].events.iter();
    let at = events.find(|(_, event)| created(event)).map(|(at, _)| *at - world.start);
    assert_eq!(at, Some(Duration::from_millis(80)));
}

#[test]
fn channels_carry_data_both_ways() {
    let mut world = World::new(2);
    let alice = world.add_client("alice", 86_400);
    for peer in [PEER_V4, PEER_V6] {
        let peer = address(peer);
        world.with(alice, |client, now| client.bind_channel(now, peer));
        world.run(seconds(1));
        assert!(world.nodes[alice].client.channel(peer).is_some());
        assert!(world.send(alice, peer, b"ping"));
        let relayed = world.relayed(alice, Family::of(peer.ip()));
        world.inject(peer, relayed, b"pong".to_vec());
        world.run(seconds(1));
        assert_eq!(world.peers.pop(), Some((relayed, peer, b"ping".to_vec())));
        assert_eq!(world.nodes[alice].received.pop(), Some((peer, b"pong".to_vec())));
    }
}

#[test]
fn indications_carry_data_where_only_a_permission_is() {
    let mut world = World::new(3);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    for peer in [PEER_V4, PEER_V6] {
        let peer = address(peer);
        assert!(!world.send(alice, peer, b"early"), "no permission yet");
        world.with(alice, |client, now| client.permit(now, peer.ip()));
        world.run(seconds(1));
        assert!(world.send(alice, peer, b"odd"));
        let relayed = world.relayed(alice, Family::of(peer.ip()));
        world.inject(peer, relayed, b"odder".to_vec());
        world.run(seconds(1));
        assert_eq!(world.peers.pop(), Some((relayed, peer, b"odd".to_vec())));
        assert_eq!(world.nodes[alice].received.pop(), Some((peer, b"odder".to_vec())));
    }
}

#[test]
fn two_clients_of_one_relay_reach_each_other() {
    let mut world = World::new(4);
    let (alice, bob) = (world.add_client("alice", 86_400), world.add_client("bob", 86_400));
    world.run(seconds(1));
    let (to_alice, to_bob) = (world.relayed(alice, Family::V4), world.relayed(bob, Family::V4));
    world.with(alice, |client, now| client.bind_channel(now, to_bob));
    world.with(bob, |client, now| client.bind_channel(now, to_alice));
    world.run(seconds(1));
    assert!(world.send(alice, to_bob, b"hello"));
    world.run(seconds(1));
    assert_eq!(world.nodes[bob].received, [(to_alice, b"hello".to_vec())]);
    world.with(bob, |client, now| client.close(now));
    world.run(seconds(1));
    assert!(world.send(alice, to_bob, b"gone"));
    world.run(seconds(1));
    use adit_turn::server::DropReason;
    assert_eq!(world.server.counters().dropped(DropReason::Forbidden), 1, "port no longer lent");
}

#[test]
fn everything_is_kept_alive_for_hours() {
    let mut world = World::new(5);
    let alice = world.add_client("alice", 86_400);
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.with(alice, |client, now| client.permit(now, address(PEER_V6).ip()));
    world.run(seconds(3 * 3600));
    assert_eq!(lost(&world, alice), []);
    assert!(world.send(alice, peer, b"still here"));
    world.run(seconds(1));
    assert_eq!(world.peers.len(), 1);
    assert_eq!((world.server.channels(), world.server.permissions()), (1, 2));
}

#[test]
fn released_channels_are_forgotten_by_both() {
    let mut world = World::new(6);
    let alice = world.add_client("alice", 86_400);
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(1));
    let number = world.nodes[alice].client.channel(peer);
    world.with(alice, |client, _| client.release_channel(peer));
    assert!(!world.send(alice, peer, b"no"));
    world.run(seconds(100));
    // Bound again while the relay remembers: the same number, or it would be refused.
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(1));
    assert_eq!(world.nodes[alice].client.channel(peer), number);
    world.with(alice, |client, _| client.release_channel(peer));
    world.run(seconds(601));
    assert_eq!((world.server.channels(), world.server.permissions()), (0, 0));
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_bad_network_is_survived() {
    for seed in 10..20 {
        let mut world = World::new(seed);
        (world.loss, world.duplication) = (10, 20);
        world.jitter = Duration::from_millis(60);
        let alice = world.add_client("alice", 86_400);
        let peer = address(PEER_V4);
        world.with(alice, |client, now| client.bind_channel(now, peer));
        world.run(seconds(1800));
        assert_eq!(lost(&world, alice), [], "seed {seed}");
        assert!(world.nodes[alice].client.channel(peer).is_some(), "seed {seed}");
        assert_eq!(world.server.allocations(), 1);
        let counters = world.server.counters();
        assert_eq!(counters.responses(437), 0, "retransmissions get the same answer");
    }
}

#[test]
fn a_dead_relay_is_reported_and_asked_again() {
    let mut world = World::new(21);
    world.dead = [address(SERVER_V4), address(SERVER_V6)].into();
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(20));
    assert_eq!(failed(&world, alice).first(), Some(&FailureReason::Timeout));
    world.dead.clear();
    world.run(seconds(60));
    assert_eq!(world.nodes[alice].client.relayed_addresses().count(), 2);
}

#[test]
fn the_other_family_is_tried_when_one_is_blocked() {
    let mut world = World::new(22);
    world.dead = [address(SERVER_V4)].into();
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(40));
    let client = &world.nodes[alice].client;
    assert_eq!(client.server_for(Family::V4), Some(address(SERVER_V6)));
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(1));
    assert!(world.send(alice, peer, b"v4 over v6"));
    world.run(seconds(1));
    assert_eq!(world.peers.len(), 1);
}

#[test]
fn a_silent_relay_is_noticed_by_the_keepalive() {
    let mut world = World::new(23);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(5));
    world.dead = [address(SERVER_V4)].into();
    world.run(seconds(40));
    assert_eq!(lost(&world, alice), [FailureReason::Timeout]);
}

#[test]
fn a_changed_nat_mapping_makes_a_new_allocation() {
    let mut world = World::new(24);
    let alice = world.add_client("alice", 86_400);
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(2));
    let before = world.relayed(alice, Family::V4);
    let local = world.nodes[alice].locals[0];
    world.nat.insert(local, address("203.0.113.200:9999"));
    world.run(seconds(30));
    assert_eq!(lost(&world, alice), [FailureReason::MappedAddressChanged]);
    assert_ne!(world.relayed(alice, Family::V4), before);
    assert!(world.nodes[alice].client.channel(peer).is_some(), "bound again");
    assert_eq!(world.server.allocations(), 2);
    world.run(seconds(601));
    assert_eq!(world.server.allocations(), 1, "the old one expires");
}

#[test]
fn a_restarted_relay_is_noticed_and_everything_is_made_again() {
    let mut world = World::new(25);
    let alice = world.add_client("alice", 86_400);
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(2));
    world.restart_server(server_config());
    world.with(alice, |client, now| client.check(now));
    world.run(seconds(1));
    let mismatch = FailureReason::Rejected(ErrorCode::ALLOCATION_MISMATCH);
    assert_eq!(lost(&world, alice), [mismatch]);
    assert!(world.send(alice, peer, b"again"));
    world.run(seconds(1));
    assert_eq!(world.peers.len(), 1);
}

#[test]
fn a_restarted_client_takes_its_address_over() {
    let mut world = World::new(26);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    // A new process behind the same port: the relay still holds the old allocation.
    let fresh = world.add_client("alice", 86_400);
    world.nodes[fresh].locals = world.nodes[alice].locals;
    world.nodes.swap_remove(alice);
    world.run(seconds(20));
    assert_eq!(world.nodes[0].client.relayed_addresses().count(), 2);
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn an_allocation_ends_with_its_credentials() {
    let mut world = World::new(27);
    let alice = world.add_client("alice", 1000);
    world.run(seconds(999));
    assert_eq!(world.server.allocations(), 1);
    world.run(seconds(2));
    assert_eq!(world.server.allocations(), 0);
    let ended = &world.server_events[1];
    assert!(format!("{ended:?}").contains("Expired"), "{ended:?}");
    world.run(seconds(60));
    let refused = FailureReason::Rejected(ErrorCode::UNAUTHENTICATED);
    assert_eq!(lost(&world, alice), [refused]);
    assert_eq!(failed(&world, alice).first(), Some(&refused));
    let (username, password) = credentials_for("alice", 5000);
    world.with(alice, |client, now| client.set_credentials(now, username, password));
    world.run(seconds(1));
    assert_eq!(world.nodes[alice].client.relayed_addresses().count(), 2);
}

#[test]
fn renewed_credentials_carry_the_allocation_on() {
    let mut world = World::new(28);
    let alice = world.add_client("alice", 1000);
    world.run(seconds(500));
    let before = world.relayed(alice, Family::V4);
    let (username, password) = credentials_for("alice", 90_000);
    world.with(alice, |client, now| client.set_credentials(now, username, password));
    world.run(seconds(3600));
    assert_eq!(lost(&world, alice), []);
    assert_eq!(world.relayed(alice, Family::V4), before);
}

#[test]
fn credentials_of_somebody_else_make_a_new_allocation() {
    let mut world = World::new(29);
    let alice = world.add_client("alice", 9000);
    world.run(seconds(5));
    let before = world.relayed(alice, Family::V4);
    let (username, password) = credentials_for("bob", 9000);
    world.with(alice, |client, now| client.set_credentials(now, username, password));
    world.run(seconds(5));
    let reason = FailureReason::Rejected(ErrorCode::WRONG_CREDENTIALS);
    assert_eq!(lost(&world, alice), [reason]);
    assert_ne!(world.relayed(alice, Family::V4), before);
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_rotated_secret_strands_nobody() {
    let mut world = World::new(30);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    world.server.rotate_secret(world.now, b"next".to_vec());
    let bob = world.add_client("bob", 86_400);
    world.run(seconds(1000));
    assert_eq!((lost(&world, alice), failed(&world, bob)), (vec![], vec![]));
    world.server.rotate_secret(world.now, b"the one after".to_vec());
    world.run(seconds(700));
    let refused = FailureReason::Rejected(ErrorCode::UNAUTHENTICATED);
    assert_eq!(lost(&world, alice), [refused]);
}

#[test]
fn rebinding_starts_again_at_once() {
    let mut world = World::new(31);
    let alice = world.add_client("alice", 86_400);
    let peer = address(PEER_V4);
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(5));
    let moved = [address("203.0.113.77:5000"), address("[2001:db8:2::77]:5000")];
    world.nodes[alice].locals = moved;
    world.with(alice, |client, now| client.rebind(now));
    world.run(Duration::from_millis(200));
    assert_eq!(lost(&world, alice), [FailureReason::Rebound]);
    let client = &world.nodes[alice].client;
    assert_eq!(client.mapped_address(Family::V4), Some(moved[0]));
    assert!(client.channel(peer).is_some());
}

#[test]
fn closing_leaves_nothing_behind() {
    let mut world = World::new(32);
    world.loss = 10;
    let alice = world.add_client("alice", 86_400);
    for port in 1000..1010 {
        let peer = std::net::SocketAddr::new(address(PEER_V4).ip(), port);
        world.with(alice, |client, now| client.bind_channel(now, peer));
    }
    world.run(seconds(60));
    world.with(alice, |client, now| client.close(now));
    world.run(seconds(60));
    assert_eq!(world.server.allocations(), 0);
    assert_eq!((world.server.channels(), world.server.permissions()), (0, 0));
    assert!(world.bound.is_empty());
    assert_eq!(world.server.poll_timeout(), None);
    assert_eq!(world.nodes[alice].client.poll_timeout(), None);
    let released = |event: &adit_turn::server::Event| {
        matches!(event, adit_turn::server::Event::AllocationEnded { reason: EndReason::Released, .. })
    };
    assert_eq!(world.server_events.iter().filter(|event| released(event)).count(), 1);
}

#[test]
fn a_closed_client_stays_closed() {
    let mut world = World::new(37);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    world.with(alice, |client, now| client.close(now));
    world.run(seconds(1));
    world.with(alice, |client, now| client.rebind(now));
    let (username, password) = credentials_for("alice", 90_000);
    world.with(alice, |client, now| client.set_credentials(now, username, password));
    world.with(alice, |client, now| client.bind_channel(now, address(PEER_V4)));
    world.run(seconds(100));
    assert_eq!(world.nodes[alice].client.poll_timeout(), None);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn a_relay_of_one_family_gives_what_it_has() {
    for (v4, v6) in [(true, false), (false, true)] {
        let mut config = server_config();
        config.public_v4 = config.public_v4.filter(|_| v4);
        config.public_v6 = config.public_v6.filter(|_| v6);
        let mut world = World::with_config(33, config);
        let alice = world.add_client("alice", 86_400);
        world.run(seconds(1));
        let relayed: Vec<_> = world.nodes[alice].client.relayed_addresses().collect();
        assert_eq!(relayed.len(), 1);
        assert_eq!(relayed[0].is_ipv4(), v4);
        let other = if v4 { PEER_V6 } else { PEER_V4 };
        world.with(alice, |client, now| client.bind_channel(now, address(other)));
        world.run(seconds(1));
        let refused = Event::ChannelFailed { peer: address(other) };
        assert!(world.events(alice).any(|event| *event == refused));
    }
}

#[test]
fn occupied_ports_are_tried_elsewhere_before_success_is_said() {
    let mut config = server_config();
    config.ports = 50_000..=50_009;
    let mut world = World::with_config(34, config);
    world.occupied = (50_000..50_007).collect();
    let alice = world.add_client("alice", 86_400);
    world.run_until_allocated(alice);
    assert!(world.relayed(alice, Family::V4).port() >= 50_007);
}

#[test]
fn forbidden_peers_fail_their_channel() {
    let mut world = World::new(35);
    let alice = world.add_client("alice", 86_400);
    let peer = address("127.0.0.1:22");
    world.with(alice, |client, now| client.bind_channel(now, peer));
    world.run(seconds(1));
    assert!(world.events(alice).any(|event| *event == Event::ChannelFailed { peer }));
    assert_eq!(world.server.channels(), 0);
}

#[test]
fn garbage_from_the_relays_address_is_counted() {
    let mut world = World::new(36);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    let local = world.nodes[alice].locals[0];
    for garbage in [&b""[..], b"\x40\x00", b"\x00\x01\x02", &[0xff; 1500]] {
        world.inject(address(SERVER_V4), local, garbage.to_vec());
    }
    world.inject(address(SERVER_V4), local, b"\x40\x00\x00\x02hi".to_vec());
    world.run(seconds(1));
    let counters = world.nodes[alice].client.counters();
    assert_eq!((counters.garbage, counters.unknown_peer), (4, 1));
    assert!(world.nodes[alice].received.is_empty());
}

/// An address that was not asked owes no answer, so both are asked in doubt, and after one unanswered request.
#[test]
fn silence_is_found_out_at_both_addresses() {
    let mut world = World::new(3);
    let alice = world.add_client("alice", 86_400);
    world.run(seconds(1));
    let unanswered = |world: &World| world.nodes[alice].client.unanswered_since();
    assert_eq!(unanswered(&world), None);
    let asked = world.now;
    world.loss = 100;
    world.with(alice, |client, now| client.check(now));
    assert_eq!(unanswered(&world), Some(asked));
    world.loss = 0;
    world.run(seconds(5));
    assert_eq!(unanswered(&world), None, "it answers again");
    world.loss = 100;
    world.with(alice, |client, now| client.bind_channel(now, address(PEER_V4)));
    assert_eq!(unanswered(&world), None, "nobody asked over IPv6");
    world.run(seconds(1));
    assert!(unanswered(&world).is_some(), "a question was repeated");
    world.with(alice, |client, now| client.close(now));
    world.run(seconds(60));
    assert_eq!(world.nodes[alice].client.poll_timeout(), None, "a closed client asks nobody");
}
