//! Long lives: rekeys under traffic, idle hours, lossy links.

use std::time::Duration;

use adit_peering::Role;

use crate::world::{NatKind, World, ms};

fn connected(seed: u8) -> World {
    let mut world = World::new(seed);
    world.add_relay("198.51.100.1");
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.10");
    world.add_host(Role::Client, &["192.168.1.2:51820"], Some(nat));
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(5)).expect("an answer");
    world
}

#[test]
fn sessions_are_renewed_under_traffic_without_a_gap() {
    let mut world = connected(70);
    world.run_for(Duration::from_secs(1));
    let mut sent = 0;
    let before = world.hosts[0].received.len();
    let end = world.now + Duration::from_secs(600);
    while world.now < end {
        assert!(world.send(0, b"data"));
        sent += 1;
        world.run_for(ms(100));
    }
    world.run_for(ms(100));
    assert_eq!(world.hosts[0].received.len() - before, sent, "nothing was lost");
    let handshakes = world.hosts[0].node.wireguard_counters().handshakes_completed;
    assert!((5..=6).contains(&handshakes), "{handshakes} in 600 s");
}

#[test]
fn an_idle_connection_is_warm_after_an_hour_and_costs_little() {
    let mut world = connected(71);
    world.run_for(Duration::from_secs(60));
    world.log = Some(Vec::new());
    world.run_for(Duration::from_secs(3600));
    let datagrams = world.log.take().expect("a log").len();
    println!("{datagrams} datagrams in an idle hour, of both ends and the relay");
    // Path checks each 25 s on each path and both ways, handshakes each 150 s, relay refreshes.
    assert!(datagrams < 3000, "{datagrams} datagrams in an hour");
    let asked = world.now;
    let answered = world.exchange(0, b"good morning", Duration::from_secs(1)).expect("an answer");
    assert_eq!(answered - asked, ms(40), "no handshake first");
}

#[test]
fn an_idle_connection_has_a_session_at_every_moment() {
    let mut world = connected(74);
    world.run_for(Duration::from_secs(1));
    let id = world.hosts[0].connection.expect("a connection");
    for _ in 0..20_000 {
        world.run_for(ms(20));
        assert!(world.hosts.iter().all(|host| host.worker.can_send(id)), "{:?}", world.now - world.start);
    }
}

#[test]
fn an_hour_at_five_percent_loss_kills_nobody() {
    let mut world = connected(72);
    world.loss = 5;
    world.jitter = ms(10);
    world.duplication = 1;
    let (mut sent, before) = (0, world.hosts[0].received.len());
    let end = world.now + Duration::from_secs(3600);
    let mut pause = 0;
    while world.now < end {
        world.send(0, b"request");
        sent += 1;
        // Bursts, slow requests, and silence long enough to become idle.
        pause = (pause + 1) % 100;
        world.run_for(if pause == 0 { Duration::from_secs(40) } else { ms(30 * pause) });
    }
    for host in [0, 1] {
        assert_eq!(world.closed(host), None, "host {host}");
    }
    let answered = world.hosts[0].received.len() - before;
    assert!(answered * 100 > sent * 85, "{answered} of {sent}");
    let counters = world.hosts[0].node.counters();
    println!("{sent} requests, {answered} answers, {} times probes", counters.probings);
}

#[test]
fn connecting_at_twenty_percent_loss_takes_a_second_or_two() {
    let mut times = Vec::new();
    for seed in 0..30 {
        let mut world = World::new(100 + seed);
        world.add_relay("198.51.100.1");
        world.add_host(Role::Client, &["203.0.113.10:51820"], None);
        world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
        world.loss = 20;
        world.run_for(Duration::from_secs(5));
        world.introduce(0, 1);
        let start = world.now;
        let answered = world.exchange(0, b"hello", Duration::from_secs(10)).expect("an answer");
        times.push((answered - start).as_millis());
    }
    times.sort_unstable();
    println!("{times:?}");
    assert!(times[15] <= 150, "median {} ms", times[15]);
    assert!(times[28] <= 1500, "p95 {} ms", times[28]);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = || {
        let mut world = connected(73);
        world.loss = 10;
        world.jitter = ms(30);
        for _ in 0..200 {
            world.send(0, b"data");
            world.run_for(ms(100));
        }
        let events: Vec<_> = world
            .hosts
            .iter()
            .flat_map(|host| host.events.iter().map(|(at, event)| (*at - world.start, format!("{event:?}"))))
            .collect();
        (events, world.hosts[0].received.len())
    };
    assert_eq!(story(), story());
}
