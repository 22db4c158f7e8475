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
    assert!(took >= ms(700) && took <= ms(850), "silence of 350 ms, then ten probes: {took:?}");
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
    assert!(found - crashed <= ms(450), "{:?}", found - crashed);
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
    assert!((50..180).contains(&probings), "{probings} in a minute");
}

/// Five percent of everything is lost, probes and their answers too.
fn survives(seed: u8, echoes: bool) {
    let mut world = World::new(seed);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.hosts[1].echoes = echoes;
    world.loss = 5;
    for _ in 0..3000 {
        world.send(0, b"sensor reading");
        world.run_for(ms(100));
    }
    assert!(world.hosts[0].connection.is_some(), "seed {seed}: {:?}", world.closed(0));
}

#[test]
fn five_percent_of_loss_kills_nobody() {
    for seed in 0..8 {
        survives(seed, false);
    }
    survives(8, true);
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
    assert!(answered - cut <= ms(700), "{:?}", answered - cut);
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
        world.blocked = None;
        for _ in 0..60 {
            world.send(0, b"request");
            world.run_for(ms(250));
        }
        assert!(world.is_direct(0) && world.is_direct(1), "both are back where the client is");
    }
}

#[test]
fn a_direct_path_that_was_given_up_is_found_again() {
    let mut world = connected();
    world.blocked = Some(Box::new(|datagram| {
        let ends = [datagram.from.ip().to_string(), datagram.to.ip().to_string()];
        ends == ["203.0.113.10", "203.0.113.20"] || ends == ["203.0.113.20", "203.0.113.10"]
    }));
    let talk = |world: &mut World, seconds: u64| {
        for _ in 0..seconds {
            world.send(0, b"request");
            world.run_for(Duration::from_secs(1));
        }
    };
    talk(&mut world, 110);
    assert!(!world.is_direct(0));
    world.blocked = None;
    talk(&mut world, 65);
    assert!(world.is_direct(0) && world.is_direct(1));
}

#[test]
fn data_alone_proves_life() {
    let mut world = connected();
    // A middlebox that has come to dislike STUN.
    world.blocked = Some(Box::new(|datagram| datagram.payload.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])));
    for _ in 0..100 {
        world.send(0, b"request");
        world.with(0, |node, now, id| node.hint(now, id, Hint::Doubt));
        world.run_for(ms(100));
    }
    assert!(world.closed(0).is_none());
}

#[test]
fn an_idle_client_forgets_a_vanished_gateway() {
    let mut world = connected();
    world.run_for(Duration::from_secs(60));
    world.hosts[1].alive = false;
    world.run_for(Duration::from_secs(52));
    assert_eq!(world.closed(0).map(|(_, how)| how), Some(CloseReason::Liveness));
    world.assert_nothing_left(0);
}

#[test]
fn an_answer_from_elsewhere_proves_nothing() {
    let mut world = World::new(31);
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    // Handshakes are lost, and answers to checks arrive from another address only.
    world.blocked = Some(Box::new(|datagram| {
        let answer = datagram.payload.starts_with(&[1, 1]) && datagram.from.port() == 51820;
        let handshake = matches!(datagram.payload.get(..4), Some([1..=4, 0, 0, 0]));
        answer || handshake
    }));
    world.log = Some(Vec::new());
    world.introduce(0, 1);
    world.run_for(ms(100));
    let log = world.log.take().expect("a log");
    let answers: Vec<_> = log
        .into_iter()
        .map(|(_, datagram)| datagram)
        .filter(|datagram| {
            datagram.payload.starts_with(&[1, 1]) && datagram.to.ip().to_string() == "203.0.113.10"
        })
        .collect();
    assert!(!answers.is_empty());
    for answer in &answers {
        world.inject("203.0.113.20:666", answer.to, answer.payload.clone());
    }
    world.run_for(ms(50));
    assert_eq!(world.hosts[0].node.counters().unmatched_response, answers.len() as u64);
    world.run_for(Duration::from_secs(11));
    assert_eq!(world.closed(0).map(|(_, how)| how), Some(CloseReason::IceFailed));
}
