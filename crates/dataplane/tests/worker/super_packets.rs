//! Packets of many segments: looked up once, translated once, and each segment whole at the other end.

use adit_dataplane::{Datagrams, DropReason, Outbound, Path, Update, room};
use adit_packet::PacketView;
use adit_packet::offload::{Segmentation, VirtioHeader};
use proptest::prelude::*;

use crate::world::{
    CLIENT_ADDRESS, GATEWAY, GATEWAY_ADDRESS, RELAY_ADDRESS, World, deliver, seal, socket, tcp, udp, view,
};

const IP_AND_TCP: usize = 40;
/// Bytes that `world::tcp` has behind its headers.
const PLACEHOLDER: &[u8] = b"payload";

/// A TCP packet as a kernel with segmentation offload hands it over, and its virtio header.
fn super_packet(payload: usize, segment_size: u16) -> (VirtioHeader, Vec<u8>) {
    let mut packet = tcp("100.64.0.1:4000", "10.0.0.9:443", "A");
    packet.truncate(packet.len() - PLACEHOLDER.len());
    packet.extend((0..payload).map(|at| (at % 251) as u8));
    let length = u16::try_from(packet.len()).expect("a packet that fits");
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    let header = VirtioHeader {
        needs_checksum: true,
        segmentation: Segmentation::TcpV4,
        header_length: IP_AND_TCP as u16,
        segment_size,
        checksum_start: 20,
        checksum_offset: 16,
        ..VirtioHeader::NONE
    };
    (header, packet)
}

fn world(channel: Option<u16>) -> World {
    let mut world = World::new();
    world.use_path(channel);
    world.install(
        &tcp("100.64.0.1:4000", "10.0.0.9:443", "S"),
        &tcp("10.7.0.1:50001", "192.168.1.5:8443", "S"),
    );
    world
}

fn send(world: &mut World, header: VirtioHeader, packet: &[u8]) -> (Vec<u8>, Datagrams, Path) {
    let mut out = vec![0xee; room(packet.len(), packet.len())];
    match world.client.outbound(world.now, header, &mut packet.to_vec(), &mut out) {
        Outbound::Send { path, datagrams, .. } => {
            out.truncate(datagrams.length);
            (out, datagrams, path)
        }
        other => panic!("not sent: {other:?}"),
    }
}

/// Delivers the datagrams at the gateway; the packets for its TUN device.
fn receive(world: &mut World, out: &[u8], segment: usize, from: &str) -> Vec<Vec<u8>> {
    let addresses = [socket(GATEWAY_ADDRESS), socket(from)];
    out.chunks(segment)
        .map(|datagram| {
            deliver(&mut world.gateway, world.now, addresses, datagram.to_vec()).expect("a packet")
        })
        .collect()
}

fn assert_is_right(packet: &[u8]) {
    let sliced = etherparse::SlicedPacket::from_ip(packet).expect("a good packet");
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
        (sliced.net, sliced.transport)
    else {
        panic!("not TCP over IPv4");
    };
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    let expected =
        tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).expect("it fits");
    assert_eq!(tcp.checksum(), expected);
}

#[test]
fn each_segment_arrives_translated_and_whole() {
    for (channel, from) in [(None, CLIENT_ADDRESS), (Some(0x4001), RELAY_ADDRESS)] {
        let mut world = world(channel);
        let (header, packet) = super_packet(3_500, 1_000);
        let (out, datagrams, path) = send(&mut world, header, &packet);
        assert_eq!(path.channel, channel);
        assert_eq!(out.chunks(datagrams.segment).count(), 4);
        let packets = receive(&mut world, &out, datagrams.segment, from);
        let mut payload = Vec::new();
        for packet in &packets {
            assert_is_right(packet);
            let view = view(packet);
            assert_eq!(view.source_socket(), Some(socket("10.7.0.1:50001")));
            assert_eq!(view.destination_socket(), Some(socket("192.168.1.5:8443")));
            payload.extend_from_slice(&packet[IP_AND_TCP..]);
        }
        assert_eq!(payload, packet[IP_AND_TCP..]);
        let counters = world.client.counters();
        assert_eq!((counters.sent_packets, counters.sent_bytes), (4, packet.len() as u64));
    }
}

#[test]
fn a_miss_can_be_cut_by_somebody_else() {
    let mut world = World::new();
    let (header, packet) = super_packet(2_500, 1_000);
    let (mut same, mut out) = (packet.clone(), vec![0; room(packet.len(), 3)]);
    assert_eq!(world.client.outbound(world.now, header, &mut same, &mut out), Outbound::Miss);
    assert_eq!(same, packet);
    assert_eq!(world.client.counters().misses, 1);
}

#[test]
fn what_is_larger_than_the_path_is_cut_or_refused() {
    let mut world = world(None);
    let (header, packet) = super_packet(3_500, 1_380);
    let longest = |world: &mut World| {
        let (out, datagrams, _) = send(world, header, &packet);
        let packets = receive(world, &out, datagrams.segment, CLIENT_ADDRESS);
        packets.iter().for_each(|packet| assert_is_right(packet));
        assert_eq!(packets.iter().map(|packet| packet.len() - IP_AND_TCP).sum::<usize>(), 3_500);
        packets.iter().map(Vec::len).max()
    };
    assert_eq!(longest(&mut world), Some(1_280), "nothing is known of the path");
    world.client.apply(world.now, Update::MtuChanged { peer: GATEWAY, mtu: 1_400 });
    assert_eq!(longest(&mut world), Some(1_400));
    world.client.apply(world.now, Update::MtuChanged { peer: GATEWAY, mtu: 9_000 });
    assert_eq!(longest(&mut world), Some(1_420), "as the sender wants it");
    let datagram = udp("100.64.0.1:4000", "10.0.0.9:443", &[0; 1_400]);
    world.install(&datagram, &datagram);
    assert!(seal(&mut world.client, world.now, &datagram).is_ok());
    world.client.apply(world.now, Update::MtuChanged { peer: GATEWAY, mtu: 1_280 });
    assert_eq!(seal(&mut world.client, world.now, &datagram), Err("too big for 1280".to_owned()));
    assert_eq!(world.client.counters().dropped(DropReason::PacketTooBig), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_the_header_says_nothing_wrong_leaves(
        payload in 1usize..9_000,
        segment_size in 0u16..3_000,
        kind in 0u8..8,
        start in 0u16..80,
        offset in 0u16..40,
        needs_checksum in any::<bool>(),
    ) {
        let mut world = world(None);
        let (honest, packet) = super_packet(payload, segment_size);
        let mut bytes = VirtioHeader { needs_checksum, ..honest }.to_bytes();
        bytes[1] = kind;
        bytes[6..8].copy_from_slice(&start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        let Ok(header) = VirtioHeader::parse(&bytes) else { return Ok(()) };
        let mut out = vec![0; room(packet.len(), packet.len())];
        let sent = world.client.outbound(world.now, header, &mut packet.clone(), &mut out);
        let Outbound::Send { datagrams, .. } = sent else { return Ok(()) };
        for packet in receive(&mut world, &out[..datagrams.length], datagrams.segment, CLIENT_ADDRESS) {
            prop_assert!(PacketView::parse(&packet).is_ok());
        }
    }
}
