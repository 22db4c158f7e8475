//! Every error code of the server, reached; the sections are those of RFC 8656 unless another one is named.

use crate::requester::{Bench, SECRET, UNIX_START, V6, address, config};
use adit_turn::credentials;
use adit_turn::server::{DropReason, Limits};
use adit_turn::stun::{AttributeKind, Class, Key, Method, TransactionId, Writer};
use std::time::Duration;

fn bench() -> Bench {
    Bench::new(config())
}

#[test]
fn error_400_malformed_requests() {
    let mut bench = bench();
    let request = bench.request(Method::ALLOCATE).finish();
    assert_eq!(bench.exchange(&request).unwrap().code(), 400, "no transport, no credentials");
    // Integrity without what is needed to check it.
    let request = bench.allocate_request().integrity(&Key::short_term("x")).finish();
    let answer = bench.exchange(&request).unwrap();
    assert_eq!((answer.code(), answer.message().has_integrity()), (400, false));
    let request = bench.request(Method::ALLOCATE);
    assert_eq!(bench.ask(request).code(), 400, "no transport");
    let both = bench
        .allocate_request()
        .number(AttributeKind::REQUESTED_ADDRESS_FAMILY, V6)
        .number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
    assert_eq!(bench.ask(both).code(), 400);
    let second_v4 = bench.allocate_request().number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, 1 << 24);
    assert_eq!(bench.ask(second_v4).code(), 400);
    for (kind, value) in [
        (AttributeKind::LIFETIME, &[0, 0][..]),
        (AttributeKind::EVEN_PORT, &[0, 0]),
        (AttributeKind::REQUESTED_ADDRESS_FAMILY, &[1]),
        (AttributeKind::ADDITIONAL_ADDRESS_FAMILY, &[3, 0, 0, 0]),
    ] {
        let request = bench.allocate_request().attribute(kind, value);
        assert_eq!(bench.ask(request).code(), 400, "{kind:?}");
    }
    // Section 7.2, points 5 and 8.
    for (first, value) in
        [(AttributeKind::RESERVATION_TOKEN, &[7; 8][..]), (AttributeKind::EVEN_PORT, &[0x80])]
    {
        let request = bench.allocate_request().attribute(first, value);
        let request = request.number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
        assert_eq!(bench.ask(request).code(), 400, "{first:?}");
    }
    bench.allocate();
    let request = bench.request(Method::REFRESH).attribute(AttributeKind::LIFETIME, &[0]);
    assert_eq!(bench.ask(request).code(), 400);
    let request = bench.request(Method::CREATE_PERMISSION);
    assert_eq!(bench.ask(request).code(), 400, "no peer");
    let request = bench.request(Method::CREATE_PERMISSION);
    let garbled = request.attribute(AttributeKind::XOR_PEER_ADDRESS, &[0, 1, 2]);
    assert_eq!(bench.ask(garbled).code(), 400);
    assert_eq!(bench.bind(0x3fff, "198.51.100.1:1"), 400);
    assert_eq!(bench.bind(0x5000, "198.51.100.1:1"), 400);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0, "again is a refresh");
    assert_eq!(bench.bind(0x4000, "198.51.100.1:2"), 400, "number is taken");
    assert_eq!(bench.bind(0x4001, "198.51.100.1:1"), 400, "peer is taken");
    assert_eq!(bench.bind(0x4001, "198.51.100.1:2"), 0);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:2"), 400, "both are taken, crosswise");
}

#[test]
fn error_400_tampered_algorithms() {
    let algorithm = |number| [0, number, 0, 0];
    let attempts = [
        (Some(algorithm(1)), Some(algorithm(1)), true),
        (Some(algorithm(2)), None, true),
        (None, Some(algorithm(2)), true),
        (Some(algorithm(2)), Some(algorithm(1)), true),
        (Some(algorithm(2)), Some(algorithm(2)), false),
    ];
    for (offered, chosen, sha256) in attempts {
        let mut bench = bench();
        bench.learn_nonce();
        let mut writer = bench
            .allocate_request()
            .attribute(AttributeKind::USERNAME, bench.username.as_bytes())
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, &bench.nonce);
        if let Some(offered) = offered {
            writer = writer.attribute(AttributeKind::PASSWORD_ALGORITHMS, &offered);
        }
        if let Some(chosen) = chosen {
            writer = writer.attribute(AttributeKind::PASSWORD_ALGORITHM, &chosen);
        }
        let key = Key::long_term_sha256(&bench.username, "adit", &bench.password);
        let writer = if sha256 { writer.integrity_sha256(&key) } else { writer.integrity(&key) };
        let answer = bench.exchange(&writer.finish()).unwrap();
        assert_eq!(answer.code(), 400, "{offered:?} {chosen:?} {sha256}");
    }
}

#[test]
fn both_kinds_of_integrity_are_accepted() {
    for sha256 in [false, true] {
        let mut bench = bench();
        bench.sha256 = sha256;
        assert_eq!(bench.allocate().len(), 2);
    }
}

#[test]
fn error_401_wrong_credentials() {
    let mut bench = bench();
    bench.password = "wrong".into();
    let request = bench.allocate_request();
    let answer = bench.ask(request);
    assert_eq!(answer.code(), 401);
    assert!(answer.message().find(AttributeKind::NONCE).is_some());
    assert_eq!(answer.message().text(AttributeKind::REALM), Some("adit"));
    for name in ["nobody", "x:alice", "1700000000:alice", "1800000000:alice"] {
        bench.username = name.into();
        bench.password = credentials::password(SECRET, name);
        let request = bench.allocate_request();
        assert_eq!(bench.ask(request).code(), 401, "{name}");
    }
    bench.become_user("alice");
    let foreign = bench
        .allocate_request()
        .attribute(AttributeKind::USERNAME, bench.username.as_bytes())
        .attribute(AttributeKind::REALM, b"elsewhere")
        .attribute(AttributeKind::NONCE, &bench.nonce)
        .integrity(&Key::long_term_md5(&bench.username, "elsewhere", &bench.password))
        .finish();
    assert_eq!(bench.exchange(&foreign).unwrap().code(), 401);
}

#[test]
fn error_403_forbidden_peers() {
    let mut bench = bench();
    bench.allocate();
    let peers = ["127.0.0.1:80", "169.254.169.254:80", "10.0.0.1:1", "[::1]:1", "[::ffff:7f00:1]:1"];
    for peer in peers {
        assert_eq!(bench.permit(peer), 403, "{peer}");
        assert_eq!(bench.bind(0x4000, peer), 403, "{peer}");
    }
    assert_eq!(bench.bind(0x4000, "192.0.2.10:3478"), 403, "the relay's own listener");
    let two = bench
        .request(Method::CREATE_PERMISSION)
        .xor_address(AttributeKind::XOR_PEER_ADDRESS, address("198.51.100.1:1"))
        .xor_address(AttributeKind::XOR_PEER_ADDRESS, address("127.0.0.1:1"));
    assert_eq!(bench.ask(two).code(), 403);
    assert_eq!(bench.server.permissions(), 0, "all or none");
}

/// Section 21.4: clients behind 6to4 and Teredo must not be accepted.
#[test]
fn error_403_tunnelled_clients() {
    for client in ["[2002:808:808::1]:4000", "[2001:0:1::1]:4000"] {
        let mut bench = bench();
        bench.client = address(client);
        let request = bench.allocate_request();
        assert_eq!(bench.ask(request).code(), 403, "{client}");
        assert_eq!(bench.server.allocations(), 0);
    }
}

#[test]
fn error_420_unknown_attributes() {
    let mut bench = bench();
    let request = bench.request(Method::BINDING).attribute(AttributeKind(0x0003), &[0; 4]).finish();
    let answer = bench.exchange(&request).unwrap();
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().find(AttributeKind::UNKNOWN_ATTRIBUTES), Some(&[0, 3][..]));
    for kind in [AttributeKind::DONT_FRAGMENT, AttributeKind::USERHASH] {
        let request = bench.allocate_request().attribute(kind, &[]);
        let answer = bench.ask(request);
        assert_eq!(answer.code(), 420);
        let unknown = answer.message().find(AttributeKind::UNKNOWN_ATTRIBUTES).map(<[u8]>::to_vec);
        assert_eq!(unknown, Some(kind.0.to_be_bytes().to_vec()));
    }
    // RFC 8489, section 6.3.1: all of them must be listed.
    let many = (0..40).fold(bench.request(Method::BINDING), |writer, kind| {
        writer.attribute(AttributeKind(0x7000 + kind), &[])
    });
    let answer = bench.exchange(&many.finish()).unwrap();
    let listed: Vec<u8> = (0..40).flat_map(|kind| (0x7000_u16 + kind).to_be_bytes()).collect();
    assert_eq!(answer.message().find(AttributeKind::UNKNOWN_ATTRIBUTES), Some(&listed[..]));
    // RFC 8489, section 6.3: known where they mean nothing, or optional, they must be ignored.
    let odd = bench.request(Method::BINDING).attribute(AttributeKind::LIFETIME, &[]).finish();
    assert_eq!(bench.exchange(&odd).unwrap().code(), 0);
    let optional = bench.allocate_request().attribute(AttributeKind(0x8765), b"whatever");
    assert_eq!(bench.ask(optional).code(), 0, "optional ones are ignored");
}

/// Sections 7.2 and 11.2: DONT-FRAGMENT is unknown to who cannot set the DF bit.
#[test]
fn dont_fragment_is_known_where_it_can_be_obeyed() {
    for dont_fragment in [false, true] {
        let mut bench = Bench::new(adit_turn::server::Config { dont_fragment, ..config() });
        let request = bench.allocate_request().attribute(AttributeKind::DONT_FRAGMENT, &[]);
        assert_eq!(bench.ask(request).code(), if dont_fragment { 0 } else { 420 });
        let mut bench = Bench::new(adit_turn::server::Config { dont_fragment, ..config() });
        bench.allocate();
        assert_eq!(bench.permit("198.51.100.1:1"), 0);
        let indication = Writer::new(Method::SEND, Class::Indication, TransactionId([1; 12]))
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, address("198.51.100.1:1"))
            .attribute(AttributeKind::DONT_FRAGMENT, &[])
            .attribute(AttributeKind::DATA, b"x")
            .finish();
        let sent = bench.server.handle_client(bench.now, bench.client(), &indication);
        assert_eq!(sent.is_some(), dont_fragment);
    }
}

/// RFC 8489, section 6.3.2: an indication that is not understood is discarded; section 11.2: so is one
/// without peer or data.
#[test]
fn indications_that_are_not_understood_are_dropped() {
    let mut bench = bench();
    bench.allocate();
    assert_eq!(bench.permit("198.51.100.1:1"), 0);
    let send = || {
        Writer::new(Method::SEND, Class::Indication, TransactionId([1; 12]))
            .xor_address(AttributeKind::XOR_PEER_ADDRESS, address("198.51.100.1:1"))
    };
    let strange = send().attribute(AttributeKind::DATA, b"x").attribute(AttributeKind(0x7000), &[]).finish();
    let without_data = send().finish();
    let without_peer = Writer::new(Method::SEND, Class::Indication, TransactionId([1; 12]));
    let without_peer = without_peer.attribute(AttributeKind::DATA, b"x").finish();
    for indication in [strange, without_data, without_peer] {
        assert!(bench.exchange(&indication).is_none());
    }
    assert_eq!(bench.server.counters().dropped(DropReason::Unexpected), 3);
    let optional =
        send().attribute(AttributeKind::DATA, b"").attribute(AttributeKind::SOFTWARE, b"x").finish();
    let sent = bench.server.handle_client(bench.now, bench.client(), &optional).expect("sent");
    assert!(sent.range.is_empty(), "no data is data too");
}

#[test]
fn error_437_no_allocation_or_one_too_many() {
    let mut bench = bench();
    assert_eq!(bench.refresh(600).code(), 437);
    assert_eq!(bench.permit("198.51.100.1:1"), 437);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 437);
    bench.allocate();
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 437);
}

#[test]
fn error_438_stale_nonces() {
    let mut bench = bench();
    bench.learn_nonce();
    bench.client = address("203.0.113.5:4001");
    let request = bench.allocate_request();
    let answer = bench.ask(request);
    assert_eq!(answer.code(), 438, "made for another port");
    bench.nonce = answer.message().find(AttributeKind::NONCE).unwrap().to_vec();
    bench.allocate();
    bench.now += Duration::from_secs(3601);
    assert_eq!(bench.refresh(600).code(), 438, "too old");
    bench.nonce = b"obMatJos2gAAAxxxxxxxxxxxxxxxx".to_vec();
    assert_eq!(bench.refresh(600).code(), 438, "made up");
}

#[test]
fn error_440_unserved_families() {
    let mut config = config();
    config.public_v6 = None;
    let mut bench = Bench::new(config);
    let request = bench.allocate_request().number(AttributeKind::REQUESTED_ADDRESS_FAMILY, V6);
    assert_eq!(bench.ask(request).code(), 440);
    let request = bench.allocate_request().number(AttributeKind::REQUESTED_ADDRESS_FAMILY, 3 << 24);
    assert_eq!(bench.ask(request).code(), 440);
    // Half of a dual allocation is better than none, with the reason for the other half.
    let request = bench.allocate_request().number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
    let answer = bench.ask(request);
    assert_eq!(answer.code(), 0);
    let reason = answer.message().find(AttributeKind::ADDRESS_ERROR_CODE).map(<[u8]>::to_vec);
    assert_eq!(reason, Some(vec![2, 0, 4, 40]));
    let mut config = crate::requester::config();
    (config.public_v4, config.public_v6) = (None, None);
    let mut bench = Bench::new(config);
    let request = bench.allocate_request().number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
    assert_eq!(bench.ask(request).code(), 440);
}

#[test]
fn error_441_somebody_elses_allocation() {
    let mut bench = bench();
    bench.allocate();
    bench.become_user("mallory");
    assert_eq!(bench.refresh(0).code(), 441);
    assert_eq!(bench.permit("198.51.100.1:1"), 441);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 441);
    assert_eq!(bench.server.allocations(), 1);
    // Renewed credentials of the same user are the same user.
    bench.username = credentials::username(UNIX_START + 500, "alice");
    bench.password = credentials::password(SECRET, &bench.username);
    let answer = bench.refresh(3600);
    assert_eq!(answer.message().number(AttributeKind::LIFETIME), Some(500), "no longer than they last");
}

#[test]
fn error_442_only_udp() {
    let mut bench = bench();
    let request = bench.request(Method::ALLOCATE).number(AttributeKind::REQUESTED_TRANSPORT, 6 << 24);
    assert_eq!(bench.ask(request).code(), 442);
}

#[test]
fn error_443_peer_of_the_wrong_family() {
    let mut bench = bench();
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 0);
    assert_eq!(bench.permit("[2606:4700::1]:1"), 443);
    assert_eq!(bench.bind(0x4000, "[2606:4700::1]:1"), 443);
    for family in [V6, 3 << 24] {
        let request = bench.request(Method::REFRESH).number(AttributeKind::REQUESTED_ADDRESS_FAMILY, family);
        assert_eq!(bench.ask(request).code(), 443);
    }
}

#[test]
fn error_486_too_many_for_one_user() {
    let mut config = config();
    config.limits = Limits { allocations_per_user: 2, ..Limits::default() };
    let mut bench = Bench::new(config);
    let mut codes = Vec::new();
    for port in 1..=3 {
        bench.client = address(&format!("203.0.113.5:{port}"));
        bench.learn_nonce();
        let request = bench.allocate_request();
        codes.push(bench.ask(request).code());
    }
    assert_eq!(codes, [0, 0, 486]);
    bench.become_user("bob");
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 0, "others are not affected");
}

#[test]
fn error_508_no_capacity() {
    let limits = Limits { allocations: 1, ..Limits::default() };
    let mut bench = Bench::new(adit_turn::server::Config { limits, ..config() });
    bench.allocate();
    bench.client = address("203.0.113.5:4001");
    bench.learn_nonce();
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 508, "budget of allocations");

    let mut bench = Bench::new(adit_turn::server::Config { ports: 50_000..=50_001, ..config() });
    bench.unbindable = vec![50_000, 50_001];
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 508, "no port can be bound");
    assert_eq!((bench.server.allocations(), bench.server.poll_timeout()), (0, None));
    bench.unbindable.clear();
    bench.allocate();

    let limits = Limits { channels_per_allocation: 1, permissions_per_allocation: 2, ..Limits::default() };
    let mut bench = Bench::new(adit_turn::server::Config { limits, ..config() });
    bench.allocate();
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0);
    assert_eq!(bench.bind(0x4001, "198.51.100.1:2"), 508);
    assert_eq!(bench.bind(0x4000, "198.51.100.1:1"), 0, "refresh is fine");
    assert_eq!(bench.permit("198.51.100.2:1"), 0);
    assert_eq!(bench.permit("198.51.100.3:1"), 508);

    let mut bench = self::bench();
    let reserve = bench.allocate_request().attribute(AttributeKind::EVEN_PORT, &[0x80]);
    assert_eq!(bench.ask(reserve).code(), 508, "ports are never reserved");
    let token = bench.allocate_request().attribute(AttributeKind::RESERVATION_TOKEN, &[7; 8]);
    assert_eq!(bench.ask(token).code(), 508);
    bench.server.drain();
    let request = bench.allocate_request();
    assert_eq!(bench.ask(request).code(), 508, "draining");
}

#[test]
fn unknown_methods_and_stray_messages_are_dropped() {
    let mut bench = bench();
    let strays = [
        Writer::new(Method(0x00b), Class::Request, TransactionId([1; 12])),
        Writer::new(Method::BINDING, Class::Success, TransactionId([1; 12])),
        Writer::new(Method::ALLOCATE, Class::Error, TransactionId([1; 12])),
        Writer::new(Method::DATA, Class::Indication, TransactionId([1; 12])),
    ];
    for stray in strays {
        assert!(bench.exchange(&stray.finish()).is_none());
    }
    assert!(bench.exchange(b"not stun at all").is_none());
    let counters = bench.server.counters();
    assert_eq!(counters.dropped(DropReason::Unexpected), 4);
    assert_eq!(counters.dropped(DropReason::Garbage), 1);
}
