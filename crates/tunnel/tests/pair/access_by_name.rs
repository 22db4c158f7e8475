//! A resource is reached by its name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_packet::PacketView;
use adit_protocol::PortalToGateway;
use adit_tunnel::{ClientEvent, DropReason};

use crate::packets::{A, HOST_UNREACHABLE, PROHIBITED, ip, query, socket, udp};
use crate::portal::{cidr, dns, resource};
use crate::world::{RESOLVER, World, client_address};

fn world() -> World {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    world
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 443)
}

#[test]
fn a_name_has_proxy_addresses_and_the_gateway_knows_the_real_one() {
    let mut world = world();
    let proxies = world.look_up(0, "wiki.corp", A);
    assert_eq!(proxies.len(), 4, "{proxies:?}");
    assert!(world.lookups.is_empty(), "nobody is asked before somebody sends");

    assert!(world.exchange(0, 5000, at(proxies[0])).is_answer());
    assert_eq!(world.lookups, ["wiki.corp"]);
    let (_, packet) = &world.gateways[0].received[0];
    let view = PacketView::parse(packet).unwrap();
    assert_eq!(view.source_socket(), Some(client_address(0, 5000)));
    assert_eq!(view.destination_socket(), Some(socket("10.9.0.1:443")));
    // All proxies of the name lead there, without another question.
    assert!(world.exchange(0, 5001, at(proxies[3])).is_answer());
    assert_eq!((world.lookups.len(), world.portal.requests.len()), (1, 1));
}

#[test]
fn a_name_that_does_not_exist_is_unreachable() {
    let mut world = world();
    let proxies = world.look_up(0, "gone.corp", A);
    assert!(world.exchange(0, 5000, at(proxies[0])).is_error(HOST_UNREACHABLE));
    assert_eq!(world.clients[0].machine.drops().get(DropReason::NameUnresolved), 1);
}

#[test]
fn a_resolver_cannot_lead_a_client_to_the_gateway_itself() {
    let mut world = world();
    let traps = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "100.64.0.100", "100.96.0.9"];
    world.zone.insert("trap.corp".into(), traps.iter().map(|trap| ip(trap)).collect());
    let proxies = world.look_up(0, "trap.corp", A);
    assert!(world.exchange(0, 5000, at(proxies[0])).is_error(HOST_UNREACHABLE));
    assert!(world.gateways[0].received.is_empty());
}

#[test]
fn an_announcement_that_was_lost_is_repeated() {
    let mut world = World::new([resource(1, dns("*.corp")), resource(2, cidr("10.1.0.0/16"))]);
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.1")]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    let proxies = world.look_up(0, "wiki.corp", A);
    world.network.loss = 100;
    world.client_sends_udp(0, 5000, at(proxies[0]));
    world.run(Duration::from_millis(400));
    assert!(world.lookups.is_empty());
    world.network.loss = 0;
    // Announced at 40 ms and again at 540 ms; the packet itself still waits.
    let (_, took) = world.await_packet(0, Duration::from_secs(1)).expect("an answer");
    assert!(took <= Duration::from_millis(140 + 41 + 41), "{took:?}");
}

#[test]
fn names_work_on_a_network_that_loses_much() {
    let mut world = world();
    world.network.loss = 20;
    let proxies = world.look_up(0, "wiki.corp", A);
    let replies: Vec<_> = (0..12).map(|_| world.exchange(0, 5000, at(proxies[0]))).collect();
    assert!(replies.iter().any(|reply| reply.is_answer()), "{replies:?}");
}

#[test]
fn a_name_that_moved_is_found_again_and_old_flows_stay() {
    let mut world = world();
    let proxies = world.look_up(0, "wiki.corp", A);
    assert!(world.exchange(0, 5000, at(proxies[0])).is_answer());
    world.zone.insert("wiki.corp".into(), vec![ip("10.9.0.2")]);
    for _ in 0..3 {
        world.run(Duration::from_secs(25));
        assert!(world.exchange(0, 5000, at(proxies[0])).is_answer());
    }
    // The first new flow asks again and does not wait for the answer; the next one is led to the new place.
    assert!(world.exchange(0, 5001, at(proxies[0])).is_answer());
    assert!(world.exchange(0, 5002, at(proxies[0])).is_answer());
    let seen = |port| {
        let packets = world.gateways[0].received.iter().rev();
        let mut views = packets.filter_map(|(_, packet)| PacketView::parse(packet).ok());
        views.find(|view| view.source_port() == Some(port)).map(|view| view.destination().to_string())
    };
    assert_eq!(seen(5000).as_deref(), Some("10.9.0.1"));
    assert_eq!(seen(5002).as_deref(), Some("10.9.0.2"));
}

#[test]
fn other_names_go_to_the_upstream_resolver() {
    let mut world = world();
    let question = query("example.org", A);
    let packet = udp(client_address(0, 5353), SocketAddr::from((RESOLVER, 53)), &question);
    world.client_sends(0, &packet);
    let asked = world.client_events.iter().find_map(|event| match event {
        ClientEvent::DnsQuery { id, upstream, message, .. } => Some((*id, *upstream, message.clone())),
        _ => None,
    });
    let (id, upstream, mut message) = asked.expect("a question to the upstream");
    assert_eq!(upstream, socket("192.0.2.53:53"));
    message[2] |= 0x80;
    world.with_client(0, |client, now| client.handle_dns_response(now, id, Ok(message)));
    let (_, answer) = world.clients[0].received.last().expect("an answer");
    let view = PacketView::parse(answer).unwrap();
    assert_eq!(view.udp_payload(answer).unwrap()[..2], question[..2], "the application's own id");
    assert!(world.portal.requests.is_empty());
}

#[test]
fn a_proxy_address_without_a_name_is_unreachable() {
    let mut world = world();
    assert!(world.exchange(0, 5000, socket("100.96.7.7:443")).is_error(HOST_UNREACHABLE));
    assert!(world.portal.requests.is_empty());
}

#[test]
fn a_name_outside_the_pattern_is_refused_by_the_gateway() {
    let mut world = world();
    let proxies = world.look_up(0, "wiki.corp", A);
    // The portal narrows the resource for the gateway, and the client has not heard of it.
    let narrowed = resource(1, dns("only.corp"));
    world.with_gateway(0, |gateway, now| {
        gateway.handle_portal(now, adit_protocol::PortalToGateway::ResourceChanged(narrowed.clone()));
    });
    world.portal.resources.insert(narrowed.id, narrowed);
    assert!(world.exchange(0, 5000, at(proxies[0])).is_error(PROHIBITED));
    assert!(world.lookups.is_empty());
}

#[test]
fn a_narrower_pattern_ends_access_to_names_that_were_announced_before() {
    let mut world = world();
    world.zone.insert("git.corp".into(), vec![ip("10.9.0.2")]);
    let [wiki, git] = ["wiki.corp", "git.corp"].map(|name| world.look_up(0, name, A)[0]);
    assert!(world.exchange(0, 5000, at(wiki)).is_answer());
    assert!(world.exchange(0, 5000, at(git)).is_answer());
    // The client does not hear of it, or does not care.
    let narrower = PortalToGateway::ResourceChanged(resource(1, dns("git.corp")));
    world.with_gateway(0, |gateway, now| gateway.handle_portal(now, narrower));
    assert!(world.exchange(0, 5000, at(wiki)).is_error(PROHIBITED));
    assert!(world.exchange(0, 5001, at(wiki)).is_error(PROHIBITED));
    assert!(world.exchange(0, 5000, at(git)).is_answer());
}

#[test]
fn names_that_take_long_to_resolve_keep_no_other_client_waiting() {
    let mut world = world();
    let other = world.add_client();
    let proxy = world.look_up(0, "wiki.corp", A)[0];
    assert!(world.exchange(0, 5000, at(proxy)).is_answer());
    world.is_resolver_silent = true;
    world.lookups.clear();
    for number in 0..100 {
        let proxy = world.look_up(0, &format!("slow-{number}.corp"), A)[0];
        world.client_sends_udp(0, 5000, at(proxy));
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.lookups.len(), 64);
    world.is_resolver_silent = false;
    let proxy = world.look_up(other, "wiki.corp", A)[0];
    assert!(world.exchange(other, 5000, at(proxy)).is_answer());
}
