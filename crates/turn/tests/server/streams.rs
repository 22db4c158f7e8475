//! Clients that come over TCP or TLS.

use crate::behaviour::{from_peer, relay_port};
use crate::requester::{Bench, address, config};
use adit_turn::Family;
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use adit_turn::server::{Client, DropReason, EndReason, Event, Socket, StreamId, Transport};
use adit_turn::stun::{AttributeKind, Message, Method};

fn bench() -> Bench {
    let mut bench = Bench::new(config());
    bench.transport = Transport::Stream(StreamId(7));
    bench
}

#[test]
fn answers_and_data_go_back_on_the_connection() {
    let mut bench = bench();
    // The requester asserts that each answer names the connection as its way back.
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let (peer, port) = (address("198.51.100.1:9"), relay_port(&bench, Family::V4));
    let forward = bench.server.handle_client(bench.now, bench.client(), b"\x40\x00\x00\x03abc\0").unwrap();
    assert_eq!((forward.source, forward.destination), (Socket::Relay(port), peer));
    assert_eq!(forward.range, 4..7, "padding stays here");
}

/// RFC 8656, section 12.5: over TCP and TLS, ChannelData must be padded to a multiple of four bytes.
#[test]
fn channel_data_on_a_connection_is_padded() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.bind(0x4abc, "198.51.100.1:9"), 0);
    let (peer, port) = (address("198.51.100.1:9"), relay_port(&bench, Family::V4));
    let mut stream = Vec::new();
    for (data, message) in [
        (&b""[..], &b"\x4a\xbc\x00\x00"[..]),
        (b"a", b"\x4a\xbc\x00\x01a\0\0\0"),
        (b"abc", b"\x4a\xbc\x00\x03abc\0"),
        (b"abcd", b"\x4a\xbc\x00\x04abcd"),
    ] {
        assert_eq!(from_peer(&mut bench, port, peer, data).as_deref(), Some(message));
        stream.extend_from_slice(message);
    }
    assert_eq!(bench.permit("198.51.100.2:9"), 0);
    let indication = from_peer(&mut bench, port, address("198.51.100.2:9"), b"hello").unwrap();
    assert_eq!(Message::parse(&indication).expect("well formed").method(), Method::DATA);
    stream.extend_from_slice(&indication);
    // The client's splitter finds the same messages.
    let mut splitter = Splitter::new(LONGEST_MESSAGE);
    splitter.space()[..stream.len()].copy_from_slice(&stream);
    splitter.filled(stream.len());
    let mut lengths = Vec::new();
    while let Some(message) = splitter.next_message().expect("well formed") {
        lengths.push(message.len());
    }
    assert_eq!(lengths, [4, 8, 8, 8, indication.len()]);
}

#[test]
fn a_closed_connection_ends_its_allocation_and_no_other() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let first = bench.client();
    bench.transport = Transport::Udp;
    bench.nonce.clear();
    bench.allocate();
    assert_eq!(bench.server.allocations(), 2, "same address, another transport");
    while bench.server.poll_event().is_some() {}
    bench.server.handle_client_gone(bench.now, first);
    assert!(bench.collect().is_none());
    assert_eq!((bench.server.allocations(), bench.server.channels(), bench.bound.len()), (1, 0, 2));
    let ended = Event::AllocationEnded { client: first, reason: EndReason::Disconnected };
    assert_eq!(bench.server.poll_event(), Some(ended));
    bench.server.handle_client_gone(bench.now, first);
    assert_eq!(bench.server.poll_event(), None);
    assert_eq!(bench.refresh(600).code(), 0);
}

#[test]
fn a_connection_that_closes_while_ports_are_bound_leaves_nothing() {
    let mut bench = bench();
    bench.learn_nonce();
    let request = bench.allocate_request();
    let bytes = bench.sign(request);
    assert_eq!(bench.server.handle_client(bench.now, bench.client(), &bytes), None);
    bench.server.handle_client_gone(bench.now, bench.client());
    assert!(bench.collect().is_none(), "nobody is left to hear the answer");
    assert_eq!((bench.server.allocations(), bench.bound.len()), (0, 0));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn another_connection_of_the_same_address_is_another_client() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:9"), 0);
    let other = Client::stream(StreamId(8), bench.client);
    assert_eq!(bench.server.handle_client(bench.now, other, b"\x40\x00\x00\x04abcd"), None);
    assert_eq!(bench.server.counters().dropped(DropReason::UnknownChannel), 1);
    bench.transport = other.transport;
    assert_eq!(bench.refresh(600).code(), 437, "but its nonce is good");
    let request = bench.request(Method::BINDING).finish();
    let answer = bench.exchange(&request).unwrap();
    assert_eq!(answer.message().xor_address(AttributeKind::XOR_MAPPED_ADDRESS), Some(bench.client));
}
