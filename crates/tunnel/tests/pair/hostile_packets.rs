//! Packets and datagrams from people who mean harm.

use std::net::SocketAddr;
use std::time::Duration;

use adit_packet::TcpFlags;
use adit_policy::{Resource, ResourceAddress};
use adit_tunnel::DropReason;
use proptest::prelude::*;

use crate::packets::{ip, ping, socket, tcp, udp};
use crate::portal::{cidr, resource, resource_id, site};
use crate::world::{World, client_address};

fn world() -> World {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    world
}

/// Hands the gateway a packet as if the client had sent it through the tunnel.
fn smuggle(world: &mut World, mut packet: Vec<u8>) {
    let peer = adit_dataplane::PeerId(1);
    world.with_gateway(0, |gateway, now| gateway.handle_peer_packet(now, peer, &mut packet));
    world.run(Duration::from_millis(300));
}

fn gateway_drops(world: &World, reason: DropReason) -> u64 {
    world.gateways[0].machine.drops().get(reason)
}

#[test]
fn a_client_speaks_for_itself_only() {
    let mut world = world();
    for source in ["100.64.0.11:5000", "10.1.0.9:5000", "100.64.0.100:5000"] {
        smuggle(&mut world, udp(socket(source), socket("10.1.0.7:9"), b"x"));
    }
    assert_eq!(gateway_drops(&world, DropReason::WrongSource), 3);
    assert_eq!(world.gateways[0].received.len(), 1);
}

#[test]
fn a_client_reaches_neither_other_clients_nor_the_gateway() {
    let mut world = World::new([resource(1, cidr("0.0.0.0/0")), resource(2, ResourceAddress::Internet)]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    for trap in
        ["100.64.0.11:9", "100.64.0.100:9", "127.0.0.1:9", "0.0.0.0:9", "224.0.0.1:9", "169.254.169.254:80"]
    {
        smuggle(&mut world, udp(client_address(0, 5000), socket(trap), b"x"));
    }
    assert_eq!(world.gateways[0].received.len(), 1);
}

#[test]
fn a_tunnel_address_is_reached_if_a_resource_says_so_by_name() {
    let address = ResourceAddress::Ip { address: ip("100.64.0.100") };
    let mut world = World::new([resource(1, address)]);
    assert!(world.exchange(0, 5000, socket("100.64.0.100:9")).is_answer());
}

#[test]
fn nothing_behind_a_gateway_starts_a_flow() {
    let mut world = world();
    let unsolicited = udp(socket("10.1.0.7:9"), client_address(0, 6000), b"x");
    let now = world.now;
    world.gateways[0].tun_packet(now, &unsolicited);
    assert_eq!(gateway_drops(&world, DropReason::Unsolicited), 1);
    let before = world.clients[0].received.len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[0].received.len(), before);
}

#[test]
fn a_gateway_starts_nothing_at_a_client() {
    let mut world = world();
    let mut packet = udp(socket("10.1.0.7:9"), client_address(0, 6000), b"x");
    world
        .with_client(0, |client, now| client.handle_peer_packet(now, adit_dataplane::PeerId(1), &mut packet));
    world.with_client(0, |client, now| {
        client.handle_peer_packet(now, adit_dataplane::PeerId(99), &mut packet)
    });
    let drops = world.clients[0].machine.drops();
    assert_eq!((drops.get(DropReason::Unsolicited), drops.get(DropReason::UnknownPeer)), (1, 1));
}

#[test]
fn an_answer_that_overtakes_its_flow_is_believed_while_the_flow_is_new() {
    let mut world = world();
    let peer = adit_dataplane::PeerId(1);
    let answers = |world: &mut World, answer: &mut [u8]| {
        let before = world.clients[0].received.len();
        world.with_client(0, |client, now| client.handle_peer_packet(now, peer, answer));
        world.clients[0].received.len() > before
    };
    let mut answer = udp(socket("10.1.0.7:9"), client_address(0, 5000), b"x");
    let mut other = udp(socket("10.1.0.7:10"), client_address(0, 5000), b"x");
    assert!(answers(&mut world, &mut answer));
    assert!(!answers(&mut world, &mut other));
    world.run(Duration::from_secs(2));
    assert!(!answers(&mut world, &mut answer), "workers know the flow by now");
    assert!(world.exchange(0, 5001, socket("10.1.0.7:9")).is_answer());
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.run(Duration::from_millis(25));
    let mut answer = udp(socket("10.1.0.7:9"), client_address(0, 5001), b"x");
    assert!(!answers(&mut world, &mut answer), "the authorization is gone");
}

#[test]
fn no_gateway_answers_for_another() {
    let elsewhere = Resource { site: site(2), ..resource(2, cidr("10.2.0.0/16")) };
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), elsewhere]);
    world.add_gateway(2);
    world.run(Duration::from_secs(1));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:9")).is_answer());
    assert!(world.exchange(0, 5000, socket("10.2.0.7:9")).is_answer());
    let before = world.clients[0].received.len();
    let mut answer = udp(socket("10.1.0.7:9"), client_address(0, 5000), b"x");
    let other = adit_dataplane::PeerId(2);
    world.with_client(0, |client, now| client.handle_peer_packet(now, other, &mut answer));
    assert_eq!(world.clients[0].received.len(), before);
    assert_eq!(world.clients[0].machine.drops().get(DropReason::Unsolicited), 1);
}

#[test]
fn replies_resets_and_errors_start_no_flow() {
    let mut world = world();
    let (client, server): (_, SocketAddr) = (client_address(0, 7000), socket("10.1.0.7:9"));
    let mut reply = ping(client.ip(), server.ip(), 3);
    reply[20] = 0;
    let mut error = ping(client.ip(), server.ip(), 3);
    error[20] = 3;
    for packet in [tcp(client, server, TcpFlags::RST), reply, error] {
        world.client_sends(0, &packet);
        smuggle(&mut world, packet);
    }
    assert_eq!(world.gateways[0].received.len(), 1);
    assert!(world.portal.requests.len() == 1 && world.clients[0].machine.statistics().waiting == 0);
}

#[test]
fn a_control_lookalike_never_enters_the_tunnel() {
    let mut world = world();
    let message = adit_protocol::peer::PeerMessage::Draining { deadline_ms: 1 };
    let (own, gateway) = ("fd00:ad17::a".parse().unwrap(), "fd00:ad17::64".parse().unwrap());
    let mut packet = adit_protocol::peer::encode(own, gateway, 1, &message).unwrap();
    world.with_client(0, |client, now| client.handle_tun_packet(now, &mut packet));
    assert_eq!(world.clients[0].machine.drops().get(DropReason::ControlLookalike), 1);
}

#[test]
fn icmp_errors_are_rationed() {
    let mut world = World::new([]);
    for port in 0..1000 {
        world.client_sends_udp(0, 1000 + port, socket("10.1.0.7:9"));
    }
    assert_eq!(world.clients[0].received.len(), 50);
    assert_eq!(world.clients[0].machine.drops().get(DropReason::NoRoute), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn garbage_from_all_sides_changes_nothing(
        garbage in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 40),
        flips in proptest::collection::vec((0_usize..60, any::<u8>()), 40),
    ) {
        let mut world = world();
        let stranger: SocketAddr = socket("203.0.113.200:9");
        let peer = adit_dataplane::PeerId(1);
        for (bytes, (at, value)) in garbage.iter().zip(flips) {
            let mut flipped = tcp(client_address(0, 5000), socket("10.1.0.7:9"), TcpFlags::SYN);
            let at = at % flipped.len();
            flipped[at] = value;
            for packet in [bytes.clone(), flipped] {
                world.client_sends(0, &packet);
                world.with_gateway(0, |gateway, now| gateway.handle_peer_packet(now, peer, &mut packet.clone()));
                world.with_gateway(0, |gateway, now| gateway.handle_tun_packet(now, &mut packet.clone()));
                world.with_client(0, |client, now| client.handle_peer_packet(now, peer, &mut packet.clone()));
                let (client, gateway) = (world.clients[0].addresses[0], world.gateways[0].addresses[0]);
                let mut datagram = packet.clone();
                world.with_client(0, |machine, now| machine.handle_datagram(now, client, stranger, &mut datagram));
                let mut datagram = packet;
                world.with_gateway(0, |machine, now| machine.handle_datagram(now, gateway, stranger, &mut datagram));
            }
        }
        world.run(Duration::from_secs(6));
        prop_assert!(world.exchange(0, 6001, socket("10.1.0.7:9")).is_answer());
        prop_assert_eq!(world.clients[0].machine.statistics().connections, 1);
        prop_assert_eq!(world.clients[0].machine.statistics().waiting, 0);
    }
}
