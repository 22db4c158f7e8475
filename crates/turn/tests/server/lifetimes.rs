//! When allocations, permissions and channels end.

use crate::behaviour::{from_peer, relay_port, send_indication};
use crate::requester::{Bench, V6, address, config};
use adit_turn::Family;
use adit_turn::server::{EndReason, Event};
use adit_turn::stun::{AttributeKind, Method};
use std::time::Duration;

fn bench() -> Bench {
    let mut bench = Bench::new(config());
    bench.allocate();
    bench
}

fn pass(bench: &mut Bench, seconds: u64) {
    bench.now += Duration::from_secs(seconds);
    bench.server.handle_timeout(bench.now);
    assert!(bench.collect().is_none());
}

fn refresh_family(bench: &mut Bench, lifetime: u32, family: u32) -> u16 {
    let request = bench.request(Method::REFRESH).number(AttributeKind::LIFETIME, lifetime);
    bench.ask(request.number(AttributeKind::REQUESTED_ADDRESS_FAMILY, family)).code()
}

/// RFC 8656, sections 6 and 8.1: each relayed address of a dual allocation has its own time.
#[test]
fn each_half_of_a_dual_allocation_ends_on_its_own() {
    let mut bench = bench();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!(bench.bind(0x4001, "[2606:4700::1]:1"), 0);
    assert_eq!(refresh_family(&mut bench, 1200, V6), 0);
    while bench.server.poll_event().is_some() {}
    pass(&mut bench, 599);
    assert_eq!(bench.bound.len(), 2);
    assert_eq!(bench.bind(0x4001, "[2606:4700::1]:1"), 0);
    pass(&mut bench, 2);
    assert!(bench.bound.iter().all(|port| port.family == Family::V6));
    assert_eq!((bench.server.allocations(), bench.server.channels()), (1, 1));
    assert_eq!(bench.server.poll_event(), None, "the allocation goes on");
    assert_eq!((bench.permit("198.51.100.1:1"), refresh_family(&mut bench, 600, 1 << 24)), (443, 443));
    pass(&mut bench, 600);
    let ended = Event::AllocationEnded { client: bench.client(), reason: EndReason::Expired };
    assert_eq!((bench.server.poll_event(), bench.server.allocations()), (Some(ended), 0));
}

/// RFC 8656, section 8.1: without a family, a refresh is for both.
#[test]
fn a_refresh_without_family_is_for_both() {
    let mut bench = bench();
    assert_eq!(refresh_family(&mut bench, 3600, 1 << 24), 0);
    bench.refresh(1000);
    pass(&mut bench, 999);
    assert_eq!(bench.bound.len(), 2);
    pass(&mut bench, 2);
    assert_eq!((bench.bound.len(), bench.server.allocations()), (0, 0));
}

/// RFC 8656, section 9: a permission must last 300 seconds, whichever request refreshes it; sections 11.2
/// and 12.6: data does not refresh anything.
#[test]
fn only_requests_refresh_permissions_and_channels() {
    let mut bench = bench();
    bench.refresh(3600);
    let (peer, port) = (address("198.51.100.1:1"), relay_port(&bench, Family::V4));
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    pass(&mut bench, 200);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0, "refreshes the permission");
    for _ in 0..29 {
        pass(&mut bench, 10);
        let (now, client) = (bench.now, bench.client());
        assert!(bench.server.handle_client(now, client, b"\x40\x00\x00\x01x").is_some());
        assert!(bench.server.handle_client(now, client, &send_indication(peer, b"x")).is_some());
        assert!(from_peer(&mut bench, port, peer, b"x").is_some());
    }
    pass(&mut bench, 11);
    assert_eq!(from_peer(&mut bench, port, peer, b"x"), None, "300 s after the last request");
    let (now, client) = (bench.now, bench.client());
    assert_eq!(bench.server.handle_client(now, client, &send_indication(peer, b"x")), None);
    assert!(bench.server.handle_client(now, client, b"\x40\x00\x00\x01x").is_some(), "channels last longer");
    pass(&mut bench, 300);
    assert_eq!(bench.server.handle_client(bench.now, client, b"\x40\x00\x00\x01x"), None);
    // RFC 8656, section 12: unbound, number and peer are free for others.
    assert_eq!((bench.bind(0x4000, "198.51.100.2:1"), bench.bind(0x4001, "198.51.100.1:1")), (0, 0));
}

/// RFC 8656, section 7.2: the lifetime of an Allocate request is bounded as a Refresh request's is.
#[test]
fn the_first_lifetime_has_the_same_bounds() {
    for (wanted, granted) in [(None, 600), (Some(1), 600), (Some(900), 900), (Some(u32::MAX), 3600)] {
        let mut bench = Bench::new(config());
        let request = bench.allocate_request();
        let request =
            wanted.into_iter().fold(request, |writer, wanted| writer.number(AttributeKind::LIFETIME, wanted));
        let answer = bench.ask(request);
        assert_eq!(answer.message().number(AttributeKind::LIFETIME), Some(granted));
        pass(&mut bench, u64::from(granted) - 1);
        assert_eq!(bench.server.allocations(), 1);
        pass(&mut bench, 2);
        assert_eq!(bench.server.allocations(), 0);
    }
}

/// A caller that never says whether a port is bound holds nobody up.
#[test]
fn ports_that_nobody_binds_are_given_up() {
    let mut bench = Bench::new(config());
    bench.learn_nonce();
    let request = bench.allocate_request();
    let bytes = bench.sign(request);
    bench.server.handle_client(bench.now, bench.client(), &bytes);
    while bench.server.poll_command().is_some() {}
    assert_eq!(bench.server.poll_timeout().map(|(_, why)| why), Some("turn server: ports not bound"));
    pass(&mut bench, 41);
    assert_eq!((bench.server.allocations(), bench.server.poll_event()), (0, None));
    assert_eq!(bench.server.poll_timeout(), None);
}
