//! What the server promises beyond error codes: repetition, lifetimes, floods, data path.

use crate::requester::{Bench, UNIX_START, V6, address, config};
use adit_turn::server::{Client, DropReason, HEADROOM, RelayPort, Server, Socket, TAILROOM};
use adit_turn::stun::{AttributeKind, Class, Message, Method, TransactionId, Writer};
use adit_turn::{Family, channel_data};
use std::net::SocketAddr;
use std::time::Duration;

fn bench() -> Bench {
    Bench::new(config())
}

fn pass(bench: &mut Bench, duration: Duration) {
    bench.now += duration;
    bench.server.handle_timeout(bench.now);
    assert!(bench.collect().is_none());
}

pub(crate) fn relay_port(bench: &Bench, family: Family) -> RelayPort {
    let port = bench.bound.iter().find(|port| port.family == family);
    *port.expect("a bound port")
}

/// Has a peer send data to a relayed port; returns what goes to the client.
pub(crate) fn from_peer(
    bench: &mut Bench,
    port: RelayPort,
    peer: SocketAddr,
    data: &[u8],
) -> Option<Vec<u8>> {
    let mut buffer = [&[0xee; HEADROOM][..], data, &[0xee; TAILROOM]].concat();
    let range = HEADROOM..HEADROOM + data.len();
    let forward = bench.server.handle_peer(bench.now, port, peer, &mut buffer, range)?;
    assert_eq!((forward.source, forward.destination), (bench.client().socket(), bench.client));
    Some(buffer[forward.range].to_vec())
}

pub(crate) fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    Writer::new(Method::SEND, Class::Indication, TransactionId([3; 12]))
        .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
        .attribute(AttributeKind::DATA, data)
        .finish()
}

#[test]
fn a_repeated_allocate_gets_the_same_answer() {
    let mut bench = bench();
    bench.learn_nonce();
    let request = bench.allocate_request();
    let bytes = bench.sign(request);
    let first = bench.exchange(&bytes).unwrap();
    let second = bench.exchange(&bytes).unwrap();
    assert_eq!((first.code(), first.bytes), (0, second.bytes));
    assert_eq!((bench.server.allocations(), bench.bound.len()), (1, 1));
    // The same transaction id from another user is another matter.
    bench.become_user("mallory");
    let id = Message::parse(&bytes).expect("well formed").transaction().0;
    let request = Writer::new(Method::ALLOCATE, Class::Request, TransactionId(id))
        .number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24);
    assert_eq!(bench.ask(request).code(), 437);
}

#[test]
fn even_ports_are_given_on_request() {
    let mut bench = bench();
    for _ in 0..8 {
        let request = bench.allocate_request().attribute(AttributeKind::EVEN_PORT, &[0]);
        assert_eq!(bench.ask(request).code(), 0);
        assert!(relay_port(&bench, Family::V4).number.is_multiple_of(2));
        bench.refresh(0);
    }
}

#[test]
fn a_repeated_deletion_gets_the_same_answer() {
    let mut bench = bench();
    bench.allocate();
    let request = bench.request(Method::REFRESH).number(AttributeKind::LIFETIME, 0);
    let bytes = bench.sign(request);
    let first = bench.exchange(&bytes).unwrap();
    let second = bench.exchange(&bytes).unwrap();
    assert_eq!((first.code(), first.bytes), (0, second.bytes));
    assert_eq!((bench.server.allocations(), bench.bound.len()), (0, 0));
    bench.now += Duration::from_secs(41);
    assert_eq!(bench.exchange(&bytes).unwrap().code(), 437, "not for ever");
}

#[test]
fn lifetimes_stay_within_bounds() {
    let mut bench = bench();
    bench.allocate();
    for (wanted, granted) in [(1, 600), (600, 600), (1200, 1200), (u32::MAX, 3600)] {
        let answer = bench.refresh(wanted);
        assert_eq!(answer.message().number(AttributeKind::LIFETIME), Some(granted));
    }
    pass(&mut bench, Duration::from_secs(3599));
    assert_eq!(bench.server.allocations(), 1);
    pass(&mut bench, Duration::from_secs(2));
    assert_eq!((bench.server.allocations(), bench.bound.len()), (0, 0));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn one_family_of_a_dual_allocation_can_be_given_back() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!(bench.bind(0x4001, "[2606:4700::1]:1"), 0);
    let request = bench
        .request(Method::REFRESH)
        .number(AttributeKind::LIFETIME, 0)
        .number(AttributeKind::REQUESTED_ADDRESS_FAMILY, V6);
    assert_eq!(bench.ask(request).code(), 0);
    assert_eq!((bench.server.allocations(), bench.server.channels()), (1, 1));
    assert!(bench.bound.iter().all(|port| port.family == Family::V4));
    assert_eq!(bench.bind(0x4001, "[2606:4700::1]:1"), 443);
}

#[test]
fn channels_forward_in_both_directions() {
    let mut bench = bench();
    bench.allocate();
    let peer = address("198.51.100.1:9");
    assert_eq!(bench.bind(0x4abc, "198.51.100.1:9"), 0);
    let port = relay_port(&bench, Family::V4);
    for datagram in [&b"\x4a\xbc\x00\x03abc"[..], b"\x4a\xbc\x00\x03abc\0"] {
        let forward = bench.server.handle_client(bench.now, bench.client(), datagram).unwrap();
        assert_eq!((forward.source, forward.destination), (Socket::Relay(port), peer));
        assert_eq!(&datagram[forward.range], b"abc");
    }
    assert_eq!(from_peer(&mut bench, port, peer, b"xyz").unwrap(), b"\x4a\xbc\x00\x03xyz");
    assert_eq!(from_peer(&mut bench, port, peer, b"").unwrap(), b"\x4a\xbc\x00\x00");
    let counters = bench.server.counters();
    assert_eq!((counters.to_peers, counters.to_clients), ((2, 6), (2, 3)));
}

#[test]
fn old_channel_numbers_work_where_they_are_allowed() {
    for code in [400, 0] {
        let mut bench = bench();
        if code == 0 {
            bench.server.accept_old_channel_numbers();
        }
        bench.allocate();
        assert_eq!(bench.bind(0x7ffe, "198.51.100.1:9"), code);
        let forward = bench.server.handle_client(bench.now, bench.client(), b"\x7f\xfe\x00\x01x");
        assert_eq!(forward.is_some(), code == 0);
        assert_eq!(bench.bind(0x8000, "198.51.100.1:9"), 400);
    }
}

#[test]
fn peers_without_channel_arrive_as_data_indications() {
    let mut bench = bench();
    bench.allocate();
    for (peer, family) in [("198.51.100.1:9", Family::V4), ("[2606:4700::1]:9", Family::V6)] {
        assert_eq!(bench.permit(peer), 0);
        let (peer, port) = (address(peer), relay_port(&bench, family));
        for data in [&b""[..], b"a", b"ab", b"abc", b"abcd"] {
            let bytes = from_peer(&mut bench, port, peer, data).unwrap();
            let message = Message::parse(&bytes).expect("well formed");
            assert_eq!((message.method(), message.class()), (Method::DATA, Class::Indication));
            assert_eq!(message.xor_address(AttributeKind::XOR_PEER_ADDRESS), Some(peer));
            assert_eq!(message.find(AttributeKind::DATA), Some(data));
        }
        let indication = send_indication(peer, b"hello");
        let forward = bench.server.handle_client(bench.now, bench.client(), &indication).unwrap();
        assert_eq!((forward.source, forward.destination), (Socket::Relay(port), peer));
        assert_eq!(&indication[forward.range], b"hello");
    }
}

#[test]
fn data_without_permission_goes_nowhere() {
    let mut bench = bench();
    bench.allocate();
    let (peer, stranger) = (address("198.51.100.1:9"), address("198.51.100.2:9"));
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let port = relay_port(&bench, Family::V4);
    let client = bench.client();
    let now = bench.now;
    assert_eq!(from_peer(&mut bench, port, stranger, b"x"), None);
    assert_eq!(bench.server.handle_client(now, client, &send_indication(stranger, b"x")), None);
    assert_eq!(bench.server.handle_client(now, client, b"\x40\x01\x00\x01x"), None);
    let elsewhere = address("203.0.113.6:4000");
    assert_eq!(
        bench.server.handle_client(now, Client::udp(elsewhere), b"\x40\x00\x00\x01x"),
        None,
        "not its owner"
    );
    assert_eq!(bench.server.handle_client(now, Client::udp(elsewhere), &send_indication(peer, b"x")), None);
    let unused = RelayPort { family: Family::V4, number: port.number ^ 1 };
    assert_eq!(from_peer(&mut bench, unused, peer, b"x"), None);
    let counters = bench.server.counters();
    assert_eq!(counters.dropped(DropReason::NoPermission), 3);
    assert_eq!(counters.dropped(DropReason::UnknownChannel), 2);
    assert_eq!(counters.dropped(DropReason::UnknownPort), 1);
}

#[test]
fn permissions_and_channels_expire_on_their_own() {
    let mut bench = bench();
    bench.allocate();
    let peer = address("198.51.100.1:9");
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let port = relay_port(&bench, Family::V4);
    pass(&mut bench, Duration::from_secs(299));
    assert!(from_peer(&mut bench, port, peer, b"x").is_some());
    pass(&mut bench, Duration::from_secs(2));
    assert_eq!(from_peer(&mut bench, port, peer, b"x"), None, "permission is over");
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    assert_eq!(from_peer(&mut bench, port, peer, b"x").unwrap()[..2], [0x40, 0x00]);
    bench.refresh(3600);
    pass(&mut bench, Duration::from_secs(290));
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    pass(&mut bench, Duration::from_secs(10));
    assert_eq!(bench.server.channels(), 0);
    let indication = from_peer(&mut bench, port, peer, b"x").unwrap();
    assert!(!channel_data::looks_like(&indication), "the channel is over");
}

#[test]
fn a_buffer_without_headroom_is_refused() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.permit("198.51.100.1:9"), 0);
    let port = relay_port(&bench, Family::V4);
    let peer = address("198.51.100.1:9");
    let mut buffer = [0; HEADROOM + 8];
    assert_eq!(bench.server.handle_peer(bench.now, port, peer, &mut buffer, 4..12), None);
    assert_eq!(bench.server.handle_peer(bench.now, port, peer, &mut buffer, HEADROOM..HEADROOM + 8), None);
    assert_eq!(bench.server.counters().dropped(DropReason::NoHeadroom), 2);
}

#[test]
fn replies_are_no_larger_than_the_nonce_makes_them() {
    let mut bench = bench();
    let allocate = bench.allocate_request().finish();
    let challenge = bench.exchange(&allocate).unwrap();
    assert!(challenge.bytes.len() <= 84, "{}", challenge.bytes.len());
    let bare = bench.request(Method::ALLOCATE).finish();
    assert!(bench.exchange(&bare).unwrap().bytes.len() <= 28);
    let binding = bench.request(Method::BINDING).finish();
    assert!(bench.exchange(&binding).unwrap().bytes.len() <= 32);
}

#[test]
fn bindings_are_answered_with_the_clients_address() {
    let mut bench = bench();
    for (client, fingerprint) in [("203.0.113.5:4000", true), ("[2606:4700::9]:5", false)] {
        bench.client = address(client);
        let writer = bench.request(Method::BINDING);
        let writer = if fingerprint { writer.fingerprint() } else { writer };
        let answer = bench.exchange(&writer.finish()).unwrap();
        let message = answer.message();
        assert_eq!(message.xor_address(AttributeKind::XOR_MAPPED_ADDRESS), Some(bench.client));
        assert_eq!(message.has_fingerprint(), fingerprint);
    }
}

#[test]
fn the_time_of_day_can_be_corrected() {
    let mut bench = bench();
    bench.server.set_unix_time(bench.now, Duration::from_secs(UNIX_START + 86_400));
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 401, "expired after all");
    bench.server.set_unix_time(bench.now, Duration::from_secs(UNIX_START));
    bench.allocate();
}

#[test]
fn the_next_deadline_is_found_at_once_whatever_the_load() {
    let mut config = config();
    config.ports = 10_000..=60_000;
    config.limits.allocations = 40_000;
    config.limits.allocations_per_user = 40_000;
    config.limits.unauthenticated_replies = u32::MAX;
    let mut bench = Bench::new(config);
    // The best of several, because the machine that runs this may be busy.
    let time = |server: &Server| {
        let once = |_| {
            let start = std::time::Instant::now();
            for _ in 0..2_000 {
                std::hint::black_box(server.poll_timeout());
            }
            start.elapsed()
        };
        (0..10).map(once).min().expect("ten runs")
    };
    bench.allocate();
    let one = time(&bench.server);
    for number in 0..2_000_u16 {
        bench.client = SocketAddr::new([11, 0, (number >> 8) as u8, number as u8].into(), 1);
        bench.nonce.clear();
        bench.allocate();
    }
    let many = time(&bench.server);
    assert!(many < one * 20, "{one:?} for one, {many:?} for 2,001");
}
