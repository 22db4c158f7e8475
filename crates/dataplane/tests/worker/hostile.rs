//! Packets and datagrams that nobody honest sends: dropped by name, never a panic.

use std::time::Instant;

use adit_dataplane::{DropReason, Flow, FlowKey, Origin, Outbound, Worker};
use adit_packet::offload::VirtioHeader;
use adit_wireguard::HEADER;
use proptest::prelude::*;

use crate::world::{
    CLIENT, CLIENT_ADDRESS, GATEWAY_ADDRESS, GRANT, World, config, deliver, install_flow, seal, socket, udp,
    view,
};

fn packet() -> Vec<u8> {
    udp("100.64.0.1:4000", "10.0.0.9:53", b"question")
}

fn world() -> World {
    let mut world = World::new();
    world.install(&packet(), &packet());
    world
}

/// A control message of peer to peer: IPv6, next header 253.
fn control() -> Vec<u8> {
    let mut packet = udp("[fd00::1]:1", "[fd00::2]:2", b"control");
    packet[6] = 253;
    packet
}

/// Seals anything, as a peer that breaks the rules could.
fn from_peer(world: &mut World, plaintext: &[u8]) -> Result<Vec<u8>, String> {
    let mut datagram = vec![0; plaintext.len() + 48];
    datagram[HEADER..][..plaintext.len()].copy_from_slice(plaintext);
    let length = world.sessions[0].seal_in_place(&mut datagram, plaintext.len()).expect("room");
    datagram.truncate(length);
    let addresses = [socket(GATEWAY_ADDRESS), socket(CLIENT_ADDRESS)];
    deliver(&mut world.gateway, world.now, addresses, datagram)
}

#[test]
fn control_messages_are_misses_from_peers_and_lookalikes_from_the_tun_device() {
    let mut world = world();
    assert_eq!(from_peer(&mut world, &control()), Err(format!("miss of {} bytes", control().len())));
    assert_eq!(seal(&mut world.client, world.now, &control()), Err("control_lookalike".to_owned()));
    // Not even a flow lets one pass to the TUN device.
    let view = view(&control());
    let key = FlowKey {
        origin: Origin::Peer(CLIENT),
        protocol: 253,
        source: view.source(),
        destination: view.destination(),
        source_port: 0,
        destination_port: 0,
    };
    let flow = Flow::untranslated(key, Origin::Local, GRANT);
    install_flow(&mut world.gateway, world.now, flow);
    assert_eq!(from_peer(&mut world, &control()), Err(format!("miss of {} bytes", control().len())));
    let mut ipv4 = packet();
    ipv4[9] = 253;
    assert_eq!(seal(&mut world.client, world.now, &ipv4), Err("control_lookalike".to_owned()));
}

#[test]
fn malformed_packets_inside_the_tunnel_are_dropped() {
    let mut world = world();
    for plaintext in [&[0x45; 10][..], &[0; 40], &[0xff; 100], &packet()[..25]] {
        assert_eq!(from_peer(&mut world, plaintext), Err("malformed_packet".to_owned()));
    }
    assert_eq!(world.gateway.counters().dropped(DropReason::MalformedPacket), 4);
}

#[test]
fn router_advertisements_do_not_pass() {
    let mut advertisement = udp("[fe80::1]:1", "[ff02::1]:2", &[0; 8]);
    advertisement[6] = 58;
    advertisement[40..42].copy_from_slice(&[134, 0]);
    let mut world = world();
    assert_eq!(from_peer(&mut world, &advertisement), Err("unsupported_icmp".to_owned()));
    assert_eq!(seal(&mut world.client, world.now, &advertisement), Err("unsupported_icmp".to_owned()));
}

#[test]
fn bytes_behind_the_packet_stay_inside() {
    let mut world = world();
    let longer = [&packet()[..], b"hidden trailer"].concat();
    assert_eq!(world.forward(&longer), Ok(packet()), "only the packet is sealed");
    assert_eq!(from_peer(&mut world, &longer), Ok(packet()), "and only the packet is delivered");
}

#[test]
fn channel_data_that_claims_too_much_is_dropped() {
    let mut world = world();
    let (datagram, _) = seal(&mut world.client, world.now, &packet()).unwrap();
    let claim = (datagram.len() as u16 + 1).to_be_bytes();
    let wrapped = [&[0x40, 0, claim[0], claim[1]][..], &datagram].concat();
    let addresses = [socket(GATEWAY_ADDRESS), socket(CLIENT_ADDRESS)];
    let result = deliver(&mut world.gateway, world.now, addresses, wrapped);
    assert_eq!(result, Err("malformed_channel_data".to_owned()));
}

#[test]
fn buffers_without_room_are_dropped() {
    let mut world = world();

    let drop = Outbound::Drop(DropReason::BufferTooSmall);
    let mut send =
        |room: usize| world.client.outbound(world.now, VirtioHeader::NONE, &mut packet(), &mut vec![0; room]);
    let sealed = packet().len() + adit_wireguard::OVERHEAD;
    for room in [0, 4, 16, packet().len(), sealed - 1] {
        assert_eq!(send(room), drop, "{room} bytes");
    }
    assert!(matches!(send(sealed), Outbound::Send { .. }), "room for header and tag is enough");
}

#[test]
fn a_scan_is_cut_off_and_established_flows_go_on() {
    let mut world = world();
    world.install(&packet(), &packet());
    let mut misses = 0;
    for port in 1..=5_000 {
        let probe = udp("100.64.0.1:4000", &format!("10.0.0.9:{}", 10_000 + port), b"?");
        let outcome = from_peer(&mut world, &probe);
        misses += usize::from(outcome.as_ref().is_err_and(|what| what.starts_with("miss")));
        assert!(outcome.is_err());
    }
    assert_eq!(misses, 512);
    assert_eq!(world.gateway.counters().dropped(DropReason::NewFlowsTooFast), 5_000 - 512);
    assert_eq!(from_peer(&mut world, &packet()), Ok(packet()));
    world.wait(std::time::Duration::from_secs(1));
    let probe = udp("100.64.0.1:4000", "10.0.0.9:9", b"?");
    assert!(from_peer(&mut world, &probe).is_err_and(|what| what.starts_with("miss")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_never_panics_and_never_passes(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        first in prop_oneof![Just(0x45u8), Just(0x60), Just(4), Just(0x40), any::<u8>()],
    ) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let mut world = world();
        prop_assert!(seal(&mut world.client, world.now, &bytes).is_err());
        prop_assert!(from_peer(&mut world, &bytes).is_err());
        let addresses = [socket(GATEWAY_ADDRESS), socket(CLIENT_ADDRESS)];
        prop_assert!(deliver(&mut world.gateway, world.now, addresses, bytes).is_err());
    }

    #[test]
    fn a_changed_packet_never_leaves_its_flow(
        position in 0usize..36,
        mask in 1u8..=255,
    ) {
        let mut world = world();
        let mut changed = packet();
        changed[position] ^= mask;
        // Only addresses, ports, protocol and shape decide; the rest is none of the worker's business.
        let decides = matches!(position, 0 | 2 | 3 | 6 | 7 | 9 | 12..=25);
        if let Ok(delivered) = from_peer(&mut world, &changed) {
            let same_flow = delivered[12..24] == packet()[12..24] && delivered[9] == packet()[9];
            prop_assert!(same_flow);
            prop_assert!(!decides || matches!(position, 0 | 2 | 3 | 6 | 7 | 24 | 25), "byte {}", position);
        }
    }
}

#[test]
fn an_empty_worker_lets_nothing_pass() {
    let now = Instant::now();
    let mut worker = Worker::new(now, config());
    assert_eq!(seal(&mut worker, now, &packet()), Err("miss".to_owned()));
    assert_eq!((worker.poll_timeout(), worker.poll_event()), (None, None));
}
