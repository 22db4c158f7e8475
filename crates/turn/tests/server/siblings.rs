//! Several machines are one relay.

use crate::behaviour::relay_port;
use crate::requester::{Bench, address, config};
use adit_turn::Family;
use adit_turn::server::{Config, DropReason, Limits, RelayPort, Siblings, Socket};
use adit_turn::stun::Method;

/// Two machines with a part of the ports each, and a client at each.
fn pair(limits: Limits) -> [Bench; 2] {
    let siblings = Siblings::default();
    [(50_000..=50_499, "203.0.113.5:4000"), (50_500..=50_999, "203.0.113.6:4000")].map(|(ports, client)| {
        let mut bench = Bench::new(Config { ports, limits, allowed_peers: Vec::new(), ..config() });
        bench.server.join(siblings.clone());
        bench.client = address(client);
        bench
    })
}

fn data(bench: &mut Bench) -> Option<(Socket, std::net::SocketAddr)> {
    let forward = bench.server.handle_client(bench.now, bench.client(), b"\x40\x00\x00\x01a")?;
    Some((forward.source, forward.destination))
}

#[test]
fn a_client_of_one_is_a_peer_of_the_other_as_long_as_it_has_its_port() {
    let [mut one, mut other] = pair(Limits::default());
    one.allocate();
    other.allocate();
    let (ours, theirs) = (relay_port(&one, Family::V4), relay_port(&other, Family::V4));
    let at = |port: RelayPort| format!("192.0.2.10:{}", port.number);
    assert_eq!((one.bind(0x4000, &at(theirs)), other.bind(0x4000, &at(ours))), (0, 0));
    assert_eq!(data(&mut one), Some((Socket::Relay(ours), address(&at(theirs)))));
    assert_eq!(data(&mut other), Some((Socket::Relay(theirs), address(&at(ours)))));
    assert_eq!(other.refresh(0).code(), 0);
    assert_eq!(data(&mut one), None);
    assert_eq!(one.server.counters().dropped(DropReason::Forbidden), 1);
}

#[test]
fn bounds_of_allocations_hold_for_both_together() {
    let [mut one, mut other] = pair(Limits { allocations: 3, allocations_per_user: 2, ..Limits::default() });
    let mut allocate = |bench: usize, user: &str, client: &str| {
        let bench = if bench == 0 { &mut one } else { &mut other };
        bench.become_user(user);
        bench.client = address(client);
        bench.nonce.clear();
        let request = bench.allocate_request();
        bench.ask(request).code()
    };
    assert_eq!(allocate(0, "alice", "203.0.113.5:1"), 0);
    assert_eq!(allocate(1, "alice", "203.0.113.5:2"), 0);
    assert_eq!(allocate(0, "alice", "203.0.113.5:3"), 486);
    assert_eq!(allocate(1, "bob", "203.0.113.6:1"), 0);
    assert_eq!(allocate(0, "bob", "203.0.113.6:2"), 508);
    // What is given back to one can be had from the other.
    assert_eq!(other.refresh(0).code(), 0);
    one.become_user("bob");
    let request = one.allocate_request();
    assert_eq!(one.ask(request).code(), 0);
    let counters = one.server.counters();
    assert_eq!((counters.responses(486), counters.responses[&(Method::ALLOCATE, 508)]), (1, 1));
}
