//! Flows whose ends speak different IP families, through a whole tunnel.

use adit_dataplane::{DropReason, Flow, FlowKey, Inbound, Origin, Outbound, Update, room};
use adit_packet::build::{Echo, echo_reply, echo_request};
use adit_packet::offload::{Segmentation, VirtioHeader};
use adit_packet::{IcmpError, Quoted, Transport, checksum, icmp_error};

use crate::world::{
    CLIENT, CLIENT_ADDRESS, GATEWAY_ADDRESS, GRANT, World, deliver, install_flow, ip, seal, socket, tcp, udp,
    view,
};

/// Client address and proxy address; the client's other address and the resource, of the other family.
const BOTH: [[&str; 4]; 2] = [
    ["100.64.0.1:4000", "100.96.0.5:443", "[fd00:a::1]:61000", "[2001:db8::3]:8443"],
    ["[fd00:a::1]:4000", "[fd00:b::5]:443", "100.64.0.1:61000", "10.1.2.3:8443"],
];

/// Bytes that `world::tcp` has behind its headers.
const PLACEHOLDER: usize = b"payload".len();

fn world(example: [&str; 4], make: fn(&str, &str) -> Vec<u8>) -> World {
    let [app, proxy, outside, resource] = example;
    let mut world = World::new();
    world.install(&make(app, proxy), &make(outside, resource));
    world
}

/// Equal but for what IPv4 says about fragmentation, and intact.
fn assert_same(packet: &[u8], expected: &[u8]) {
    assert_eq!(checksum::verify(packet), Ok(()));
    let [mut packet, mut expected] = [packet, expected].map(<[u8]>::to_vec);
    for bytes in [&mut packet, &mut expected].into_iter().filter(|bytes| bytes[0] == 0x45) {
        bytes[4..8].fill(0);
        bytes[10..12].fill(0);
    }
    assert_eq!(packet, expected);
}

/// A SYN with the option that says how much its sender takes in one segment.
fn syn(source: &str, destination: &str, maximum: u16) -> Vec<u8> {
    let mut packet = tcp(source, destination, "S");
    packet.truncate(packet.len() - PLACEHOLDER);
    let [high, low] = maximum.to_be_bytes();
    packet.extend_from_slice(&[2, 4, high, low]);
    let network = if packet[0] == 0x45 { 20 } else { 40 };
    packet[network + 12] = 6 << 4;
    finish_tcp(&mut packet, network);
    packet
}

/// Makes length and checksums right after the packet has grown.
fn finish_tcp(packet: &mut [u8], network: usize) {
    let length = packet.len() as u16;
    if network == 20 {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum::Sum::new().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    let (source, destination) = (view(packet).source(), view(packet).destination());
    packet[network + 16..network + 18].fill(0);
    let segment = &packet[network..];
    let sum = checksum::Sum::new().pseudo_header(source, destination, 6, segment.len() as u32).bytes(segment);
    let sum = sum.checksum();
    packet[network + 16..network + 18].copy_from_slice(&sum.to_be_bytes());
}

fn maximum_segment_size(packet: &[u8]) -> u16 {
    let at = view(packet).transport_offset() + 22;
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[test]
fn udp_and_tcp_are_translated_both_ways_and_counted() {
    type Make = fn(&str, &str) -> Vec<u8>;
    let makes: [Make; 2] = [|a, b| udp(a, b, b"some payload"), |a, b| tcp(a, b, "A")];
    for example @ [app, proxy, outside, resource] in BOTH {
        for (make, channel) in makes.into_iter().flat_map(|make| [(make, None), (make, Some(0x4001))]) {
            let mut world = world(example, make);
            world.use_path(channel);
            assert_same(&world.forward(&make(app, proxy)).unwrap(), &make(outside, resource));
            assert_same(&world.backward(&make(resource, outside)).unwrap(), &make(proxy, app));
            let counters = world.gateway.counters();
            assert_eq!((counters.received_packets, counters.sent_packets), (1, 1));
            assert_eq!(counters.received_bytes, make(app, proxy).len() as u64);
            assert_eq!(counters.sent_bytes, make(proxy, app).len() as u64);
        }
    }
}

#[test]
fn echoes_are_translated_by_identifier() {
    for [app, proxy, outside, resource] in BOTH {
        let echo = |source, destination, identifier| Echo {
            source: socket(source).ip(),
            destination: socket(destination).ip(),
            identifier,
            sequence: 9,
        };
        let request = echo_request(echo(app, proxy, 77), b"ping").unwrap();
        let beyond = echo_request(echo(outside, resource, 1077), b"ping").unwrap();
        let mut world = World::new();
        world.install(&request, &beyond);
        assert_same(&world.forward(&request).unwrap(), &beyond);
        let reply = echo_reply(echo(resource, outside, 1077), b"ping").unwrap();
        assert_same(&world.backward(&reply).unwrap(), &echo_reply(echo(proxy, app, 77), b"ping").unwrap());
    }
}

#[test]
fn errors_from_beyond_reach_the_client_in_its_family() {
    for (example, router) in BOTH.into_iter().zip(["2001:db8::fe", "10.1.2.254"]) {
        let [app, proxy, ..] = example;
        let make: fn(&str, &str) -> Vec<u8> = |a, b| udp(a, b, &[5; 900]);
        let mut world = world(example, make);
        let sent = world.forward(&make(app, proxy)).unwrap();
        let error = icmp_error(IcmpError::HostUnreachable, ip(router), &sent, &view(&sent)).unwrap();
        let seen = world.backward(&error).expect("an error about the flow");
        assert_eq!(checksum::verify(&seen), Ok(()));
        assert_eq!((view(&seen).source(), view(&seen).destination()), (socket(proxy).ip(), socket(app).ip()));
        let quoted = Quoted::parse(&seen, &view(&seen)).unwrap().flow();
        assert_eq!(quoted, view(&make(app, proxy)).flow());
    }
}

#[test]
fn errors_of_the_client_reach_the_resource_however_tight_the_datagram_is() {
    for example @ [_, _, outside, resource] in BOTH {
        for payload in (0..1200).step_by(7) {
            let mut world = world(example, |a, b| udp(a, b, b""));
            let received = world.backward(&udp(resource, outside, &vec![3; payload])).unwrap();
            let own = view(&received).destination();
            let error = icmp_error(IcmpError::PortUnreachable, own, &received, &view(&received)).unwrap();
            let seen = world.forward(&error).expect("the client's own error");
            assert_eq!(checksum::verify(&seen), Ok(()));
            assert_eq!(view(&seen).source(), socket(outside).ip());
            assert!(matches!(view(&seen).transport(), Transport::IcmpError { .. }));
            let quoted = Quoted::parse(&seen, &view(&seen)).unwrap().flow();
            assert_eq!(quoted, view(&udp(resource, outside, b"")).flow());
        }
    }
}

#[test]
fn segments_are_limited_to_what_the_interface_carries_in_ipv6() {
    let mtus = [(1280, 1360), (1440, 1380)];
    for (example, (mtu, most)) in BOTH.into_iter().flat_map(|example| mtus.map(|mtu| (example, mtu))) {
        let [app, proxy, outside, resource] = example;
        let mut world = world(example, |a, b| tcp(a, b, "S"));
        world.gateway.apply(world.now, Update::MtuChanged { peer: CLIENT, mtu });
        let out = world.forward(&syn(app, proxy, 1460)).unwrap();
        assert_eq!((maximum_segment_size(&out), checksum::verify(&out)), (most, Ok(())));
        let back = world.backward(&syn(resource, outside, 9000)).unwrap();
        assert_eq!((maximum_segment_size(&back), checksum::verify(&back)), (most, Ok(())));
        let out = world.forward(&syn(app, proxy, 600)).unwrap();
        assert_eq!(maximum_segment_size(&out), 600);
    }
}

#[test]
fn what_does_not_fit_the_tunnel_is_told_in_the_family_of_its_sender() {
    for (example, told) in BOTH.into_iter().zip([1420_u16, 1380]) {
        let [_, _, outside, resource] = example;
        let mut world = world(example, |a, b| udp(a, b, b""));
        world.gateway.apply(world.now, Update::MtuChanged { peer: CLIENT, mtu: 1400 });
        let headers = if told == 1420 { 48 } else { 28 };
        let most = usize::from(told) - headers;
        let fits = udp(resource, outside, &vec![1; most]);
        assert_eq!(world.backward(&fits).map(|packet| packet.len()), Ok(1400));
        let too_big = udp(resource, outside, &vec![1; most + 1]);
        let sealed = seal(&mut world.gateway, world.now, &too_big);
        assert_eq!(sealed.map(drop), Err(format!("too big for {told}")));
    }
}

#[test]
fn super_packets_are_translated_whole_and_cut() {
    for (example, mtu) in BOTH.into_iter().flat_map(|example| [(example, 1400), (example, 1280)]) {
        let [app, proxy, outside, resource] = example;
        let mut world = world(example, |a, b| tcp(a, b, "S"));
        world.gateway.apply(world.now, Update::MtuChanged { peer: CLIENT, mtu });
        let mut packet = tcp(resource, outside, "A");
        packet.truncate(packet.len() - PLACEHOLDER);
        let network = packet.len() - 20;
        let payload: Vec<u8> = (0..9_000).map(|at| (at % 251) as u8).collect();
        packet.extend_from_slice(&payload);
        finish_tcp(&mut packet, network);
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: if network == 20 { Segmentation::TcpV4 } else { Segmentation::TcpV6 },
            header_length: network as u16 + 20,
            segment_size: 1340,
            checksum_start: network as u16,
            checksum_offset: 16,
            ..VirtioHeader::NONE
        };
        let original = packet.clone();
        let mut out = vec![0; room(packet.len(), 20)];
        let sent = world.gateway.outbound(world.now, header, &mut packet, &mut out);
        let Outbound::Send { datagrams, .. } = sent else { panic!("{sent:?}") };
        assert_eq!(packet, original, "translated elsewhere");
        let mut received = Vec::new();
        for datagram in out[..datagrams.length].chunks(datagrams.segment) {
            let addresses = [CLIENT_ADDRESS, GATEWAY_ADDRESS].map(socket);
            let packet = deliver(&mut world.client, world.now, addresses, datagram.to_vec()).unwrap();
            assert_eq!(checksum::verify(&packet), Ok(()));
            assert!(packet.len() <= usize::from(mtu));
            assert_eq!(view(&packet).source_socket(), Some(socket(proxy)));
            assert_eq!(view(&packet).destination_socket(), Some(socket(app)));
            let at = view(&packet).transport_offset() + 4;
            let sequence = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            assert_eq!(sequence as usize, 1000 + received.len());
            received.extend_from_slice(&packet[view(&packet).transport_offset() + 20..]);
        }
        assert_eq!(received, payload);
    }
}

#[test]
fn super_packets_of_udp_keep_their_borders() {
    for example @ [app, proxy, outside, resource] in BOTH {
        let mut world = world(example, |a, b| udp(a, b, b""));
        let mut packet = udp(resource, outside, &[9; 2_500]);
        let network = view(&packet).transport_offset() as u16;
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation: Segmentation::Udp,
            header_length: network + 8,
            segment_size: 1000,
            checksum_start: network,
            checksum_offset: 6,
            ..VirtioHeader::NONE
        };
        let mut out = vec![0; room(packet.len(), 3)];
        let sent = world.gateway.outbound(world.now, header, &mut packet, &mut out);
        let Outbound::Send { datagrams, .. } = sent else { panic!("{sent:?}") };
        let lengths = [1000, 1000, 500];
        for (datagram, length) in out[..datagrams.length].chunks(datagrams.segment).zip(lengths) {
            let addresses = [CLIENT_ADDRESS, GATEWAY_ADDRESS].map(socket);
            let packet = deliver(&mut world.client, world.now, addresses, datagram.to_vec()).unwrap();
            assert_same(&packet, &udp(proxy, app, &vec![9; length]));
        }
    }
}

#[test]
fn fragments_are_dropped_by_name() {
    let example @ [app, proxy, outside, resource] = BOTH[0];
    let mut world = world(example, |a, b| udp(a, b, b""));
    for (field, reason) in [(0x2000_u16, "untranslatable_fragment"), (0x00b9, "fragment_without_first")] {
        let mut packet = udp(app, proxy, &[0; 64]);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        assert_eq!(world.forward(&packet), Err(reason.to_owned()));
    }
    assert!(world.forward(&udp(app, proxy, b"whole")).is_ok());
    assert!(world.backward(&udp(resource, outside, b"whole")).is_ok());
    assert_eq!(world.gateway.counters().dropped(DropReason::UntranslatableFragment), 1);
}

#[test]
fn a_packet_taken_again_has_the_room_of_its_datagram() {
    let [app, proxy, outside, resource] = BOTH[0];
    let make: fn(&str, &str) -> Vec<u8> = |a, b| udp(a, b, b"hello");
    let mut world = world(BOTH[0], make);
    world.gateway.apply(world.now, Update::GrantRevoked { grant: GRANT });
    let (mut datagram, _) = seal(&mut world.client, world.now, &make(app, proxy)).unwrap();
    let [local, from] = [GATEWAY_ADDRESS, CLIENT_ADDRESS].map(socket);
    let missed = world.gateway.inbound(world.now, local, from, &mut datagram);
    let Inbound::Miss { peer, range } = missed else { panic!("{missed:?}") };
    let key = FlowKey::new(Origin::Peer(CLIENT), view(&make(app, proxy)).flow().unwrap());
    let beyond = view(&make(outside, resource)).flow().unwrap();
    let flow = Flow::new(key, FlowKey::new(Origin::Local, beyond.reversed()), GRANT);
    install_flow(&mut world.gateway, world.now, flow);
    let taken = world.gateway.inbound_again(world.now, peer, &mut datagram, range);
    let Inbound::Tun(range) = taken else { panic!("{taken:?}") };
    assert_same(&datagram[range], &make(outside, resource));
}

#[test]
fn an_echo_must_be_one_on_both_sides() {
    let mut world = World::new();
    let [app, proxy, outside, resource] = BOTH[0];
    let key = FlowKey::new(Origin::Peer(CLIENT), view(&udp(app, proxy, b"")).flow().unwrap());
    let mut beyond = view(&udp(outside, resource, b"")).flow().unwrap().reversed();
    beyond.protocol = 6;
    let flow = Flow::new(key, FlowKey::new(Origin::Local, beyond), GRANT);
    world.gateway.apply(world.now, Update::install(flow));
    let mixed = FlowKey { source: ip("10.0.0.1"), protocol: 17, ..FlowKey::new(Origin::Local, beyond) };
    world.gateway.apply(world.now, Update::install(Flow::new(key, mixed, GRANT)));
    assert_eq!(world.gateway.counters().dropped(DropReason::InconsistentFlow), 2);
    assert_eq!(world.gateway.sizes().flows, 0);
}
