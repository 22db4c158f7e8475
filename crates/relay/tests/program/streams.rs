//! Clients on TCP and TLS connections.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use adit_turn::Family;
use adit_turn::stun::Method;

use crate::certificate::{Files, NAME};
use crate::driver::{LIMIT, Program};
use crate::requester::{Requester, code, connect, tls};

fn peer() -> (UdpSocket, SocketAddr) {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
    peer.set_read_timeout(Some(LIMIT)).expect("sets");
    let address = peer.local_addr().expect("address");
    (peer, address)
}

/// A relay with TLS, the certificate's files, and what its clients trust.
fn with_tls(more: &[&str]) -> (Program, Files, std::sync::Arc<rustls::ClientConfig>) {
    let files = Files::new();
    let trust = files.renew();
    let (chain, key) = (files.chain(), files.key());
    let mut arguments =
        vec!["--tls-certificate", chain.to_str().expect("UTF-8"), "--tls-key", key.to_str().expect("UTF-8")];
    arguments.extend(more);
    (Program::alone_with_tls(&arguments), files, trust)
}

/// Allocates, binds a channel, and moves data of several sizes both ways.
fn converse(client: &mut Requester) {
    let relayed = client.allocate();
    let (peer, address) = peer();
    assert_eq!(client.bind(0x4001, address), 0);
    let mut buffer = [0; 65_536];
    for size in [0, 1, 2, 3, 4, 1200, 1401, 16_000] {
        let data: Vec<u8> = (0..size).map(|index| index as u8).collect();
        client.send_data(0x4001, &data);
        let (length, from) = peer.recv_from(&mut buffer).expect("arrives");
        assert_eq!((&buffer[..length], from), (&data[..], relayed));
        peer.send_to(&data, relayed).expect("sends");
        assert_eq!(client.receive_data(), (0x4001, data));
    }
    // A burst that fits into the peer's buffer arrives whole and in order.
    for number in 0..50_u8 {
        client.send_data(0x4001, &[number; 999]);
    }
    for number in 0..50_u8 {
        let (length, _) = peer.recv_from(&mut buffer).expect("arrives");
        assert_eq!((length, buffer[0], buffer[998]), (999, number, number));
    }
    for number in 0..50_u8 {
        peer.send_to(&[number; 999], relayed).expect("sends");
    }
    for number in 0..50_u8 {
        assert_eq!(client.receive_data(), (0x4001, vec![number; 999]));
    }
    assert_eq!(client.refresh(600), 0);
}

#[test]
fn data_goes_both_ways_over_tcp_and_tls() {
    let (program, _files, trust) = with_tls(&[]);
    for family in [Family::V4, Family::V6] {
        converse(&mut Requester::tcp(program.tcp_address(family)));
        converse(&mut Requester::tls(program.tls_address(family), NAME, &trust));
    }
    program.wait_metric("adit_relay_forwarded_packets_total{direction=\"to_peer\",path=\"tcp\"}", |count| {
        count == 116.0
    });
    program
        .wait_metric("adit_relay_forwarded_packets_total{direction=\"to_client\",path=\"tls\"}", |count| {
            count == 116.0
        });
    // Closing the connection ends the allocation.
    program.wait_metric("adit_relay_allocations", |count| count == 0.0);
    program.wait_metric("adit_relay_connections{transport=\"tls\"}", |count| count == 0.0);
}

#[test]
fn messages_may_come_in_pieces_and_together() {
    let program = Program::alone(&[]);
    let mut client = Requester::tcp(program.tcp_address(Family::V4));
    client.allocate();
    let (peer, address) = peer();
    assert_eq!(client.bind(0x4001, address), 0);
    let bytes = [
        client.data_message(0x4001, b"first"),
        client.data_message(0x4001, b""),
        client.data_message(0x4001, b"third"),
    ]
    .concat();
    for byte in &bytes {
        client.send(&[*byte]).expect("sends");
    }
    client.send(&bytes).expect("sends");
    let mut buffer = [0; 100];
    for expected in [&b"first"[..], b"", b"third", b"first", b"", b"third"] {
        let length = peer.recv(&mut buffer).expect("arrives");
        assert_eq!(&buffer[..length], expected);
    }
}

#[test]
fn what_is_not_turn_ends_the_connection() {
    let (program, _files, trust) = with_tls(&[]);
    let plain = program.tcp_address(Family::V4);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff",
        b"\x40\x00\xff\xff",
    ] {
        let mut client = Requester::tcp(plain);
        client.send(bytes).expect("sends");
        client.wait_closed();
    }
    let mut client = Requester::tls(program.tls_address(Family::V4), NAME, &trust);
    client.send(b"hello").expect("sends");
    client.wait_closed();
    // STUN where TLS is expected.
    let mut client = Requester::tcp(program.tls_address(Family::V4));
    let request = client.request(Method::BINDING).finish();
    client.send(&request).expect("sends");
    client.wait_closed();
    program.wait_metric("adit_relay_connections_ended_total{reason=\"framing\"}", |count| count == 5.0);
    program.wait_metric("adit_relay_connections_ended_total{reason=\"tls\"}", |count| count == 1.0);
    Requester::tcp(plain).allocate();
}

#[test]
fn connections_are_bounded_per_address_and_in_all() {
    let program =
        Program::alone(&["--max-connections-per-address", "3", "--max-connections", "5", "--shards", "2"]);
    let mut held: Vec<Requester> = (0..3).map(|_| Requester::tcp(program.tcp_address(Family::V4))).collect();
    for client in &mut held {
        client.allocate();
    }
    Requester::tcp(program.tcp_address(Family::V4)).wait_closed();
    let mut others: Vec<Requester> =
        (0..2).map(|_| Requester::tcp(program.tcp_address(Family::V6))).collect();
    for client in &mut others {
        let request = client.request(Method::BINDING).finish();
        assert_eq!(code(&client.exchange(&request)), 0);
    }
    Requester::tcp(program.tcp_address(Family::V6)).wait_closed();
    program.wait_metric("adit_relay_connections_refused_total{reason=\"too_many_from_address\"}", |count| {
        count == 1.0
    });
    program.wait_metric("adit_relay_connections_refused_total{reason=\"too_many\"}", |count| count == 1.0);
    // A place that is given up can be taken.
    drop(held.pop());
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut client = Requester::tcp(program.tcp_address(Family::V4));
        let request = client.request(Method::BINDING).finish();
        if client.send(&request).is_ok() && matches!(client.receive(), Ok(Some(_))) {
            break;
        }
        assert!(Instant::now() < deadline, "the place stays taken");
    }
}

#[test]
fn silent_clients_are_sent_away_and_those_with_an_allocation_are_not() {
    let (program, _files, trust) = with_tls(&["--connection-timeout", "1"]);
    let mut settled = Requester::tls(program.tls_address(Family::V4), NAME, &trust);
    settled.allocate();
    let mut silent = Requester::tcp(program.tcp_address(Family::V4));
    let mut half = connect(program.tls_address(Family::V4));
    half.write_all(b"\x16\x03\x01").expect("sends");
    let mut partial = Requester::tcp(program.tcp_address(Family::V4));
    partial.send(b"\x00\x03\x00").expect("sends");
    let start = Instant::now();
    silent.wait_closed();
    partial.wait_closed();
    Requester::over(half).wait_closed();
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(settled.refresh(600), 0);
    program.wait_metric("adit_relay_connections_ended_total{reason=\"idle\"}", |count| count == 2.0);
    program.wait_metric("adit_relay_connections_ended_total{reason=\"handshake_timeout\"}", |count| {
        count == 1.0
    });
    // Once the allocation is given back, it is an idle one too.
    assert_eq!(settled.refresh(0), 0);
    settled.wait_closed();
}

#[test]
fn data_for_a_client_that_does_not_read_is_dropped_and_nobody_else_notices() {
    let program = Program::alone(&["--shards", "1"]);
    let mut slow = Requester::tcp(program.tcp_address(Family::V4));
    let relayed = slow.allocate();
    let (peer, address) = peer();
    assert_eq!(slow.bind(0x4001, address), 0);
    let before = program.resident_bytes();
    let dropped = "adit_relay_send_failures_total{reason=\"connection_full\"}";
    let deadline = Instant::now() + LIMIT;
    while program.metric(dropped) == Some(0.0) {
        assert!(Instant::now() < deadline, "nothing is dropped");
        for _ in 0..2000 {
            let _ = peer.send_to(&[9; 1200], relayed);
        }
    }
    assert!(program.resident_bytes() < before + (8 << 20), "{} -> {}", before, program.resident_bytes());
    converse(&mut Requester::tcp(program.tcp_address(Family::V4)));
    // The connection lives: once it reads again, what is sent arrives.
    let marker = b"the end".to_vec();
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "the marker does not come");
        peer.send_to(&marker, relayed).expect("sends");
        if (0..2000).any(|_| slow.receive_data().1 == marker) {
            break;
        }
    }
    assert_eq!(slow.refresh(600), 0);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let program = Program::alone(&[]);
    let mut deaf = Requester::tcp(program.tcp_address(Family::V4));
    deaf.allocate();
    let deadline = Instant::now() + LIMIT;
    let refresh = deaf.request(Method::REFRESH);
    let refresh = deaf.sign(refresh);
    let many = refresh.repeat(200);
    while deaf.send(&many).is_ok() {
        assert!(Instant::now() < deadline, "the relay queues answers without end");
    }
    program.wait_metric("adit_relay_connections_ended_total{reason=\"overrun\"}", |count| count == 1.0);
    program.wait_metric("adit_relay_allocations", |count| count == 0.0);
}

#[test]
fn a_new_certificate_serves_new_connections_and_old_ones_go_on() {
    let (program, files, old_trust) = with_tls(&[]);
    let address = program.tls_address(Family::V4);
    let mut old = Requester::tls(address, NAME, &old_trust);
    old.allocate();
    std::fs::write(files.chain(), "damaged").expect("writes");
    program.signal(nix::sys::signal::Signal::SIGHUP);
    program.wait_metric("adit_relay_certificate_failures_total", |count| count == 1.0);
    drop(tls(address, NAME, &old_trust));
    let new_trust = files.renew();
    program.signal(nix::sys::signal::Signal::SIGHUP);
    let deadline = Instant::now() + LIMIT;
    // Whoever trusts the new one only gets in as soon as it is there.
    loop {
        let name = rustls::pki_types::ServerName::try_from(NAME).expect("a name");
        let mut connection =
            rustls::ClientConnection::new(std::sync::Arc::clone(&new_trust), name).expect("sound");
        let mut socket = connect(address);
        socket.set_read_timeout(Some(LIMIT)).expect("sets");
        if connection.complete_io(&mut socket).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "the new certificate does not come");
    }
    converse(&mut Requester::tls(address, NAME, &new_trust));
    assert_eq!(old.refresh(600), 0);
}
