//! A dead peer is found in time, and a living one is never declared dead.

use std::time::Duration;

use adit_peering::{CloseReason, Hint, PathKind, Role};

use crate::world::{World, ms};

fn connected() -> World {
    let mut world = World::new(30);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(3));
    world
}

#[test]
fn a_client_with_traffic_finds_a_crashed_gateway_within_a_second() {
    let mut world = connected();
    world.hosts[1].alive = false;
    let crashed = world.now;
    while world.closed(0).is_none() && world.now < crashed + Duration::from_secs(5) {
        world.send(0, b"request");
        world.run_for(ms(50));
    }
    let (found, how) = world.closed(0).expect("found");
    assert_eq!(how, CloseReason::Liveness);
    let took = found - crashed;
    assert!(took >= ms(900) && took <= ms(1150), "silence of 500 ms, then five probes: {took:?}");
    world.assert_nothing_left(0);
}

#[test]
fn a_hint_halves_the_time_and_closes_nothing_by_itself() {
    let mut world = connected();
    world.with(0, |node, now, id| node.hint(now, id, Hint::ControlSessionLost));
    world.run_for(Duration::from_secs(10));
    assert!(world.hosts[0].connection.is_some(), "the peer is alive, whatever the portal says");

    world.hosts[1].alive = false;
    let crashed = world.now;
    world.with(0, |node, now, id| node.hint(now, id, Hint::ControlSessionLost));
    world.run_for(Duration::from_secs(2));
    let (found, _) = world.closed(0).expect("found");
    assert!(found - crashed <= ms(550), "{:?}", found - crashed);
}

#[test]
fn a_gateway_waits_longer_because_its_client_may_be_moving() {
    let mut world = connected();
    world.hosts[0].alive = false;
    let crashed = world.now;
    while world.closed(1).is_none() && world.now < crashed + Duration::from_secs(60) {
        world.send(1, b"news");
        world.run_for(ms(100));
    }
    let (found, how) = world.closed(1).expect("found");
    assert_eq!(how, CloseReason::Liveness);
    let took = (found - crashed).as_secs();
    assert!((15..30).contains(&took), "{took} s");
    world.assert_nothing_left(1);
}

#[test]
fn an_idle_gateway_forgets_a_vanished_client() {
    let mut world = connected();
    world.run_for(Duration::from_secs(60));
    world.hosts[0].alive = false;
    world.run_for(Duration::from_secs(400));
    assert!(world.closed(1).is_some(), "without any traffic, by path checks alone");
    world.assert_nothing_left(1);
}

#[test]
fn one_way_traffic_is_not_mistaken_for_death() {
    let mut world = connected();
    world.hosts[1].echoes = false;
    for _ in 0..600 {
        world.send(0, b"sensor reading");
        world.run_for(ms(100));
    }
    assert!(world.hosts[0].connection.is_some() && world.hosts[1].connection.is_some());
    // Probes ask now and then, not all the time.
    let probings = world.hosts[0].node.counters().probings;
    assert!((50..130).contains(&probings), "{probings} in a minute");
}

#[test]
fn a_dead_direct_path_moves_to_the_relay_and_back() {
    let mut world = connected();
    assert!(world.is_direct(0) && world.is_direct(1));
    world.blocked = Some(Box::new(|datagram| {
        let ends = [datagram.from.ip().to_string(), datagram.to.ip().to_string()];
        ends == ["203.0.113.10", "203.0.113.20"] || ends == ["203.0.113.20", "203.0.113.10"]
    }));
    let cut = world.now;
    let answered = world.exchange(0, b"is anybody there?", Duration::from_secs(5)).expect("an answer");
    assert!(answered - cut <= ms(900), "{:?}", answered - cut);
    assert!(matches!(world.path(0), Some(PathKind::Relayed { .. })));
    assert!(world.closed(0).is_none() && world.closed(1).is_none());
    world.blocked = None;
    for _ in 0..120 {
        world.send(0, b"still here");
        world.run_for(ms(250));
    }
    assert!(world.is_direct(0) && world.is_direct(1), "direct again after it healed");
}

#[test]
fn a_path_that_fails_in_one_direction_only_is_left() {
    for (from, to) in [("203.0.113.10", "203.0.113.20"), ("203.0.113.20", "203.0.113.10")] {
        let mut world = connected();
        world.blocked = Some(Box::new(move |datagram| {
            datagram.from.ip().to_string() == from && datagram.to.ip().to_string() == to
        }));
        let mut answered = 0;
        for _ in 0..100 {
            let before = world.hosts[0].received.len();
            world.send(0, b"request");
            world.run_for(ms(250));
            answered += usize::from(world.hosts[0].received.len() > before);
        }
        assert!(world.closed(0).is_none() && world.closed(1).is_none());
        assert!(answered >= 90, "{from} to {to}: {answered} of 100");
    }
}
