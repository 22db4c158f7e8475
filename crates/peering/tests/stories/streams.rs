//! Networks that let no UDP out: relays are reached over streams, and no longer than needed.

use std::time::{Duration, Instant};

use adit_peering::{CloseReason, PathKind, RelayTransport, Role};
use adit_protocol::CandidateKind;

use crate::world::{Datagram, NatKind, World, ms};

const CLIENT: &str = "203.0.113.10";
const ELSEWHERE: &str = "203.0.113.30";
const GATEWAY: &str = "203.0.113.20";
const SECOND: Duration = Duration::from_secs(1);

/// Two relays with TLS and TCP, a client and a gateway behind NATs.
fn world(seed: u8) -> World {
    let mut world = World::new(seed);
    for ip in ["198.51.100.1", "198.51.100.2"] {
        let relay = world.add_relay(ip);
        world.relays[relay].listens = vec![443, 3478];
    }
    world
}

fn add_hosts(world: &mut World) {
    for (role, inside, outside) in
        [(Role::Client, "192.168.1.2:51820", CLIENT), (Role::Gateway, "10.0.0.2:51820", GATEWAY)]
    {
        let nat = world.add_nat(NatKind::PortRestricted, outside);
        world.add_host(role, &[inside], Some(nat));
    }
}

/// No datagram passes the firewall of a network.
fn block(world: &mut World, public: &str) {
    let ip: std::net::IpAddr = public.parse().expect("address");
    world.blocked =
        Some(Box::new(move |datagram: &Datagram| datagram.from.ip() == ip || datagram.to.ip() == ip));
}

fn transport(world: &World, host: usize) -> Option<RelayTransport> {
    match world.path(host)? {
        PathKind::Relayed { transport, .. } => Some(transport),
        PathKind::Direct => None,
    }
}

fn lives(world: &World) {
    assert_eq!((world.closed(0), world.closed(1)), (None, None), "the connection lives");
}

#[test]
fn a_client_without_udp_is_reached_through_a_relays_tls() {
    let mut world = world(80);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    let start = world.now;
    world.run_for(ms(100));
    world.introduce(0, 1);
    let answered = world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    println!("cold: {:?}", answered - start);
    assert!(answered - start <= ms(2000), "{:?}", answered - start);
    assert_eq!(transport(&world, 0), Some(RelayTransport::Tls));
    assert_eq!(transport(&world, 1), Some(RelayTransport::Udp), "the gateway's own leg");
    world.run_for(30 * SECOND);
    assert_eq!(world.open_streams(0).len(), 2, "one for each relay");
    assert!(world.open_streams(1).is_empty());
    lives(&world);
}

#[test]
fn what_was_found_out_spares_the_next_connection_the_wait() {
    let mut world = world(81);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    let candidates = world.hosts[0].node.local_candidates();
    let count = |kind| candidates.iter().filter(|candidate| candidate.kind == kind).count();
    assert_eq!(count(CandidateKind::Relayed), 2);
    assert_eq!(count(CandidateKind::ServerReflexive), 0, "an address of TCP is no candidate");
    world.introduce(0, 1);
    let introduced = world.now;
    let answered = world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    println!("warm: {:?}", answered - introduced);
    assert!(answered - introduced <= ms(300), "{:?}", answered - introduced);
}

#[test]
fn workers_carry_the_traffic_of_a_stream_too() {
    let mut world = world(82);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(15 * SECOND);
    let (sealed, opened) = (world.hosts[0].worker.sealed, world.hosts[0].worker.opened);
    for length in 0..50 {
        world.exchange(0, &vec![7; length * 29], SECOND).expect("an answer");
    }
    assert!(world.hosts[0].worker.sealed >= sealed + 50 && world.hosts[0].worker.opened >= opened + 50);
    let told = |event: &adit_peering::Event| matches!(event, adit_peering::Event::PathChanged { .. });
    let changes = world.hosts[0].events.iter().filter(|(_, event)| told(event)).count();
    assert!(changes <= 2, "messages of the stream are no other way: {changes}");
    lives(&world);
}

/// Without streams nothing but UDP would be tried, and nothing is where UDP works.
#[test]
fn nobody_connects_where_udp_works() {
    let mut world = world(83);
    add_hosts(&mut world);
    world.loss = 20;
    world.run_for(SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.loss = 0;
    world.run_for(600 * SECOND);
    assert!(world.open_streams(0).is_empty() && world.open_streams(1).is_empty());
}

#[test]
fn a_connection_returns_to_udp_when_the_firewall_opens() {
    let mut world = world(84);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(60 * SECOND);
    world.blocked = None;
    let opened = world.now;
    while transport(&world, 0).is_some() || !world.open_streams(0).is_empty() {
        let sent = world.now;
        assert!(world.exchange(0, b"next", ms(400)).is_some(), "a gap at {:?}", sent - opened);
        world.run_for(ms(50));
        assert!(world.now < opened + 90 * SECOND, "{:?}", world.path(0));
    }
    println!("direct again after {:?}", world.now - opened);
    assert!(world.is_direct(0) && world.is_direct(1));
    world.run_for(30 * SECOND);
    lives(&world);
    assert!(world.relays.iter().all(|relay| relay.server.allocations() == 2), "the streams' were given back");
}

#[test]
fn a_roam_from_a_blocked_network_to_an_open_one_takes_udp_at_once() {
    let mut world = world(85);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(15 * SECOND);
    let nat = world.add_nat(NatKind::PortRestricted, ELSEWHERE);
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    let moved = world.now;
    let answered = world.exchange(0, b"next", 5 * SECOND).expect("an answer");
    println!("blocked to open: {:?}", answered - moved);
    assert!(answered - moved <= ms(500), "{:?}", answered - moved);
    world.run_for(20 * SECOND);
    assert!(world.is_direct(0));
    assert!(world.open_streams(0).is_empty());
    lives(&world);
}

#[test]
fn a_roam_from_an_open_network_to_a_blocked_one_keeps_the_connection() {
    let mut world = world(86);
    block(&mut world, ELSEWHERE);
    add_hosts(&mut world);
    world.run_for(SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(15 * SECOND);
    let nat = world.add_nat(NatKind::PortRestricted, ELSEWHERE);
    world.move_host(0, &["192.168.7.7:51820"], Some(nat));
    let moved = world.now;
    let answered = world.exchange(0, b"next", 10 * SECOND).expect("an answer");
    println!("open to blocked: {:?}", answered - moved);
    assert!(answered - moved <= ms(2000), "{:?}", answered - moved);
    assert_eq!(transport(&world, 0), Some(RelayTransport::Tls));
    world.run_for(20 * SECOND);
    lives(&world);
    // And into another network of that kind, where it need not be found out again.
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.40");
    let networks = [ELSEWHERE, "203.0.113.40"].map(|ip| ip.parse::<std::net::IpAddr>().expect("address"));
    world.blocked =
        Some(Box::new(move |d: &Datagram| networks.contains(&d.from.ip()) || networks.contains(&d.to.ip())));
    world.move_host(0, &["192.168.8.8:51820"], Some(nat));
    let moved = world.now;
    let answered = world.exchange(0, b"next", 10 * SECOND).expect("an answer");
    println!("blocked to blocked: {:?}", answered - moved);
    assert!(answered - moved <= ms(600), "{:?}", answered - moved);
    lives(&world);
}

#[test]
fn a_firewall_that_closes_moves_the_connection_and_does_not_end_it() {
    let mut world = world(95);
    add_hosts(&mut world);
    world.run_for(SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(15 * SECOND);
    assert!(world.is_direct(0));
    block(&mut world, CLIENT);
    let closed = world.now;
    let answered = world.exchange(0, b"next", 10 * SECOND).expect("an answer");
    println!("closed: {:?}", answered - closed);
    assert!(answered - closed <= ms(3500), "{:?}", answered - closed);
    assert_eq!(transport(&world, 0), Some(RelayTransport::Tls));
    world.run_for(20 * SECOND);
    lives(&world);
}

#[test]
fn a_gateway_without_udp_is_reached_and_left_for_udp_later() {
    let mut world = world(87);
    block(&mut world, GATEWAY);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    assert_eq!(transport(&world, 1), Some(RelayTransport::Tls));
    world.run_for(60 * SECOND);
    world.blocked = None;
    let opened = world.now;
    while !world.is_direct(0) || !world.open_streams(1).is_empty() {
        assert!(world.exchange(0, b"next", ms(400)).is_some(), "a gap after {:?}", world.now - opened);
        world.run_for(ms(50));
        assert!(world.now < opened + 90 * SECOND, "{:?}", world.path(0));
    }
    println!("direct again after {:?}", world.now - opened);
    lives(&world);
}

#[test]
fn both_ends_without_udp_meet_at_the_relays() {
    let mut world = world(88);
    let networks = [CLIENT, GATEWAY].map(|ip| ip.parse::<std::net::IpAddr>().expect("address"));
    world.blocked =
        Some(Box::new(move |d: &Datagram| networks.contains(&d.from.ip()) || networks.contains(&d.to.ip())));
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(120 * SECOND);
    assert!(world.exchange(0, b"later", SECOND).is_some());
    lives(&world);
}

#[test]
fn where_tls_is_blocked_plain_tcp_is_tried() {
    let mut world = world(89);
    world.tcp_blocked = vec![443];
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    let start = world.now;
    world.run_while(20 * SECOND, |world| world.open_streams(0).len() < 2);
    println!("TCP after {:?}", world.now - start);
    assert!(world.open_streams(0).iter().all(|stream| stream.port == 3478));
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    assert_eq!(transport(&world, 0), Some(RelayTransport::Tcp));
}

#[test]
fn broken_streams_are_made_again_and_the_connection_lives() {
    let mut world = world(90);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(20 * SECOND);
    world.break_streams();
    let broken = world.now;
    let answered = world.exchange(0, b"next", 5 * SECOND).expect("an answer");
    println!("after a break: {:?}", answered - broken);
    assert!(answered - broken <= ms(1000), "{:?}", answered - broken);
    world.run_for(20 * SECOND);
    lives(&world);
}

#[test]
fn a_crashed_relay_is_left_for_the_other_over_streams_too() {
    let mut world = world(91);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(20 * SECOND);
    let Some(PathKind::Relayed { relay, .. }) = world.path(0) else { panic!("{:?}", world.path(0)) };
    let used = world.relays.iter().position(|other| other.ip == relay).expect("one of ours");
    world.relays[used].alive = false;
    let answered = world.exchange(0, b"is anybody there?", 5 * SECOND);
    let lost = world.closed(0).map(|(_, reason)| reason);
    assert!(answered.is_some(), "{lost:?}");
    lives(&world);
}

#[test]
fn a_relay_over_a_stream_that_is_taken_away_is_left_without_a_gap() {
    let mut world = world(92);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.run_for(20 * SECOND);
    let Some(PathKind::Relayed { relay, .. }) = world.path(0) else { panic!("{:?}", world.path(0)) };
    let used = world.relays.iter().position(|other| other.ip == relay).expect("one of ours");
    for host in [0, 1] {
        let mut access = world.relay_access(host);
        access.remove(used);
        let now = world.now;
        world.hosts[host].node.set_relays(now, &access);
        world.drain(host);
    }
    let end = world.now + 8 * SECOND;
    while world.now < end {
        assert!(world.exchange(0, b"next", ms(400)).is_some(), "{:?} before the end", end - world.now);
        world.run_for(ms(10));
    }
    assert!(world.open_streams(0).iter().all(|stream| stream.relay != used));
    lives(&world);
}

#[test]
fn a_host_without_a_network_connects_to_nobody() {
    let mut world = world(93);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    assert_eq!(world.open_streams(0).len(), 2);
    world.move_host(0, &[], None);
    world.run_for(SECOND);
    assert!(world.open_streams(0).is_empty());
    let before = timeouts(&world);
    world.run_for(600 * SECOND);
    assert!(world.open_streams(0).is_empty());
    assert_eq!(before.is_some(), timeouts(&world).is_some());
}

fn timeouts(world: &World) -> Option<Instant> {
    world.hosts[0].node.poll_timeout().map(|(at, _)| at)
}

#[test]
fn nothing_is_left_of_a_connection_over_streams() {
    let mut world = world(94);
    block(&mut world, CLIENT);
    add_hosts(&mut world);
    world.run_for(5 * SECOND);
    world.introduce(0, 1);
    world.exchange(0, b"hello", 5 * SECOND).expect("an answer");
    world.with(0, |node, now, id| {
        node.close(now, id, adit_protocol::peer::GoodbyeReason::SignedOut, None);
    });
    world.run_for(SECOND);
    assert!(matches!(world.closed(1), Some((_, CloseReason::Goodbye { .. }))), "{:?}", world.closed(1));
    world.run_for(15 * SECOND);
    world.assert_nothing_left(0);
    world.assert_nothing_left(1);
}
