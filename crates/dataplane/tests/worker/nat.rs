//! Address and port translation at the gateway, both ways, and ICMP errors about translated flows.

use adit_dataplane::{DropReason, FlowKey, Origin, Update};
use adit_packet::build::{Echo, echo_reply, echo_request};
use adit_packet::{IcmpError, Quoted, checksum, icmp_error};
use proptest::prelude::*;

use crate::world::{World, install_flow, ip, seal, tcp, udp, view};

/// Client address and the proxy address that stands for the resource; the gateway's choice and
/// the resource itself.
const FAMILIES: [[&str; 4]; 2] = [
    ["100.64.0.1:4000", "100.96.0.5:443", "172.16.0.2:61000", "10.1.2.3:8443"],
    ["[fd00::1]:4000", "[fd00:5::5]:443", "[fd00:a::2]:61000", "[2001:db8::3]:8443"],
];

fn assert_intact(packet: &[u8]) {
    assert_eq!(checksum::verify(packet), Ok(()));
}

#[test]
fn udp_and_tcp_are_translated_both_ways() {
    type Make = fn(&str, &str) -> Vec<u8>;
    let makes: [Make; 2] = [|a, b| udp(a, b, b"some payload"), |a, b| tcp(a, b, "A")];
    for [app, proxy, outside, resource] in FAMILIES {
        for make in makes {
            let mut world = World::new();
            world.install(&make(app, proxy), &make(outside, resource));
            let out = world.forward(&make(app, proxy)).unwrap();
            assert_eq!(out, make(outside, resource));
            assert_intact(&out);
            let back = world.backward(&make(resource, outside)).unwrap();
            assert_eq!(back, make(proxy, app));
            assert_intact(&back);
        }
    }
}

#[test]
fn echoes_are_translated_by_identifier() {
    let echo = |source, destination, identifier| Echo {
        source: ip(source),
        destination: ip(destination),
        identifier,
        sequence: 9,
    };
    for [app, proxy, outside, resource] in [
        ["100.64.0.1", "100.96.0.5", "172.16.0.2", "10.1.2.3"],
        ["fd00::1", "fd00:5::5", "fd00:a::2", "2001:db8::3"],
    ] {
        let request = echo_request(echo(app, proxy, 77), b"ping").unwrap();
        let beyond = echo_request(echo(outside, resource, 1077), b"ping").unwrap();
        let mut world = World::new();
        world.install(&request, &beyond);
        assert_eq!(world.forward(&request), Ok(beyond));
        let reply = echo_reply(echo(resource, outside, 1077), b"ping").unwrap();
        assert_eq!(world.backward(&reply), Ok(echo_reply(echo(proxy, app, 77), b"ping").unwrap()));
    }
}

#[test]
fn errors_from_beyond_follow_the_flow_they_quote() {
    for ([app, proxy, outside, resource], router) in FAMILIES.into_iter().zip(["10.1.2.254", "2001:db8::fe"])
    {
        let mut world = World::new();
        let make = |a, b| udp(a, b, b"too big, perhaps");
        world.install(&make(app, proxy), &make(outside, resource));
        let sent = world.forward(&make(app, proxy)).unwrap();
        let error =
            icmp_error(IcmpError::PacketTooBig { mtu: 1300 }, ip(router), &sent, &view(&sent)).unwrap();
        let seen = world.backward(&error).expect("an error about the flow");
        assert_intact(&seen);
        let outer = view(&seen);
        let (app, proxy) = (crate::world::socket(app), crate::world::socket(proxy));
        assert_eq!((outer.source(), outer.destination()), (proxy.ip(), app.ip()));
        let quoted = Quoted::parse(&seen, &outer).unwrap().flow().unwrap();
        assert_eq!((quoted.source, quoted.source_port), (app.ip(), app.port()));
        assert_eq!((quoted.destination, quoted.destination_port), (proxy.ip(), proxy.port()));
    }
}

#[test]
fn errors_about_unknown_flows_are_dropped() {
    let [app, proxy, outside, resource] = FAMILIES[0];
    let mut world = World::new();
    let make = |a, b| udp(a, b, b"");
    world.install(&make(app, proxy), &make(outside, resource));
    let stranger = make(outside, "10.1.2.4:8443");
    let error = icmp_error(IcmpError::PortUnreachable, ip("10.1.2.4"), &stranger, &view(&stranger)).unwrap();
    assert_eq!(world.backward(&error), Err("unrelated_icmp_error".to_owned()));
    // Quotes a known flow, but is addressed to somebody else.
    let known = make(outside, resource);
    let mut error = icmp_error(IcmpError::PortUnreachable, ip("10.1.2.4"), &known, &view(&known)).unwrap();
    error[19] ^= 1;
    assert_eq!(world.backward(&error), Err("unrelated_icmp_error".to_owned()));
    assert_eq!(world.gateway.counters().dropped(DropReason::UnrelatedIcmpError), 2);
}

#[test]
fn a_peer_speaks_in_its_own_name_only_in_errors_too() {
    for ([app, proxy, outside, resource], forged) in FAMILIES.into_iter().zip(["10.1.2.254", "2001:db8::fe"])
    {
        let mut world = World::new();
        let make = |a, b| udp(a, b, b"");
        world.install(&make(app, proxy), &make(outside, resource));
        let received = world.backward(&make(resource, outside)).unwrap();
        let error = |from| icmp_error(IcmpError::PortUnreachable, from, &received, &view(&received)).unwrap();
        let seen = world.forward(&error(crate::world::socket(app).ip())).expect("the client's own error");
        assert_intact(&seen);
        assert_eq!(view(&seen).source(), crate::world::socket(outside).ip());
        assert_eq!(world.forward(&error(ip(forged))), Err("unrelated_icmp_error".to_owned()));
    }
}

#[test]
fn errors_do_not_keep_a_flow_alive() {
    let [app, proxy, outside, resource] = FAMILIES[0];
    let mut world = World::new();
    let make = |a, b| udp(a, b, b"");
    world.install(&make(app, proxy), &make(outside, resource));
    let sent = make(outside, resource);
    let error = icmp_error(IcmpError::PortUnreachable, ip("10.1.2.3"), &sent, &view(&sent)).unwrap();
    for _ in 0..3 {
        world.wait(std::time::Duration::from_secs(50));
        let _ = seal(&mut world.gateway, world.now, &error);
    }
    assert_eq!(world.gateway.sizes().flows, 0);
}

/// Splits a UDP/IPv4 packet into two fragments at `at` bytes of its payload, a multiple of 8.
fn fragments(packet: &[u8], at: usize) -> [Vec<u8>; 2] {
    let make = |range: std::ops::Range<usize>, field: u16| {
        let mut fragment = packet[..20].to_vec();
        fragment.extend_from_slice(&packet[range]);
        let length = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        fragment[4..6].copy_from_slice(&0x1234_u16.to_be_bytes());
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        fragment[10..12].fill(0);
        let sum = checksum::Sum::new().bytes(&fragment[..20]).checksum();
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        fragment
    };
    [make(20..20 + at, 0x2000), make(20 + at..packet.len(), at as u16 / 8)]
}

#[test]
fn later_fragments_follow_the_first() {
    let [app, proxy, outside, resource] = FAMILIES[0];
    let make = |a, b| udp(a, b, &[7; 100]);
    let mut world = World::new();
    world.install(&make(app, proxy), &make(outside, resource));
    let [first, later] = fragments(&make(app, proxy), 48);
    assert_eq!(world.forward(&later), Err("fragment_without_first".to_owned()));
    let [first_out, later_out] = [first, later.clone()].map(|fragment| world.forward(&fragment).unwrap());
    // Put together again they are the translated packet.
    let whole = [&first_out[20..], &later_out[20..]].concat();
    assert_eq!(whole, make(outside, resource)[20..]);
    for fragment in [&first_out, &later_out] {
        assert_eq!(fragment[12..20], make(outside, resource)[12..20]);
    }
    world.client.apply(world.now, Update::GrantRevoked { grant: crate::world::GRANT });
    assert_eq!(world.forward(&later), Err("fragment_without_first".to_owned()), "revoked with its flow");
}

#[test]
fn protocols_without_ports_have_flows_too() {
    // GRE (47): the worker keys it by addresses only.
    let mut gre = udp("100.64.0.1:1", "10.0.0.9:2", b"opaque");
    gre[9] = 47;
    let mut world = World::new();
    assert_eq!(world.forward(&gre), Err("miss".to_owned()));
    let key = FlowKey {
        origin: Origin::Local,
        protocol: 47,
        source: ip("100.64.0.1"),
        destination: ip("10.0.0.9"),
        source_port: 0,
        destination_port: 0,
    };
    let flow =
        adit_dataplane::Flow::untranslated(key, Origin::Peer(crate::world::GATEWAY), crate::world::GRANT);
    install_flow(&mut world.client, world.now, flow);
    assert!(seal(&mut world.client, world.now, &gre).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_translated_comes_back_as_it_was(
        ports in any::<[u16; 4]>(),
        addresses in any::<[u32; 4]>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let socket = |number: usize| {
            std::net::SocketAddr::new(std::net::IpAddr::V4(addresses[number].into()), ports[number]).to_string()
        };
        let [app, proxy, outside, resource] = [0, 1, 2, 3].map(socket);
        let mut world = World::new();
        world.install(&udp(&app, &proxy, &payload), &udp(&outside, &resource, &payload));
        let out = world.forward(&udp(&app, &proxy, &payload)).unwrap();
        prop_assert_eq!(&out, &udp(&outside, &resource, &payload));
        let back = world.backward(&udp(&resource, &outside, &payload)).unwrap();
        prop_assert_eq!(&back, &udp(&proxy, &app, &payload));
    }
}
