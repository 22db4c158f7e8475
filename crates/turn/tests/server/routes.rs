//! What a caller that forwards by itself is told.

use crate::requester::{Bench, V6, address, config};
use adit_turn::Family;
use adit_turn::server::{Config, Limits, Route, StreamId, Transport};
use adit_turn::stun::{AttributeKind, Method};
use std::time::Duration;

fn bench() -> Bench {
    // The requester asserts that no route is added twice or removed without having been added.
    Bench::new(Config { announce_routes: true, ..config() })
}

fn pass(bench: &mut Bench, seconds: u64) {
    bench.now += Duration::from_secs(seconds);
    bench.server.handle_timeout(bench.now);
    assert!(bench.collect().is_none());
}

fn only(bench: &Bench) -> Route {
    assert_eq!(bench.routes.len(), 1);
    *bench.routes.iter().next().expect("one")
}

#[test]
fn a_route_lives_while_its_channel_and_permission_do() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.permit("198.51.100.1:9"), 0);
    assert!(bench.routes.is_empty(), "a permission is no route");
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let first = only(&bench);
    let port = *bench.bound.iter().find(|port| port.family == Family::V4).expect("bound");
    assert_eq!((first.client, first.channel, first.port), (bench.client, 0x4000, port));
    assert_eq!((first.peer, first.is_within_relay), (address("198.51.100.1:9"), false));
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    assert_eq!(only(&bench), first, "a refresh is no news");
    pass(&mut bench, 301);
    assert!(bench.routes.is_empty(), "the permission is over");
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    let second = only(&bench);
    assert_ne!(second.generation, first.generation);
    pass(&mut bench, 250);
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    assert_eq!(only(&bench), second);
    bench.refresh(3600);
    pass(&mut bench, 50);
    assert!(bench.routes.is_empty(), "the channel is over");
}

#[test]
fn routes_end_with_their_allocation_or_its_half() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    assert_eq!(bench.bind(0x4001, "[2606:4700::1]:9"), 0);
    assert_eq!(bench.routes.len(), 2);
    let request = bench
        .request(Method::REFRESH)
        .number(AttributeKind::LIFETIME, 0)
        .number(AttributeKind::REQUESTED_ADDRESS_FAMILY, V6);
    assert_eq!(bench.ask(request).code(), 0);
    assert_eq!(only(&bench).channel, 0x4000);
    bench.refresh(0);
    assert!(bench.routes.is_empty());
}

#[test]
fn what_needs_the_machine_has_no_route() {
    let mut bench = bench();
    bench.transport = Transport::Stream(StreamId(1));
    bench.nonce.clear();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    assert!(bench.routes.is_empty(), "a client on a connection");
    let limits = Limits { bytes_per_second: Some(1_000_000), ..Limits::default() };
    let mut bench = Bench::new(Config { announce_routes: true, limits, ..config() });
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    assert!(bench.routes.is_empty(), "a user with a limited rate");
}

#[test]
fn a_route_to_a_peer_on_this_relay_says_so() {
    let mut bench = bench();
    let relayed = bench.allocate()[0];
    assert_eq!(bench.bind(0x4000, &relayed.to_string()), 0);
    let route = only(&bench);
    assert_eq!((route.peer, route.is_within_relay), (relayed, true));
}
