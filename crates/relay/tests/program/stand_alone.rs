//! The program without a portal: relaying, draining, bad input.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::driver::{Driver, LIMIT, Program, SECRET, run};
use crate::requester::Requester;
use adit_turn::Family;
use adit_turn::client::{Event, FailureReason};
use adit_turn::stun::ErrorCode;

#[test]
fn data_goes_both_ways_over_both_families() {
    let program = Program::alone(&[]);
    let mut driver = Driver::new(&program, SECRET);
    driver.run_until_allocated();
    for (address, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6)] {
        let peer = UdpSocket::bind(address).expect("binds");
        peer.set_read_timeout(Some(LIMIT)).expect("sets");
        let peer_address = peer.local_addr().expect("address");
        let relayed = driver.relayed(family);
        let mut buffer = [0; 2048];

        // First by indication, then by channel.
        driver.client.permit(Instant::now(), peer_address.ip());
        driver.run_until("the permission", |driver| driver.client.is_permitted(peer_address.ip()));
        driver.send(peer_address, b"indication");
        let (length, from) = peer.recv_from(&mut buffer).expect("arrives");
        assert_eq!((&buffer[..length], from), (&b"indication"[..], relayed));

        driver.client.bind_channel(Instant::now(), peer_address);
        driver.run_until("the channel", |driver| driver.client.channel(peer_address).is_some());
        for size in [0, 1, 1200] {
            driver.send(peer_address, &vec![7; size]);
            let (length, from) = peer.recv_from(&mut buffer).expect("arrives");
            assert_eq!((length, from), (size, relayed));
            peer.send_to(&vec![8; size], relayed).expect("sends");
            driver.run_until("the answer", |driver| driver.received.len() == 1);
            assert_eq!(driver.received.pop(), Some((peer_address, vec![8; size])));
        }
    }
    let metrics = program.get("/metrics").expect("answers");
    assert!(metrics.contains("adit_relay_allocations"), "{metrics}");
}

#[test]
fn trains_of_datagrams_arrive_complete_and_in_order() {
    let program = Program::alone(&[]);
    let mut driver = Driver::new(&program, SECRET);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
    peer.set_read_timeout(Some(LIMIT)).expect("sets");
    let peer_address = peer.local_addr().expect("address");
    driver.client.bind_channel(Instant::now(), peer_address);
    driver.run_until("the channel", |driver| driver.client.channel(peer_address).is_some());
    let relayed = driver.relayed(Family::V4);
    let mut buffer = [0; 2048];
    for round in 0..5_u8 {
        for number in 0..50_u8 {
            driver.send(peer_address, &[&[round, number], &[0; 998][..]].concat());
        }
        for number in 0..50_u8 {
            peer.recv_from(&mut buffer).expect("arrives");
            assert_eq!(buffer[..2], [round, number]);
            peer.send_to(&buffer[..500], relayed).expect("sends");
        }
        driver.run_until("the echo", |driver| driver.received.len() == 50);
        for (number, (_, data)) in driver.received.drain(..).enumerate() {
            assert_eq!((data.len(), data[1]), (500, number as u8));
        }
    }
}

#[test]
fn wrong_credentials_and_forbidden_peers_are_refused() {
    let program = Program::alone(&[]);
    let mut stranger = Driver::new(&program, "another secret");
    let refused = Event::AllocationFailed { reason: FailureReason::Rejected(ErrorCode::UNAUTHENTICATED) };
    stranger.run_until("the refusal", |driver| driver.events.contains(&refused));
    let mut driver = Driver::new(&program, SECRET);
    for peer in ["10.0.0.1:80", "169.254.169.254:80", &format!("127.0.0.1:{}", program.port)] {
        let peer = peer.parse().expect("address");
        driver.client.bind_channel(Instant::now(), peer);
        driver.run_until("the refusal", |driver| driver.events.contains(&Event::ChannelFailed { peer }));
    }
}

#[test]
fn a_stop_signal_drains_and_ends_in_order() {
    let program = Program::alone(&["--drain-timeout", "20"]);
    let mut driver = Driver::new(&program, SECRET);
    driver.run_until_allocated();
    program.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(program.get("/readyz").expect("answers").starts_with("HTTP/1.1 503"));
    let mut late = Driver::new(&program, SECRET);
    let full = Event::AllocationFailed { reason: FailureReason::Rejected(ErrorCode::INSUFFICIENT_CAPACITY) };
    late.run_until("the refusal", |driver| driver.events.contains(&full));
    // The last allocation ends, and with it the program, long before the time is over.
    let start = Instant::now();
    driver.client.close(Instant::now());
    driver.run_until("the end", |driver| driver.client.poll_timeout().is_none());
    let ended = program.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn draining_ends_at_its_deadline() {
    let program = Program::alone(&["--drain-timeout", "1"]);
    let mut driver = Driver::new(&program, SECRET);
    driver.run_until_allocated();
    let start = Instant::now();
    program.terminate();
    let ended = program.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(ended.stdout.contains("the time to drain is over"), "{}", ended.stdout);
}

#[test]
fn garbage_does_no_harm() {
    let program = Program::alone(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let mut state = 1_u32;
    for round in 0..3000_usize {
        let mut datagram: Vec<u8> = (0..round % 1400)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        if round % 3 == 0 && datagram.len() >= 20 {
            datagram[..8].copy_from_slice(&[0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
            datagram.truncate(20 + datagram.len() / 4 * 4 - 20);
            let body = (datagram.len() - 20) as u16;
            datagram[2..4].copy_from_slice(&body.to_be_bytes());
        }
        socket.send_to(&datagram, program.address(Family::V4)).expect("sends");
    }
    Driver::new(&program, SECRET).run_until_allocated();
    assert!(program.get("/healthz").expect("answers").starts_with("HTTP/1.1 200"));
    program.terminate();
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn usage_errors_are_told_and_counted_as_such() {
    for (arguments, complaint) in [
        (&["--static-secret", "12345678"][..], "--public-ipv4"),
        (&["--public-ipv4", "127.0.0.1"], "--portal"),
        (&["--static-secret", "12345678", "--public-ipv4", "nonsense"], "nonsense"),
        (&["--static-secret", "short", "--public-ipv4", "127.0.0.1"], "guess"),
        (&["--portal", "ws://127.0.0.1:1", "--token", "t", "--public-ipv4", "127.0.0.1"], "not encrypted"),
        (&["--portal", "wss://p", "--public-ipv4", "127.0.0.1"], "token"),
        (&["--static-secret", "12345678", "--public-ipv4", "127.0.0.1", "--log-level", "loud!"], "loud!"),
    ] {
        let state = tempfile::tempdir().expect("temporary directory");
        let port = crate::driver::free_port().to_string();
        let state = state.path().join("state");
        let mut arguments = arguments.to_vec();
        arguments.extend(["--port", &port, "--min-port", "20000", "--max-port", "20010"]);
        arguments.extend(["--state-dir", state.to_str().expect("UTF-8")]);
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(complaint), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"));
    }
}

#[test]
fn credentials_under_the_secret_before_are_good_too() {
    let program = Program::alone(&["--previous-static-secret", "the secret before"]);
    for (secret, expected) in [(SECRET, true), ("the secret before", true), ("the secret before that", false)]
    {
        let mut client = Requester::udp(program.address(Family::V4));
        client.become_user("tester", secret);
        assert_eq!(client.try_allocate().is_ok(), expected, "{secret}");
    }
}

#[test]
fn readiness_says_why_not_and_follows_what_the_relay_can_do() {
    // A single port, which the probe needs for itself.
    let program = Program::alone(&["--min-port", "19999", "--max-port", "19999", "--shards", "1"]);
    let taken = ["127.0.0.1:19999", "[::1]:19999"].map(|address| UdpSocket::bind(address).expect("binds"));
    program.wait_answer("/readyz", "HTTP/1.1 503", "508");
    drop(taken);
    program.wait_answer("/readyz", "HTTP/1.1 200", "ready");
    assert!(program.get("/healthz").expect("answers").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_taken_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("address").port().to_string();
    let ended = run(&[
        "--static-secret",
        "12345678",
        "--public-ipv4",
        "127.0.0.1",
        "--port",
        &port,
        "--min-port",
        "20000",
        "--max-port",
        "20010",
    ]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("taken by another process"), "{}", ended.stderr);
}

#[test]
fn help_explains_every_flag_and_variable() {
    let ended = run(&["--help"]);
    assert_eq!(ended.code, Some(0));
    for flag in ["--portal", "--static-secret", "--allow-peer", "--drain-timeout", "--state-dir", "--health"]
    {
        assert!(ended.stdout.contains(flag), "{flag}");
    }
    assert!(ended.stdout.contains("ADIT_ALLOW_PEER") && ended.stdout.contains("Exit codes"));
}
