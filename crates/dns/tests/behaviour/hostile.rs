//! Bytes from a stranger: every entry point returns, whatever it is given.

use std::net::Ipv4Addr;
use std::time::Instant;

use adit_dns::tcp::Listener;
use adit_dns::{Forwarder, Query, Server, Settings, Transport};
use adit_packet::{PacketView, build};
use domain::base::iana::Rtype;
use proptest::prelude::*;

use crate::messages::{addresses, negative, query, query_edns};

fn server() -> Server<u8> {
    let settings = Settings {
        ipv4: Ipv4Addr::new(100, 100, 0, 53),
        ipv6: "fd00::53".parse().expect("an address"),
        ipv4_proxies: "100.96.0.0/11".parse().expect("a network"),
        ipv6_proxies: "fd00:ad17::/107".parse().expect("a network"),
    };
    let mut server = Server::new(Instant::now(), settings, [1; 32]);
    server.set_resources(vec![("**".parse().expect("a pattern"), 1)]);
    server.set_upstreams(vec!["192.0.2.1:53".parse().expect("a socket address")]);
    server
}

/// Overwrites some bytes.
fn mutated(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, value) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5)
}

fn udp(server: &mut Server<u8>, message: &[u8]) {
    let packet = build::udp(
        "100.64.0.2:4000".parse().expect("valid"),
        "100.100.0.53:53".parse().expect("valid"),
        message,
    );
    let packet = packet.expect("fits");
    let view = PacketView::parse(&packet).expect("valid");
    let _ = server.handle_packet(Instant::now(), &packet, &view);
    while let Some(answer) = server.poll_packet() {
        let view = PacketView::parse(&answer).expect("answers are valid packets");
        let payload = view.udp_payload(&answer).expect("UDP");
        assert_eq!(payload[..2], message[..2], "the identifier comes back");
        assert!(payload[2] & 0x80 != 0, "an answer is a response");
        assert!(payload.len() <= 1232);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn noise_as_query_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..100)) {
        udp(&mut server(), &noise);
    }

    #[test]
    fn mutated_queries_do_no_harm(edits in edits(), cut in 0..60usize) {
        let mut server = server();
        udp(&mut server, &mutated(query("a.b.corp", Rtype::PTR), &edits));
        let mut message = mutated(query_edns("1.2.3.4.in-addr.arpa", Rtype::PTR, 1232, true), &edits);
        udp(&mut server, &message);
        message.truncate(cut);
        udp(&mut server, &message);
    }

    #[test]
    fn mutated_responses_do_no_harm_and_are_answered_with_the_right_identifier(edits in edits(), cut in any::<prop::sample::Index>(), is_negative in any::<bool>()) {
        let mut forwarder = Forwarder::new([2; 32]);
        forwarder.set_upstreams(vec!["192.0.2.1:53".parse().expect("valid")]);
        let now = Instant::now();
        let asked = query("example.com", Rtype::A);
        let parsed = Query::parse(&asked).expect("valid");
        forwarder.forward(now, &parsed, Transport::Udp, ());
        let sent = forwarder.poll_upstream_query().expect("asked");
        let honest = if is_negative {
            negative(&sent.message, domain::base::iana::Rcode::NXDOMAIN, 60)
        } else {
            addresses(&sent.message, 60, &[Ipv4Addr::LOCALHOST; 3])
        };
        let mut response = mutated(honest, &edits);
        let _ = forwarder.handle_response(now, sent.id, Ok(&response[..cut.index(response.len())]));
        let _ = forwarder.handle_response(now, sent.id, Ok(&response));
        // Whatever was kept must also come out again unharmed.
        forwarder.forward(now, &parsed, Transport::Udp, ());
        response.clear();
        while let Some(answer) = forwarder.poll_answer() {
            prop_assert_eq!(&answer.message[..2], &asked[..2]);
            prop_assert!(answer.message.len() <= 512);
        }
    }

    #[test]
    fn noise_as_tcp_does_no_harm(segments in prop::collection::vec((prop::collection::vec(any::<u8>(), 20..80), 0..64u8), 1..20)) {
        let now = Instant::now();
        let mut listener = Listener::new(now, &["100.100.0.53".parse().expect("valid")], [4; 32]);
        for (mut segment, flags) in segments {
            segment[2..4].copy_from_slice(&53u16.to_be_bytes());
            (segment[12], segment[13]) = (0x50, flags);
            let carrier = build::udp("100.64.0.2:0".parse().expect("valid"), "100.100.0.53:53".parse().expect("valid"), &segment[8..]);
            let mut packet = carrier.expect("fits");
            packet[20..].copy_from_slice(&segment);
            packet[9] = 6;
            let sum = adit_packet::checksum::Sum::new();
            packet[10..12].fill(0);
            let header = sum.bytes(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&header.to_be_bytes());
            packet[36..38].fill(0);
            let (source, destination) = ("100.64.0.2".parse().expect("valid"), "100.100.0.53".parse().expect("valid"));
            let transport = sum.pseudo_header(source, destination, 6, segment.len() as u32).bytes(&packet[20..]).checksum();
            packet[36..38].copy_from_slice(&transport.to_be_bytes());
            let view = PacketView::parse(&packet).expect("valid");
            let _ = listener.handle_packet(now, &packet, &view);
            while listener.poll_packet().is_some() {}
        }
        prop_assert!(listener.connections() <= 64);
    }
}
