//! Stopping in order.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use adit_turn::Family;

use crate::driver::{LIMIT, Program};
use crate::requester::Requester;

#[test]
fn a_draining_relay_serves_whom_it_has_and_nobody_else() {
    let program = Program::alone(&["--drain-timeout", "60", "--shards", "2"]);
    let mut datagrams = Requester::udp(program.address(Family::V4));
    let mut stream = Requester::tcp(program.tcp_address(Family::V4));
    let relayed = [datagrams.allocate(), stream.allocate()];
    let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
    peer.set_read_timeout(Some(LIMIT)).expect("sets");
    let address = peer.local_addr().expect("address");
    program.terminate();
    program.wait_answer("/readyz", "HTTP/1.1 503", "draining");
    let mut late = Requester::udp(program.address(Family::V4));
    assert_eq!(late.try_allocate(), Err(508));
    let deadline = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(program.tcp_address(Family::V4)).is_ok() {
        assert!(Instant::now() < deadline, "the relay still listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whoever is here may even reach new peers.
    let mut buffer = [0; 100];
    for (client, relayed) in [&mut datagrams, &mut stream].into_iter().zip(relayed) {
        assert_eq!(client.refresh(600), 0);
        assert_eq!(client.bind(0x4001, address), 0);
        client.send_data(0x4001, b"still here");
        let (length, from) = peer.recv_from(&mut buffer).expect("arrives");
        assert_eq!((&buffer[..length], from), (&b"still here"[..], relayed));
        peer.send_to(b"me too", relayed).expect("sends");
        assert_eq!(client.receive_data(), (0x4001, b"me too".to_vec()));
    }
    let start = Instant::now();
    assert_eq!(datagrams.refresh(0), 0);
    drop(stream);
    let ended = program.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(ended.stdout.contains("no allocation is left"), "{}", ended.stdout);
}

#[test]
fn a_second_signal_stops_at_once() {
    let program = Program::alone(&["--drain-timeout", "60"]);
    let mut client = Requester::udp(program.address(Family::V4));
    client.allocate();
    program.terminate();
    program.wait_answer("/readyz", "HTTP/1.1 503", "draining");
    let start = Instant::now();
    program.terminate();
    let ended = program.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
