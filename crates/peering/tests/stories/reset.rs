//! A gateway that lost its memory says so, and only it can.

use std::time::Duration;

use adit_peering::{CloseReason, Role};

use crate::world::{World, address, ms};

fn connected() -> World {
    let mut world = World::new(40);
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
fn data_for_a_restarted_gateway_is_answered_with_a_reset() {
    let mut world = connected();
    world.restart_host(1);
    let sent = world.now;
    world.send(0, b"request");
    world.run_for(ms(100));
    let (closed, how) = world.closed(0).expect("closed");
    assert_eq!(how, CloseReason::Reset);
    assert_eq!(closed - sent, ms(40), "one round trip");
    world.assert_nothing_left(0);
    assert_eq!(world.hosts[1].node.counters().resets_sent, 1);
}

#[test]
fn after_a_rekey_the_newest_token_counts() {
    let mut world = connected();
    for _ in 0..150 {
        world.send(0, b"request");
        world.run_for(Duration::from_secs(1));
    }
    assert!(world.hosts[0].node.wireguard_counters().handshakes_completed >= 2);
    world.restart_host(1);
    world.send(0, b"request");
    world.run_for(ms(100));
    assert_eq!(world.closed(0).map(|(_, how)| how), Some(CloseReason::Reset));
}

/// Every data datagram that the client sent, as an eavesdropper has it.
fn overheard(world: &World) -> Vec<Vec<u8>> {
    let log = world.log.as_ref().expect("a log");
    let data = log.iter().filter(|(_, datagram)| {
        datagram.from == address("203.0.113.10:51820") && datagram.payload.starts_with(&[4, 0, 0, 0])
    });
    data.map(|(_, datagram)| datagram.payload.clone()).collect()
}

#[test]
fn a_forged_reset_is_ignored_and_counted() {
    let mut world = connected();
    world.log = Some(Vec::new());
    world.send(0, b"request");
    world.run_for(ms(100));
    let index = overheard(&world)[0][4..8].to_vec();
    let client = address("203.0.113.10:51820");
    for forged in 0..50 {
        let datagram = [&[8, 0, 0, 0], &index[..], &[forged; 16]].concat();
        world.inject("203.0.113.20:51820", client, datagram);
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.closed(0).is_none());
    assert_eq!(world.hosts[0].node.counters().invalid_reset, 50);
    assert!(world.exchange(0, b"still here", Duration::from_secs(1)).is_some());
}

#[test]
fn the_token_of_an_ended_session_ends_nothing() {
    let mut world = connected();
    world.log = Some(Vec::new());
    world.send(0, b"request");
    world.run_for(ms(100));
    let old = overheard(&world)[0].clone();
    // The session is replaced and ends; the gateway forgets its index.
    for _ in 0..400 {
        world.send(0, b"request");
        world.run_for(Duration::from_secs(1));
    }
    // An attacker replays old data, and the gateway discloses the old token to the client.
    let sent = world.hosts[1].node.counters().resets_sent;
    world.inject("203.0.113.10:51820", address("203.0.113.20:51820"), old);
    world.run_for(ms(200));
    assert_eq!(world.hosts[1].node.counters().resets_sent, sent + 1, "it does disclose it");
    assert!(world.closed(0).is_none());
    assert!(world.exchange(0, b"still here", Duration::from_secs(1)).is_some());
}

#[test]
fn an_old_token_does_not_end_a_new_session() {
    let mut world = connected();
    world.log = Some(Vec::new());
    world.send(0, b"request");
    world.run_for(ms(100));
    let old = overheard(&world)[0].clone();
    // From now on tickets are lost, so the newest that the client has is the old one.
    world.blocked = Some(Box::new(|datagram| {
        datagram.payload.starts_with(&[4, 0, 0, 0]) && datagram.payload.len() == 112
    }));
    for _ in 0..400 {
        world.send(0, b"request");
        world.run_for(Duration::from_secs(1));
    }
    world.log = Some(Vec::new());
    world.send(0, b"request");
    world.inject("203.0.113.10:51820", address("203.0.113.20:51820"), old);
    world.run_for(ms(200));
    let index = overheard(&world)[0][4..8].to_vec();
    let log = world.log.take().expect("a log");
    let disclosed = log.iter().find(|(_, datagram)| datagram.payload.starts_with(&[8, 0, 0, 0]));
    let token = disclosed.expect("a reset").1.payload[8..].to_vec();
    let forged = [&[8, 0, 0, 0], &index[..], &token[..]].concat();
    world.inject("203.0.113.20:51820", address("203.0.113.10:51820"), forged);
    world.run_for(ms(100));
    assert!(world.closed(0).is_none());
    assert_eq!(world.hosts[0].node.counters().invalid_reset, 2);
}

#[test]
fn a_flood_of_unknown_data_is_answered_sparingly() {
    let mut world = connected();
    for number in 0..2000_u32 {
        let datagram = [&[4, 0, 0, 0], &number.to_le_bytes()[..], &[0; 40]].concat();
        world.inject("203.0.113.99:1", address("203.0.113.20:51820"), datagram);
    }
    world.run_for(ms(100));
    let counters = *world.hosts[1].node.counters();
    assert_eq!((counters.resets_sent, counters.resets_suppressed), (200, 1800));
}
