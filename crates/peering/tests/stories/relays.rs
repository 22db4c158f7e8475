//! Relays come and go; connections stay.

use std::time::Duration;

use adit_peering::{CloseReason, Event, PathKind, Role};
use adit_protocol::CandidateKind;

use crate::world::{NatKind, World, ms};

/// Two symmetric NATs: only relays help. Two relays.
fn connected() -> World {
    let mut world = World::new(60);
    world.add_relay("198.51.100.1");
    world.add_relay("198.51.100.2");
    for (role, inside, outside) in [
        (Role::Client, "192.168.1.2:51820", "203.0.113.10"),
        (Role::Gateway, "10.0.0.2:51820", "203.0.113.20"),
    ] {
        let nat = world.add_nat(NatKind::Symmetric, outside);
        world.add_host(role, &[inside], Some(nat));
    }
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(15));
    world
}

fn relay_in_use(world: &World) -> usize {
    match world.path(0) {
        Some(PathKind::Relayed { relay, .. }) => {
            world.relays.iter().position(|other| other.ip == relay).expect("one of ours")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn candidates_exist_before_any_connection() {
    let mut world = World::new(61);
    world.add_relay("198.51.100.1");
    world.add_relay("198.51.100.2");
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.10");
    world.add_host(Role::Client, &["192.168.1.2:51820"], Some(nat));
    world.run_for(ms(200));
    let candidates = world.hosts[0].node.local_candidates();
    let count = |kind| candidates.iter().filter(|candidate| candidate.kind == kind).count();
    let kinds = [CandidateKind::Host, CandidateKind::ServerReflexive, CandidateKind::Relayed];
    assert_eq!(kinds.map(count), [1, 1, 2], "{candidates:?}");
    let mut told = Vec::new();
    for (_, event) in &world.hosts[0].events {
        if let Event::LocalCandidates { added, removed } = event {
            told.retain(|candidate| !removed.contains(candidate));
            told.extend(added.iter().copied());
        }
    }
    told.sort();
    let mut candidates = candidates;
    candidates.sort();
    assert_eq!(told, candidates, "the events add up to the list");
}

#[test]
fn a_crashed_relay_is_left_for_the_other() {
    let mut world = connected();
    let used = relay_in_use(&world);
    world.relays[used].alive = false;
    let crashed = world.now;
    let answered = world.exchange(0, b"is anybody there?", Duration::from_secs(5)).expect("an answer");
    println!("through the other relay after {:?}", answered - crashed);
    assert!(answered - crashed <= ms(1000));
    assert_ne!(relay_in_use(&world), used);
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
}

fn take_away(world: &mut World, used: usize) {
    for host in [0, 1] {
        let mut access = world.relay_access(host);
        access.remove(used);
        let now = world.now;
        world.hosts[host].node.set_relays(now, &access);
        world.drain(host);
    }
}

#[test]
fn a_relay_taken_away_by_the_portal_is_left_without_a_gap() {
    let mut world = connected();
    let used = relay_in_use(&world);
    let usual = world.exchange(0, b"before", Duration::from_secs(1)).map(|at| at - world.now);
    take_away(&mut world, used);
    let end = world.now + Duration::from_secs(8);
    while world.now < end {
        let sent = world.now;
        let answered = world.exchange(0, b"next", ms(300));
        assert!(answered.is_some(), "nothing for {:?} (usually {usual:?})", world.now - sent);
        world.run_for(ms(10));
    }
    assert_ne!(relay_in_use(&world), used);
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
    assert_eq!(world.relays[used].server.allocations(), 0, "the allocations were given back");
}

#[test]
fn a_relay_off_the_list_is_left_before_it_is_given_up() {
    let mut world = connected();
    let used = relay_in_use(&world);
    take_away(&mut world, used);
    world.run_for(ms(1500));
    assert_ne!(relay_in_use(&world), used, "what is in flight later would be lost");
    assert!(world.relays[used].server.allocations() > 0, "it still carries what is in flight");
    world.run_for(Duration::from_secs(3));
    assert_ne!(relay_in_use(&world), used);
}

#[test]
fn a_relay_that_comes_back_to_the_list_in_time_stays_in_use() {
    let mut world = connected();
    let used = relay_in_use(&world);
    take_away(&mut world, used);
    world.run_for(Duration::from_secs(2));
    for host in [0, 1] {
        let access = world.relay_access(host);
        let now = world.now;
        world.hosts[host].node.set_relays(now, &access);
        world.drain(host);
    }
    world.run_for(Duration::from_secs(8));
    assert!(world.relays[used].server.allocations() > 0);
    world.exchange(0, b"next", ms(300)).expect("an answer");
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
}

#[test]
fn a_restarted_relay_is_used_again() {
    let mut world = connected();
    for relay in &mut world.relays {
        relay.restart(world.now, world.start);
    }
    // The only paths are gone. Either new allocations are there in time, or the client gives up soon and asks
    // the portal again.
    if world.exchange(0, b"next", Duration::from_secs(2)).is_none() {
        assert_eq!(world.closed(0).map(|(_, how)| how), Some(CloseReason::Liveness));
        world.introduce(0, 1);
        world.exchange(0, b"again", Duration::from_secs(3)).expect("an answer");
    }
}

#[test]
fn new_credentials_keep_the_allocation() {
    let mut world = connected();
    let before = world.hosts[0].node.local_candidates();
    let mut access = world.relay_access(0);
    for relay in &mut access {
        relay.expires_at_ms += 1;
    }
    let now = world.now;
    world.hosts[0].node.set_relays(now, &access);
    world.drain(0);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.hosts[0].node.local_candidates(), before);
}

#[test]
fn without_any_working_relay_the_portal_is_asked_once() {
    let mut world = World::new(62);
    world.add_relay("198.51.100.1");
    world.relays[0].alive = false;
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.run_for(Duration::from_secs(120));
    let asked = |world: &World| {
        world.hosts[0].events.iter().filter(|(_, event)| *event == Event::RelaysNeeded).count()
    };
    assert_eq!(asked(&world), 1);
}

#[test]
fn unused_channels_are_given_back() {
    let mut world = connected();
    assert!(world.hosts[0].node.statistics().channels <= 6);
    let mut direct = World::new(63);
    direct.add_relay("198.51.100.1");
    direct.add_host(Role::Client, &["203.0.113.10:51820"], None);
    direct.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    direct.run_for(Duration::from_secs(1));
    direct.introduce(0, 1);
    direct.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    direct.run_for(Duration::from_secs(15));
    assert!(direct.hosts[0].node.statistics().channels <= 2, "{:?}", direct.hosts[0].node.statistics());
    world.run_for(Duration::from_secs(1200));
    assert!(world.exchange(0, b"still", Duration::from_secs(1)).is_some(), "channels are refreshed");
}
