//! Packets that wait for an authorization.

use std::time::Duration;

use adit_packet::TcpFlags;
use adit_protocol::client::FailureReason;
use adit_tunnel::{DropReason, ResourceState};

use crate::packets::{HOST_UNREACHABLE, PROHIBITED, icmp_error, socket, tcp, udp};
use crate::portal::{cidr, resource, resource_id};
use crate::world::{World, client_address};

fn world() -> World {
    World::new([resource(1, cidr("10.1.0.0/16")), resource(2, cidr("10.2.0.0/16"))])
}

#[test]
fn what_waits_leaves_in_order_and_within_bounds() {
    let mut world = world();
    world.are_resources_silent = true;
    for number in 0..200_u16 {
        let packet = udp(client_address(0, 5000), socket("10.1.0.7:9"), &number.to_be_bytes());
        world.client_sends(0, &packet);
    }
    assert_eq!(world.clients[0].machine.statistics().waiting, 128);
    assert_eq!(world.clients[0].machine.drops().get(DropReason::QueueFull), 72);
    world.run(Duration::from_secs(1));
    let numbers: Vec<u16> = world.gateways[0]
        .received
        .iter()
        .map(|(_, packet)| u16::from_be_bytes([packet[28], packet[29]]))
        .collect();
    assert_eq!(numbers, (72..200).collect::<Vec<u16>>());
    assert_eq!(world.portal.requests.len(), 1);
}

#[test]
fn the_bound_in_bytes_holds_and_each_resource_has_its_own() {
    let mut world = world();
    for _ in 0..100 {
        let packet = udp(client_address(0, 5000), socket("10.1.0.7:9"), &[0; 8000]);
        world.client_sends(0, &packet);
    }
    assert_eq!(world.clients[0].machine.statistics().waiting, 256 * 1024 / 8028);
    world.client_sends_udp(0, 5000, socket("10.2.0.7:9"));
    assert_eq!(world.clients[0].machine.statistics().waiting, 256 * 1024 / 8028 + 1);
}

#[test]
fn a_retransmitted_syn_replaces_the_old_one() {
    let mut world = world();
    world.are_resources_silent = true;
    for _ in 0..5 {
        let syn = tcp(client_address(0, 5000), socket("10.1.0.7:80"), TcpFlags::SYN);
        world.client_sends(0, &syn);
    }
    let other = tcp(client_address(0, 5001), socket("10.1.0.7:80"), TcpFlags::SYN);
    world.client_sends(0, &other);
    world.run(Duration::from_secs(1));
    assert_eq!(world.gateways[0].received.len(), 2);
}

#[test]
fn a_request_is_repeated_with_its_id_as_long_as_somebody_waits() {
    let mut world = world();
    world.portal.refusal = Some(FailureReason::Unavailable);
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    // At 0, 1 and 3 seconds; the packet is gone at 5 and with it the reason to ask at 7.
    world.run(Duration::from_secs(30));
    let ids: Vec<u64> = world.portal.requests.iter().map(|request| request.request_id).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]));
    let (_, packet) = world.clients[0].received.last().expect("an error");
    assert_eq!(icmp_error(packet).map(|(error, _)| error), Some(HOST_UNREACHABLE));
    assert_eq!(world.clients[0].machine.drops().get(DropReason::WaitedTooLong), 1);
    let statistics = world.clients[0].machine.statistics();
    assert_eq!((statistics.waiting, statistics.timers), (0, 0));
}

#[test]
fn a_portal_that_recovers_is_asked_by_the_timer() {
    let mut world = world();
    world.portal.refusal = Some(FailureReason::Unavailable);
    world.client_sends_udp(0, 5000, socket("10.1.0.7:9"));
    world.run(Duration::from_millis(500));
    world.portal.refusal = None;
    let (packet, _) = world.await_packet(0, Duration::from_secs(2)).expect("an answer");
    assert_eq!(icmp_error(&packet), None);
}

#[test]
fn a_refusal_is_told_and_stands_for_a_while() {
    let mut world = world();
    for (reason, error, state, stands) in [
        (FailureReason::Forbidden, PROHIBITED, ResourceState::Forbidden, 5),
        (FailureReason::Offline, HOST_UNREACHABLE, ResourceState::Offline, 2),
    ] {
        world.portal.refusal = Some(reason);
        let before = world.portal.requests.len();
        let destination = socket("10.1.0.7:9");
        assert!(world.exchange(0, 5000, destination).is_error(error));
        assert_eq!(world.clients[0].machine.resources(world.now)[0].state, state);
        // The same flow is dropped by the worker, another one refused at once.
        assert!(world.exchange(0, 5001, destination).is_error(error));
        world.client_sends_udp(0, 5001, destination);
        assert_eq!(world.portal.requests.len(), before + 1);
        world.run(Duration::from_secs(stands));
        assert!(world.exchange(0, 5000, destination).is_error(error));
        assert_eq!(world.portal.requests.len(), before + 2);
        world.run(Duration::from_secs(stands));
    }
    world.portal.refusal = None;
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert_eq!(world.portal.requests.last().map(|request| request.resource), Some(resource_id(1)));
}

#[test]
fn a_ping_connects_without_a_packet() {
    let mut world = world();
    let ping =
        |world: &mut World| world.with_client(0, |client, now| client.ping(now, resource_id(2)).unwrap());
    assert_eq!(ping(&mut world).state, ResourceState::Connecting);
    world.run(Duration::from_secs(1));
    let pong = ping(&mut world);
    let ResourceState::Connected { path, .. } = pong.state else { panic!("{:?}", pong.state) };
    assert_eq!(path.relay, None);
    assert!(pong.handshake_age_ms.is_some_and(|age| age < 1000));
    assert_eq!(world.portal.requests.len(), 1);
}
