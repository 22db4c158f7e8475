//! What a security review will try, and what must come of it.

use crate::behaviour::{from_peer, relay_port, send_indication};
use crate::requester::{Answer, Bench, SECRET, UNIX_START, address, config};
use adit_turn::server::{Client, Command, Config, DropReason, EndReason, Event, Limits, Socket, StreamId};
use adit_turn::stun::{AttributeKind, Class, Key, Message, Method, TransactionId, Writer};
use adit_turn::{Family, channel_data, credentials};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Attack: bind or permit loopback, unspecified, mapped, translated, private, metadata and multicast
/// addresses, and the relay's own listener. Expected: 403, counted.
#[test]
fn forbidden_peers_are_refused_and_counted() {
    let mut bench = Bench::new(config());
    bench.allocate();
    let peers = [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "[::]:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:8.8.8.8]:80",
        "[64:ff9b::7f00:1]:80",
        "[64:ff9b:1::1]:80",
        "[2002:7f00:1::1]:80",
        "[2001::1]:80",
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
        "10.0.0.1:80",
        "172.16.0.1:80",
        "192.168.0.1:80",
        "[fe80::1]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[ff02::1]:80",
    ];
    for (number, peer) in peers.iter().enumerate() {
        assert_eq!((bench.permit(peer), bench.bind(0x4000, peer)), (403, 403), "{peer}");
        assert_eq!(bench.server.counters().responses(403), 2 * number as u64 + 2);
    }
    // A permission for the relay's own host is for its lent ports; no listener is among them.
    for own in ["192.0.2.10:3478", "[2001:db8::10]:3478", "192.0.2.10:0"] {
        assert_eq!(bench.bind(0x4000, own), 403, "{own}");
        assert_eq!(bench.permit(own), 0);
        let sent =
            bench.server.handle_client(bench.now, bench.client(), &send_indication(address(own), b"x"));
        assert_eq!(sent, None, "{own}");
    }
    assert_eq!(bench.server.counters().dropped(DropReason::Forbidden), 3);
    assert_eq!(bench.server.channels(), 0);
}

/// Attack: two allocations pointed at each other, ChannelData inside ChannelData. Expected: no loop. What
/// goes through the relay arrives at a client, and the relay's listener, where it could start again, is no
/// peer. (Between relays, the hop limit falls: that is the kernel's part.)
#[test]
fn allocations_pointed_at_each_other_make_no_loop() {
    let mut bench = Bench::new(config());
    let (alice, bob) = (bench.client, address("203.0.113.6:4000"));
    let at_alice = bench.allocate()[0];
    bench.client = bob;
    bench.nonce.clear();
    let at_bob = bench.allocate()[0];
    let [alice_port, bob_port] = [at_alice, at_bob]
        .map(|address| adit_turn::server::RelayPort { family: Family::V4, number: address.port() });
    assert_eq!(bench.bind(0x4000, &at_alice.to_string()), 0);
    bench.client = alice;
    bench.nonce.clear();
    assert_eq!(bench.bind(0x4000, &at_bob.to_string()), 0, "other clients of this relay are fine");
    let nested = [&b"\x40\x00\x00\x08"[..], b"\x40\x00\x00\x04abcd"].concat();
    let first = bench.server.handle_client(bench.now, bench.client(), &nested).expect("goes to Bob's port");
    assert_eq!((first.source, first.destination), (Socket::Relay(alice_port), at_bob));
    bench.client = bob;
    let inner = &nested[first.range];
    let second = from_peer(&mut bench, bob_port, at_alice, inner).expect("arrives at Bob, who is no peer");
    assert_eq!(second, nested, "and there it ends");
    bench.nonce.clear();
    assert_eq!(bench.bind(0x4001, "192.0.2.10:3478"), 403, "the way back in is closed");
}

/// A million requests from a hundred thousand made-up addresses.
fn flood(bench: &mut Bench, requests: &[Vec<u8>]) -> (usize, usize, usize) {
    let (mut received, mut sent, mut worst) = (0, 0, 0);
    for number in 0..1_000_000_u32 {
        let ip = Ipv4Addr::from(0x0b00_0000 + number % 100_000);
        let from = Client::udp(SocketAddr::new(ip.into(), number as u16));
        let request = &requests[number as usize % requests.len()];
        if number % 1000 == 0 {
            bench.now += Duration::from_millis(10);
        }
        bench.server.handle_client(bench.now, from, request);
        received += request.len();
        while let Some(command) = bench.server.poll_command() {
            let Command::Send { payload, .. } = command else { panic!("{command:?}") };
            sent += payload.len();
            worst = worst.max(payload.len() * 100 / request.len());
        }
    }
    (received, sent, worst)
}

/// Attack: a million spoofed Allocates, half of them with garbage for integrity. Expected: memory stays
/// where it was, no reply is more than three times its request, and a client is served as before.
#[test]
fn a_million_spoofed_requests_leave_no_trace() {
    let mut bench = Bench::new(config());
    let allocate = bench.allocate_request().finish();
    let garbage = |nonce: &[u8]| {
        Writer::new(Method::ALLOCATE, Class::Request, TransactionId([9; 12]))
            .number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24)
            .attribute(AttributeKind::USERNAME, b"1900000000:x")
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, nonce)
            .integrity(&Key::short_term("guess"))
            .finish()
    };
    let requests = [allocate, garbage(b"obMatJos2gAAAAAAAAAAAAAAAAAAA"), garbage(b"")];
    bench.server.handle_client(bench.now, bench.client(), &requests[0]);
    bench.server.poll_command();
    let mut totals = (0, 0, 0);
    let memory = allocation_counter::measure(|| totals = flood(&mut bench, &requests));
    assert!(memory.bytes_current <= 0, "grew by {} bytes", memory.bytes_current);
    let (received, sent, worst) = totals;
    assert!(sent < received * 3 && worst <= 300, "{sent} for {received}, at worst {worst} %");
    assert_eq!((bench.server.allocations(), bench.server.poll_timeout()), (0, None));
    bench.client = address("198.51.100.77:1");
    bench.allocate();
}

/// Attack: reflection by challenges, complaints and Binding. Expected: a cap per address prefix, and
/// replies of few bytes.
#[test]
fn reflected_replies_are_few_and_small() {
    let limits = Limits { unauthenticated_replies: 10, ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..config() });
    let methods =
        [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
    for method in methods {
        let bare = bench.request(method).finish();
        let answer = bench.exchange(&bare).expect("an answer");
        assert!(answer.bytes.len() <= 2 * bare.len(), "{method:?}: {}", answer.bytes.len());
        let unknown = AttributeKind(0x7f00);
        let odd = (0..50).fold(bench.request(method), |writer, _| writer.attribute(unknown, &[]));
        let odd = odd.number(AttributeKind::REQUESTED_TRANSPORT, 17 << 24).finish();
        assert!(bench.exchange(&odd).expect("an answer").bytes.len() <= odd.len(), "{method:?}");
    }
    let allocate = bench.allocate_request().finish();
    assert!(bench.exchange(&allocate).expect("a challenge").bytes.len() <= 3 * allocate.len());
    // Ten a second and a second's worth in reserve, whatever host of the prefix is named; others are free.
    let mut answers = 11;
    for host in 1..=255 {
        bench.client = SocketAddr::new([203, 0, 113, host].into(), 4000);
        answers += usize::from(bench.exchange(&allocate).is_some());
    }
    assert_eq!(answers, 20);
    assert_eq!(bench.server.counters().dropped(DropReason::OverBudget), 255 - 9);
    bench.client = address("203.0.114.1:4000");
    assert!(bench.exchange(&allocate).is_some());
}

/// Attack: one valid user takes allocations, channels and permissions until there are none. Expected: 486
/// and 508, and others are not affected.
#[test]
fn one_user_cannot_take_everything() {
    let limits = Limits { allocations_per_user: 3, grants_per_user: 5, grants: 1000, ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..config() });
    let mut codes = Vec::new();
    for port in 1..=4 {
        bench.client = address(&format!("203.0.113.5:{port}"));
        bench.learn_nonce();
        let request = bench.allocate_request();
        codes.push(bench.ask(request).code());
    }
    assert_eq!(codes, [0, 0, 0, 486]);
    // Two allocations together have no more channels and permissions than one.
    let mut bound = Vec::new();
    for (port, number) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
        bench.client = address(&format!("203.0.113.5:{port}"));
        bench.nonce.clear();
        bound.push(bench.bind(0x4000 + number, &format!("198.51.100.{}:{port}", number + 1)));
    }
    assert_eq!(bound, [0, 0, 0, 0, 0, 508]);
    assert_eq!(bench.permit("198.51.100.9:1"), 508);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:2"), 0, "what there is can be refreshed");
    bench.become_user("bob");
    bench.client = address("203.0.113.6:1");
    bench.nonce.clear();
    bench.allocate();
    assert_eq!((bench.bind(0x4000, "198.51.100.1:1"), bench.permit("198.51.100.9:1")), (0, 0));
}

/// Attack: one user floods. Expected: what is beyond its quota is dropped and counted, in the direction
/// where it is too much; another user's data passes.
#[test]
fn a_greedy_user_slows_down_nobody_else() {
    let limits = Limits { packets_per_second: Some(10), ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..config() });
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    let (peer, port) = (address("198.51.100.1:1"), relay_port(&bench, Family::V4));
    let send = |bench: &mut Bench| {
        let data = bench.server.handle_client(bench.now, bench.client(), b"\x40\x00\x00\x01x");
        let indication = send_indication(address("198.51.100.1:2"), b"x");
        let sent = bench.server.handle_client(bench.now, bench.client(), &indication);
        usize::from(data.is_some()) + usize::from(sent.is_some())
    };
    assert_eq!((0..50).map(|_| send(&mut bench)).sum::<usize>(), 10, "by both ways together");
    assert_eq!(bench.server.counters().dropped(DropReason::OverQuota), 90);
    assert!(from_peer(&mut bench, port, peer, b"x").is_some(), "the other direction");
    bench.now += Duration::from_millis(300);
    assert_eq!((0..50).map(|_| send(&mut bench)).sum::<usize>(), 3);
    // A new allocation brings nothing new.
    bench.refresh(0);
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!((0..50).map(|_| send(&mut bench)).sum::<usize>(), 0);
    bench.become_user("bob");
    bench.client = address("203.0.113.6:1");
    bench.nonce.clear();
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!(send(&mut bench), 2);
}

/// Attack: spoofed ChannelData. Expected: only the exact 5-tuple is believed, and misses are counted.
/// (Somebody who forges that too is believed over UDP, which is why there is TLS.)
#[test]
fn channel_data_counts_only_from_its_own_tuple() {
    let mut bench = Bench::new(config());
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    let datagram = b"\x40\x00\x00\x01x";
    let strangers = [
        Client::udp(address("203.0.113.5:4001")),
        Client::udp(address("203.0.113.4:4000")),
        Client::udp(address("[::ffff:203.0.113.5]:4000")),
        Client::stream(StreamId(0), bench.client),
    ];
    for stranger in strangers {
        assert_eq!(bench.server.handle_client(bench.now, stranger, datagram), None, "{stranger}");
    }
    assert_eq!(bench.server.counters().dropped(DropReason::UnknownChannel), 4);
    assert!(bench.server.handle_client(bench.now, bench.client(), datagram).is_some());
}

/// Attack: another user's credentials on a live 5-tuple. Expected: 441, and nothing happens.
#[test]
fn another_users_credentials_do_nothing_to_an_allocation() {
    let mut bench = Bench::new(config());
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    bench.become_user("mallory");
    assert_eq!(bench.refresh(0).code(), 441);
    assert_eq!((bench.permit("198.51.100.2:1"), bench.bind(0x4001, "198.51.100.2:1")), (441, 441));
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 437);
    assert_eq!((bench.server.allocations(), bench.server.channels(), bench.server.permissions()), (1, 1, 1));
}

/// Attack: requests recorded and sent again, later or from elsewhere. Expected: from elsewhere or after
/// an hour 438; from the same place what the first one got, even if its allocation is gone.
#[test]
fn replayed_requests_change_nothing() {
    let mut bench = Bench::new(config());
    bench.learn_nonce();
    let request = bench.allocate_request();
    let recorded = bench.sign(request);
    let first = bench.exchange(&recorded).expect("an answer");
    assert_eq!(first.code(), 0);
    let alice = bench.client;
    bench.client = address("203.0.113.66:4000");
    assert_eq!(bench.exchange(&recorded).expect("an answer").code(), 438, "another address");
    bench.client = alice;
    assert_eq!(bench.exchange(&recorded).expect("an answer").bytes, first.bytes);
    bench.refresh(0);
    assert_eq!(bench.exchange(&recorded).expect("an answer").bytes, first.bytes, "as the first one did");
    assert_eq!(bench.server.allocations(), 0, "but it makes nothing");
    bench.now += Duration::from_secs(3601);
    assert_eq!(bench.exchange(&recorded).expect("an answer").code(), 438, "too old");
}

/// Attack: a credential goes on being used after its end, or after the secrets behind it were replaced.
/// Expected: the allocation ends, and its routes with it.
#[test]
fn credentials_take_their_allocation_with_them() {
    let mut bench = Bench::new(Config { announce_routes: true, ..config() });
    bench.username = credentials::username(UNIX_START + 700, "alice");
    bench.password = credentials::password(SECRET, &bench.username);
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    bench.refresh(3600);
    assert_eq!(bench.routes.len(), 1);
    for _ in 0..3 {
        bench.now += Duration::from_secs(200);
        bench.server.handle_timeout(bench.now);
        assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    }
    bench.now += Duration::from_secs(101);
    bench.server.handle_timeout(bench.now);
    assert!(bench.collect().is_none());
    assert_eq!((bench.server.allocations(), bench.routes.len(), bench.bound.len()), (0, 0, 0));
    let datagram = b"\x40\x00\x00\x01x";
    assert_eq!(bench.server.handle_client(bench.now, bench.client(), datagram), None);

    let mut bench = Bench::new(Config { announce_routes: true, ..config() });
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    bench.server.rotate_secret(bench.now, b"second".to_vec());
    assert_eq!((bench.refresh(600).code(), bench.routes.len()), (0, 1), "the one before is still good");
    while bench.server.poll_event().is_some() {}
    bench.server.rotate_secret(bench.now, b"third".to_vec());
    assert!(bench.collect().is_none());
    assert_eq!((bench.server.allocations(), bench.routes.len()), (0, 0));
    let ended = Event::AllocationEnded { client: bench.client(), reason: EndReason::Revoked };
    assert_eq!(bench.server.poll_event(), Some(ended));
    // The secret before the first one is the first to go.
    let previous_secret = Some(b"zeroth".to_vec());
    let mut older = Bench::new(Config { previous_secret, ..config() });
    older.password = credentials::password(b"zeroth", &older.username);
    older.allocate();
    older.server.rotate_secret(older.now, b"second".to_vec());
    assert_eq!(older.server.allocations(), 0);
    // Who has renewed the credentials meanwhile, stays.
    bench.password = credentials::password(b"third", &bench.username);
    bench.allocate();
    bench.server.rotate_secret(bench.now, b"fourth".to_vec());
    bench.password = credentials::password(b"fourth", &bench.username);
    assert_eq!(bench.refresh(600).code(), 0);
    bench.server.rotate_secret(bench.now, b"fifth".to_vec());
    assert_eq!(bench.server.allocations(), 1);
}

/// Attack: guessing a code byte by byte. Expected: every wrong byte is as wrong as any other. That the
/// comparison takes the same time for all of them is the promise of `subtle`, whose `ct_eq` makes it.
#[test]
fn every_byte_of_a_code_counts() {
    for sha256 in [false, true] {
        let mut bench = Bench::new(config());
        bench.sha256 = sha256;
        bench.learn_nonce();
        let request = bench.allocate_request();
        let right = bench.sign(request);
        let length = if sha256 { 32 } else { 20 };
        for at in right.len() - length..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            assert_eq!(bench.exchange(&wrong).map(|answer| answer.code()), Some(401), "byte {at}");
        }
        assert_eq!(bench.exchange(&right).map(|answer| answer.code()), Some(0));
    }
}

/// Attack: ports that are taken, a clock that jumps, time that seems to run backwards. Expected: another
/// port or a 508, and the process stays up.
#[test]
fn odd_surroundings_are_survived() {
    let mut bench = Bench::new(config());
    bench.unbindable = (50_000..50_999).collect();
    let request = bench.allocate_request();
    assert!([0, 508].contains(&bench.ask(request).code()));
    bench.unbindable.clear();
    bench.client = address("203.0.113.6:4000");
    bench.nonce.clear();
    bench.allocate();
    for unix in [0, UNIX_START * 10, UNIX_START] {
        bench.server.set_unix_time(bench.now, Duration::from_secs(unix));
        let code = bench.refresh(600).code();
        assert_eq!(code, if unix > UNIX_START { 401 } else { 0 });
    }
    let later = bench.now;
    bench.now -= Duration::from_secs(5);
    bench.server.handle_timeout(bench.now);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    bench.now = later + Duration::from_secs(100_000_000);
    bench.server.handle_timeout(bench.now);
    assert!(bench.collect().is_none());
    assert_eq!((bench.server.allocations(), bench.server.poll_timeout()), (0, None));
}

/// What somebody can tell the relay without credentials and without an answer is counted by its reason.
#[test]
fn truncated_and_oversized_messages_are_dropped() {
    let mut bench = Bench::new(config());
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    let client = bench.client();
    let long = [&channel_data::header(0x4000, 4)[..], &[7; 8]].concat();
    let wrong: [&[u8]; 6] =
        [b"", b"\x40", b"\x40\x00\x00", b"\x40\x00\x00\x02x", &long, b"\x00\x01\x00\x04\x21\x12\xa4\x42"];
    for datagram in wrong {
        assert_eq!(bench.server.handle_client(bench.now, client, datagram), None);
    }
    assert_eq!(bench.server.counters().dropped(DropReason::Garbage), 6);
    let port = relay_port(&bench, Family::V4);
    let mut buffer = vec![0; 70_000];
    let peer = address("198.51.100.1:1");
    assert_eq!(bench.server.handle_peer(bench.now, port, peer, &mut buffer, 100..65_700), None);
    assert_eq!(bench.server.counters().dropped(DropReason::TooLong), 1);
}

/// The answers to requests that nobody signed are not signed either, so that nobody can be asked to sign
/// something on an attacker's behalf.
#[test]
fn strangers_get_nothing_signed() {
    let mut bench = Bench::new(config());
    let request = bench.allocate_request().finish();
    let unsigned = |answer: &Answer| !answer.message().has_integrity();
    assert!(bench.exchange(&request).is_some_and(|answer| unsigned(&answer)));
    bench.password = "wrong".into();
    let request = bench.allocate_request();
    let answer = bench.ask(request);
    assert!(answer.code() == 401 && unsigned(&answer));
    assert!(
        Message::parse(&answer.bytes).is_ok_and(|message| message.find(AttributeKind::USERNAME).is_none())
    );
}
