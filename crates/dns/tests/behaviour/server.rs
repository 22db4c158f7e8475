//! The whole resolver as an application and the engine see it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use adit_dns::{DropReason, Server, Settings, UpstreamFailure};
use adit_packet::{PacketView, TcpFlags, build, checksum};
use domain::base::iana::{Rcode, Rtype};

use crate::messages::{Seen, addresses, query, read};

const APPLICATION: &str = "100.64.0.2:40000";
const RESOLVER: &str = "100.100.0.53:53";

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn settings() -> Settings {
    Settings {
        ipv4: "100.100.0.53".parse().expect("an address"),
        ipv6: "fd00::53".parse().expect("an address"),
        ipv4_proxies: "100.96.0.0/11".parse().expect("a network"),
        ipv6_proxies: "fd00:ad17::/107".parse().expect("a network"),
    }
}

fn server() -> Server<&'static str> {
    let mut server = Server::new(Instant::now(), settings(), [1; 32]);
    server.set_resources(vec![
        ("**.corp".parse().expect("a pattern"), "everything"),
        ("wiki.corp".parse().expect("a pattern"), "wiki"),
    ]);
    server.set_upstreams(vec![socket("192.0.2.1:53")]);
    server
}

fn send(server: &mut Server<&'static str>, from: &str, to: &str, message: &[u8]) -> Result<(), DropReason> {
    let packet = build::udp(socket(from), socket(to), message).expect("fits");
    let view = PacketView::parse(&packet).expect("valid");
    server.handle_packet(Instant::now(), &packet, &view)
}

/// The one answer that goes back to the application.
fn answer(server: &mut Server<&'static str>, from: &str, to: &str) -> Seen {
    let packet = server.poll_packet().expect("an answer");
    assert_eq!(checksum::verify(&packet), Ok(()));
    let view = PacketView::parse(&packet).expect("valid");
    assert_eq!((view.source_socket(), view.destination_socket()), (Some(socket(to)), Some(socket(from))));
    assert!(server.poll_packet().is_none(), "one answer");
    read(view.udp_payload(&packet).expect("UDP"))
}

#[test]
fn a_resource_is_answered_here_over_both_families() {
    let mut server = server();
    for (from, to) in [(APPLICATION, RESOLVER), ("[fd00::2]:40000", "[fd00::53]:53")] {
        send(&mut server, from, to, &query("wiki.corp", Rtype::A)).expect("taken");
        assert_eq!(answer(&mut server, from, to).records.len(), 4);
        assert!(server.poll_upstream_query().is_none(), "nothing leaves the device");
    }
}

#[test]
fn the_owner_of_a_proxy_address_is_known_with_all_its_resources() {
    let mut server = server();
    send(&mut server, APPLICATION, RESOLVER, &query("wiki.corp", Rtype::A)).expect("taken");
    let records = answer(&mut server, APPLICATION, RESOLVER).records;
    let address: IpAddr = records[2].parse().expect("an address");
    assert!(server.is_proxy(address) && !server.is_resolver(address));
    let owner = server.owner(Instant::now(), address).expect("assigned");
    assert_eq!((owner.name.as_str(), owner.resources), ("wiki.corp", vec!["wiki", "everything"]));
    assert!(owner.assignment.addresses().any(|assigned| assigned == address));
    assert_eq!(server.owner(Instant::now(), "100.96.200.1".parse().expect("an address")), None);
}

#[test]
fn other_names_travel_upstream_and_back() {
    let mut server = server();
    let now = Instant::now();
    send(&mut server, APPLICATION, RESOLVER, &query("example.com", Rtype::A)).expect("taken");
    let sent = server.poll_upstream_query().expect("asked");
    assert_eq!(sent.server, socket("192.0.2.1:53"));
    assert!(server.poll_packet().is_none());
    assert!(server.poll_timeout().is_some());
    let response = addresses(&sent.message, 60, &[[192, 0, 2, 80].into()]);
    server.handle_response(now, sent.id, Ok(&response)).expect("believed");
    assert_eq!(answer(&mut server, APPLICATION, RESOLVER).records, ["192.0.2.80"]);
    assert_eq!(server.poll_timeout(), None);
}

#[test]
fn names_of_others_are_asked_of_them_alone() {
    let mut server = server();
    let now = Instant::now();
    let delegates = vec![socket("100.96.128.1:53"), socket("[fd00::1]:53")];
    server.set_delegations(vec![("**.two.example".parse().expect("a pattern"), delegates.clone())]);
    send(&mut server, APPLICATION, RESOLVER, &query("wiki.two.example", Rtype::A)).expect("taken");
    for delegate in &delegates {
        let sent = server.poll_upstream_query().expect("asked");
        assert_eq!(sent.server, *delegate);
        server.handle_response(now, sent.id, Err(UpstreamFailure::Unreachable)).expect("awaited");
    }
    assert!(server.poll_upstream_query().is_none(), "no upstream learns the name");
    assert_eq!(answer(&mut server, APPLICATION, RESOLVER).rcode, Rcode::SERVFAIL);
    // What is a resource here is answered here, and what nobody claimed goes upstream.
    server.set_delegations(vec![("**.corp".parse().expect("a pattern"), delegates)]);
    send(&mut server, APPLICATION, RESOLVER, &query("wiki.corp", Rtype::A)).expect("taken");
    assert_eq!(answer(&mut server, APPLICATION, RESOLVER).records.len(), 4);
    send(&mut server, APPLICATION, RESOLVER, &query("wiki.two.example", Rtype::A)).expect("taken");
    assert_eq!(server.poll_upstream_query().expect("asked").server, socket("192.0.2.1:53"));
}

#[test]
fn an_unreachable_upstream_is_a_prompt_servfail() {
    let mut server = server();
    send(&mut server, APPLICATION, RESOLVER, &query("example.com", Rtype::A)).expect("taken");
    let sent = server.poll_upstream_query().expect("asked");
    server.handle_response(Instant::now(), sent.id, Err(UpstreamFailure::Unreachable)).expect("awaited");
    assert_eq!(answer(&mut server, APPLICATION, RESOLVER).rcode, Rcode::SERVFAIL);
}

#[test]
fn what_is_not_for_the_resolver_is_dropped_and_counted() {
    let mut server = server();
    let message = query("wiki.corp", Rtype::A);
    let mut response = message.clone();
    response[2] |= 0x80;
    let cases = [
        (APPLICATION, "100.100.0.54:53", &message, DropReason::NotForResolver),
        (APPLICATION, "100.100.0.53:54", &message, DropReason::NotForResolver),
        (RESOLVER, RESOLVER, &message, DropReason::Source),
        ("100.64.0.2:0", RESOLVER, &message, DropReason::Source),
        (APPLICATION, RESOLVER, &response, DropReason::Response),
        (APPLICATION, RESOLVER, &vec![0; 5], DropReason::Short),
    ];
    for (from, to, message, reason) in cases {
        assert_eq!(send(&mut server, from, to, message), Err(reason), "{from} to {to}");
    }
    assert!(server.poll_packet().is_none());
    assert_eq!(server.drops().values().sum::<u64>(), 6);
    assert_eq!(server.drops()[&DropReason::NotForResolver], 2);
}

#[test]
fn fragments_are_dropped() {
    let mut server = server();
    let message = query("wiki.corp", Rtype::A);
    let mut packet = build::udp(socket(APPLICATION), socket(RESOLVER), &message).expect("fits");
    for field in [0x2000u16, 0x0010] {
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        let view = PacketView::parse(&packet).expect("valid");
        assert_eq!(server.handle_packet(Instant::now(), &packet, &view), Err(DropReason::Fragment));
    }
}

#[test]
fn a_new_place_keeps_the_names_and_new_ranges_start_over() {
    let mut server = server();
    send(&mut server, APPLICATION, RESOLVER, &query("wiki.corp", Rtype::A)).expect("taken");
    let before = answer(&mut server, APPLICATION, RESOLVER).records;
    let address: IpAddr = before[0].parse().expect("an address");
    let moved = Settings { ipv4: "100.100.0.54".parse().expect("an address"), ..settings() };
    server.configure(Instant::now(), moved.clone());
    assert!(server.owner(Instant::now(), address).is_some());
    send(&mut server, APPLICATION, "100.100.0.54:53", &query("wiki.corp", Rtype::A)).expect("taken");
    assert_eq!(answer(&mut server, APPLICATION, "100.100.0.54:53").records, before);
    let syn = [0x9c, 0x40, 0, 53, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    let packet = tcp_packet("100.100.0.54:53", &syn);
    let view = PacketView::parse(&packet).expect("valid");
    server.handle_packet(Instant::now(), &packet, &view).expect("taken");
    let reply = server.poll_packet().expect("a SYN-ACK from the new place");
    assert!(PacketView::parse(&reply).expect("valid").tcp_flags().contains(TcpFlags(0x12)));
    let elsewhere = Settings { ipv4_proxies: "10.9.0.0/16".parse().expect("a network"), ..moved };
    server.configure(Instant::now(), elsewhere);
    assert!(server.owner(Instant::now(), address).is_none());
    assert!(!server.is_proxy(address));
}

/// A bare-handed TCP client: enough to show that the server wires the stream side to the same resolver.
#[test]
fn a_query_over_tcp_reaches_the_same_resolver() {
    let mut server = server();
    let now = Instant::now();
    let mut exchange = |sequence: u32, acknowledgment: u32, flags: u8, payload: &[u8]| {
        let mut segment = vec![0x9c, 0x40, 0, 53];
        segment.extend_from_slice(&sequence.to_be_bytes());
        segment.extend_from_slice(&acknowledgment.to_be_bytes());
        segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        let packet = tcp_packet(RESOLVER, &segment);
        let view = PacketView::parse(&packet).expect("valid");
        server.handle_packet(now, &packet, &view).expect("taken");
        std::iter::from_fn(|| server.poll_packet()).collect::<Vec<_>>()
    };
    let syn_ack = exchange(1, 0, 0x02, &[]).remove(0);
    let theirs = u32::from_be_bytes(syn_ack[24..28].try_into().expect("four bytes")) + 1;
    exchange(2, theirs, 0x10, &[]);
    let message = query("wiki.corp", Rtype::A);
    let framed = [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
    let answers = exchange(2, theirs, 0x18, &framed);
    let data = answers.iter().map(|packet| &packet[40..]).find(|data| data.len() > 2).expect("data");
    assert_eq!(read(&data[2..]).records.len(), 4);
}

/// Puts a TCP segment into an IPv4 packet from the application, with all checksums.
fn tcp_packet(to: &str, segment: &[u8]) -> Vec<u8> {
    // A UDP packet of the same size brings the IP header; the protocol then changes, and both checksums with it.
    let mut packet = build::udp(socket(APPLICATION), socket(to), &segment[8..]).expect("fits");
    packet[20..].copy_from_slice(segment);
    packet[9] = 6;
    packet[10..12].fill(0);
    let header = checksum::Sum::new().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    let (source, destination) = (socket(APPLICATION).ip(), socket(to).ip());
    let sum = checksum::Sum::new().pseudo_header(source, destination, 6, segment.len() as u32).bytes(segment);
    packet[36..38].copy_from_slice(&sum.checksum().to_be_bytes());
    assert_eq!(checksum::verify(&packet), Ok(()));
    packet
}
