//! A name whose only address is of the other IP family than what the client connects to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_packet::{IcmpError, PacketView, TcpFlags, Transport, checksum, icmp_error};
use adit_tunnel::DropReason;

use crate::packets::{A, AAAA, ip, ping, tcp};
use crate::portal::{dns, resource, resource_id};
use crate::world::{World, client_address, client_ipv6};

const REAL_V4: &str = "10.9.0.1";
const REAL_V6: &str = "2001:db8:9::1";

/// A world in which the name is at these addresses, and the first of its proxy addresses of a kind.
fn world(addresses: &[&str], kind: u16) -> (World, IpAddr) {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("other.corp".into(), addresses.iter().map(|address| ip(address)).collect());
    let proxy = world.look_up(0, "other.corp", kind)[0];
    (world, proxy)
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 443)
}

/// The client's tunnel address of the family that is IPv4, or is not.
fn client(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { client_address(0, 0).ip() } else { client_ipv6(0) }
}

fn last_beyond(world: &World) -> PacketView {
    let (_, packet) = world.gateways[0].received.last().expect("a packet for the resource");
    checksum::verify(packet).expect("right checksums");
    PacketView::parse(packet).expect("well-formed")
}

#[test]
fn a_name_is_reached_in_the_family_that_it_has() {
    for (real, kind) in [(REAL_V6, A), (REAL_V4, AAAA)] {
        let (mut world, proxy) = world(&[real], kind);
        // The first packet goes the slow way, the second one the fast one.
        for _ in 0..2 {
            assert!(world.exchange(0, 5000, at(proxy)).is_answer());
            let beyond = last_beyond(&world);
            assert_eq!(beyond.source(), client(!proxy.is_ipv4()), "the client's own address of that family");
            assert_eq!(beyond.destination_socket(), Some(at(ip(real))));
        }
        assert_eq!(world.gateways[0].machine.statistics().flows, 1);
        assert_eq!(world.gateways[0].worker.counters().received_packets, 1);
    }
}

#[test]
fn connections_and_pings_pass_too() {
    for (real, kind) in [(REAL_V6, A), (REAL_V4, AAAA)] {
        let (mut world, proxy) = world(&[real], kind);
        let own = client(proxy.is_ipv4());
        world.client_sends(0, &tcp(SocketAddr::new(own, 5000), at(proxy), TcpFlags::SYN));
        let (answer, _) = world.await_packet(0, Duration::from_secs(1)).expect("an answer");
        checksum::verify(&answer).expect("right checksums");
        let answer = PacketView::parse(&answer).unwrap();
        assert_eq!((answer.source_socket(), answer.destination()), (Some(at(proxy)), own));
        assert!(answer.tcp_flags().contains(TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0)));
        for _ in 0..2 {
            world.client_sends(0, &ping(own, proxy, 3007));
            let (answer, _) = world.await_packet(0, Duration::from_secs(1)).expect("an answer");
            checksum::verify(&answer).expect("right checksums");
            let answer = PacketView::parse(&answer).unwrap();
            assert_eq!(answer.transport(), Transport::Echo { identifier: 3007, request: false });
            assert_eq!((answer.source(), answer.destination()), (proxy, own));
        }
    }
}

#[test]
fn an_address_of_the_same_family_is_always_preferred() {
    for (kind, real) in [(A, REAL_V4), (AAAA, REAL_V6)] {
        let mut world = World::new([resource(1, dns("*.corp"))]);
        world.zone.insert("both.corp".into(), vec![ip(REAL_V4), ip(REAL_V6)]);
        for (port, proxy) in (5000..).zip(world.look_up(0, "both.corp", kind)) {
            assert!(world.exchange(0, port, at(proxy)).is_answer());
            assert_eq!(last_beyond(&world).destination(), ip(real));
        }
    }
}

#[test]
fn flows_of_both_families_to_one_address_are_told_apart() {
    let (mut world, proxy_v4) = world(&[REAL_V6], A);
    let proxy_v6 = world.look_up(0, "other.corp", AAAA)[0];
    for _ in 0..2 {
        assert!(world.exchange(0, 5000, at(proxy_v4)).is_answer());
        assert_eq!(last_beyond(&world).source_port(), Some(5000));
        assert!(world.exchange(0, 5000, at(proxy_v6)).is_answer());
        assert_eq!(last_beyond(&world).source_port(), Some(5001));
    }
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.run(Duration::from_millis(50));
    assert_eq!(world.gateways[0].machine.statistics().flows, 0);
}

#[test]
fn what_a_router_beyond_says_reaches_the_application() {
    for (real, kind, told) in [(REAL_V6, A, 1380), (REAL_V4, AAAA, 1420)] {
        let (mut world, proxy) = world(&[real], kind);
        assert!(world.exchange(0, 5000, at(proxy)).is_answer());
        let (_, sent) = world.gateways[0].received.last().expect("a packet for the resource");
        let router = if proxy.is_ipv4() { ip("2001:db8::fe") } else { ip("10.9.0.254") };
        let error = IcmpError::PacketTooBig { mtu: 1400 };
        let error = icmp_error(error, router, sent, &PacketView::parse(sent).unwrap()).unwrap();
        world.resource_sends(0, &error);
        let (error, _) = world.await_packet(0, Duration::from_secs(1)).expect("an error");
        checksum::verify(&error).expect("right checksums");
        let ((_, _), flow) = crate::packets::icmp_error(&error).expect("an error");
        assert_eq!((flow.source_port, flow.destination), (5000, proxy));
        let word = PacketView::parse(&error).unwrap().transport_offset() + 4;
        assert_eq!(error[word..word + 4], u32::to_be_bytes(told));
    }
}

#[test]
fn a_protocol_that_cannot_be_translated_is_refused() {
    let (mut world, proxy) = world(&[REAL_V4], AAAA);
    let mut packet = ping(client(false), proxy, 1);
    packet[6] = 47;
    world.client_sends(0, &packet);
    world.run(Duration::from_secs(1));
    assert_eq!(world.gateways[0].machine.drops().get(DropReason::Untranslatable), 1);
    assert!(world.gateways[0].received.is_empty());
}

#[test]
fn flows_between_families_survive_a_planned_restart() {
    let (mut world, proxy) = world(&[REAL_V6], A);
    assert!(world.exchange(0, 5000, at(proxy)).is_answer());
    let handover = world.hand_over(0, Duration::from_secs(10));
    world.run(Duration::from_secs(1));
    assert_eq!(handover.flows(), 1);
    world.take_over(0, handover, Duration::from_secs(1));
    world.connect_gateway(0);
    world.run(Duration::from_secs(3));
    let before = world.gateways[0].worker.counters().received_packets;
    assert!(world.exchange(0, 5000, at(proxy)).is_answer());
    assert_eq!(last_beyond(&world).source_socket(), Some(SocketAddr::new(client_ipv6(0), 5000)));
    assert_eq!(world.gateways[0].worker.counters().received_packets, before + 1, "the flow was there");
}
