//! Larger packets are used where they arrive, and only there.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use adit_peering::Role;

use crate::world::{World, ms};

const IP_AND_UDP: usize = 28;

/// Two peers without NAT, connected, on a path whose IP packets have at most so many bytes.
fn connected(link: usize) -> (World, Rc<Cell<usize>>) {
    connected_by(7, link)
}

fn connected_by(seed: u8, link: usize) -> (World, Rc<Cell<usize>>) {
    let mut world = World::new(seed);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    let limit = Rc::new(Cell::new(link));
    let narrow = limit.clone();
    world.blocked = Some(Box::new(move |datagram| datagram.payload.len() + IP_AND_UDP > narrow.get()));
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(5)).expect("an answer");
    (world, limit)
}

/// What the worker of a host may send at once.
fn mtu(world: &World, host: usize) -> Option<u16> {
    let connection = world.hosts[host].connection.expect("a connection");
    world.hosts[host].worker.mtu.get(&connection).copied()
}

/// Traffic both ways for so many seconds, 50 kB each.
fn talk(world: &mut World, seconds: u32) {
    for _ in 0..seconds {
        for _ in 0..50 {
            world.send(0, &[7; 1_000]);
            world.run_for(ms(20));
        }
    }
}

#[test]
fn the_size_of_the_link_is_found_within_a_round_trip() {
    // 20 bytes of IPv4, 8 of UDP and 32 of WireGuard go around each packet.
    for (link, expected) in [(1_400, 1_340), (1_500, 1_440), (9_000, 8_940), (1_499, 1_432)] {
        let (mut world, _) = connected(link);
        world.run_for(ms(50 + 45));
        assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(expected), Some(expected)), "{link}");
    }
}

#[test]
fn a_path_that_carries_no_more_than_every_path_stays_as_it_is() {
    let (mut world, _) = connected(1_390);
    talk(&mut world, 60);
    assert_eq!((mtu(&world, 0), mtu(&world, 1)), (None, None));
    assert!(world.closed(0).is_none());
}

#[test]
fn a_path_that_becomes_narrower_is_noticed() {
    let (mut world, link) = connected(1_500);
    talk(&mut world, 30);
    assert_eq!(mtu(&world, 0), Some(1_440));
    link.set(1_450);
    talk(&mut world, 13);
    assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(1_390), Some(1_390)));
    link.set(1_400);
    talk(&mut world, 13);
    assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(1_340), Some(1_340)));
}

#[test]
fn a_path_that_becomes_wider_is_used_after_a_while() {
    let (mut world, link) = connected(1_400);
    talk(&mut world, 30);
    link.set(1_500);
    talk(&mut world, 600);
    assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(1_440), Some(1_440)));
}

#[test]
fn loss_is_not_mistaken_for_narrowness() {
    for seed in 1..=5 {
        let (mut world, _) = connected_by(seed, 1_500);
        world.loss = 5;
        talk(&mut world, 300);
        assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(1_440), Some(1_440)), "seed {seed}");
    }
}

#[test]
fn an_idle_connection_sends_no_probes() {
    let (mut world, _) = connected(1_500);
    world.run_for(Duration::from_secs(60));
    world.log = Some(Vec::new());
    world.run_for(Duration::from_secs(300));
    // Little traffic now and then.
    for _ in 0..100 {
        world.exchange(0, b"hello", Duration::from_secs(5)).expect("an answer");
        world.run_for(Duration::from_secs(5));
    }
    let log = world.log.take().expect("a log");
    assert!(log.iter().all(|(_, datagram)| datagram.payload.len() < 400));
}
