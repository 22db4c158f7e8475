//! Who is believed, and how answers are signed (RFC 8489, sections 6 and 9.2).

use crate::requester::{Bench, address, config};
use adit_turn::server::DropReason;
use adit_turn::stun::{AttributeKind, Class, IntegrityStatus, Key, Message, Method, Writer};
use aws_lc_rs::hmac;

const SHA256: [u8; 4] = [0, 2, 0, 0];

fn bench() -> Bench {
    let mut bench = Bench::new(config());
    bench.learn_nonce();
    bench
}

fn named(bench: &Bench, writer: Writer) -> Writer {
    writer
        .attribute(AttributeKind::USERNAME, bench.username.as_bytes())
        .attribute(AttributeKind::REALM, b"adit")
        .attribute(AttributeKind::NONCE, &bench.nonce)
}

/// RFC 8489, section 9.2: the nonce must begin with the cookie, which must have the bit "password
/// algorithms" set where that attribute is sent; 9.2.4: a challenge must have realm, nonce and algorithms.
#[test]
fn challenges_have_what_they_must_have() {
    let mut bench = Bench::new(config());
    let request = bench.allocate_request().finish();
    let stale = {
        bench.learn_nonce();
        bench.client = address("203.0.113.5:4001");
        let request = bench.allocate_request();
        bench.ask(request)
    };
    let challenge = bench.exchange(&request).expect("a challenge");
    for (answer, code) in [(challenge, 401), (stale, 438)] {
        let message = answer.message();
        assert_eq!(answer.code(), code);
        assert_eq!(message.text(AttributeKind::REALM), Some("adit"));
        assert_eq!(message.find(AttributeKind::PASSWORD_ALGORITHMS), Some(&SHA256[..]));
        let nonce = message.text(AttributeKind::NONCE).expect("a nonce");
        // "gAAA" is the base64 form of 0x800000: bit 0 alone.
        assert!(nonce.starts_with("obMatJos2gAAA") && nonce.len() < 128);
        let absent = [AttributeKind::USERNAME, AttributeKind::USERHASH];
        assert!(absent.iter().all(|kind| message.find(*kind).is_none()) && !message.has_integrity());
    }
}

/// Section 9.2.4: the same nonce must not be given to two addresses.
#[test]
fn nonces_differ_by_address() {
    let mut bench = bench();
    let first = bench.nonce.clone();
    for other in ["203.0.113.5:4001", "203.0.113.6:4000", "[2606:4700::9]:4000"] {
        bench.client = address(other);
        bench.learn_nonce();
        assert_ne!(bench.nonce, first, "{other}");
    }
}

/// Section 9.2.4: an answer must be signed as the key was made, whichever code the request had.
#[test]
fn answers_are_signed_as_the_key_was_made() {
    let mut bench = bench();
    // The key of RFC 5389 with the newer code: the answer has the older one.
    let request = bench.allocate_request();
    let key = Key::long_term_md5(&bench.username, "adit", &bench.password);
    let bytes = named(&bench, request).integrity_sha256(&key).finish();
    let answer = bench.exchange(&bytes).expect("an answer");
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.message().check_integrity(&key), IntegrityStatus::Valid);
    assert_eq!(answer.message().check_integrity_sha256(&key), IntegrityStatus::Absent);
    // The key of RFC 8489: the newer one alone, in refusals too.
    bench.sha256 = true;
    let request = bench.allocate_request();
    let answer = bench.ask(request);
    assert_eq!(answer.code(), 437);
    assert_eq!(answer.message().check_integrity(&bench.key()), IntegrityStatus::Absent);
}

/// Section 9.2.4 and 14.5: where both codes are there, the stronger one must be right.
#[test]
fn the_stronger_of_two_codes_counts() {
    for right in [true, false] {
        let mut bench = bench();
        let request = bench.allocate_request();
        let key = Key::long_term_md5(&bench.username, "adit", &bench.password);
        let wrong = Key::short_term("wrong");
        let (sha1, sha256) = if right { (&wrong, &key) } else { (&key, &wrong) };
        let bytes = named(&bench, request).integrity(sha1).integrity_sha256(sha256).finish();
        let code = bench.exchange(&bytes).expect("an answer").code();
        assert_eq!(code, if right { 0 } else { 401 });
    }
}

/// Section 14.6: the value must be whole, since TURN does not say that it may be cut.
#[test]
fn cut_codes_are_refused() {
    for length in [16_usize, 28, 32] {
        let mut bench = bench();
        let request = bench.allocate_request();
        let writer = named(&bench, request)
            .attribute(AttributeKind::PASSWORD_ALGORITHMS, &SHA256)
            .attribute(AttributeKind::PASSWORD_ALGORITHM, &SHA256);
        let mut bytes = writer.finish();
        let total = (bytes.len() - 20 + 4 + length) as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        let password = format!("{}:adit:{}", bench.username, bench.password);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, password.as_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, digest.as_ref()), &bytes);
        bytes.extend([0, 0x1c, 0, length as u8]);
        bytes.extend(&tag.as_ref()[..length]);
        let code = bench.exchange(&bytes).expect("an answer").code();
        assert_eq!(code, if length == 32 { 0 } else { 401 }, "{length} bytes");
    }
}

/// Section 9.2.4: rules about algorithms are for nonces with our cookie; others are stale.
#[test]
fn foreign_nonces_are_stale_whatever_comes_with_them() {
    let mut bench = bench();
    bench.nonce = b"somebody else's".to_vec();
    let request = bench.allocate_request();
    let bytes = named(&bench, request)
        .attribute(AttributeKind::PASSWORD_ALGORITHM, &[0, 1, 0, 0])
        .integrity(&bench.key())
        .finish();
    assert_eq!(bench.exchange(&bytes).expect("an answer").code(), 438);
}

/// Section 9.2.4: integrity without name, realm or nonce must be a 400, which names none of them. A hashed
/// name alone is an attribute that is not understood, since the nonce does not offer it.
#[test]
fn incomplete_credentials_are_named_as_such() {
    let kinds = [AttributeKind::USERNAME, AttributeKind::REALM, AttributeKind::NONCE];
    for missing in kinds {
        let mut bench = bench();
        let values = [bench.username.as_bytes(), b"adit", &bench.nonce].map(<[u8]>::to_vec);
        let pairs = kinds.iter().zip(values).filter(|(kind, _)| **kind != missing);
        let request = bench.allocate_request();
        let request = pairs.fold(request, |writer, (kind, value)| writer.attribute(*kind, &value));
        let bytes = request.integrity(&bench.key()).finish();
        let answer = bench.exchange(&bytes).expect("an answer");
        assert_eq!(answer.code(), 400);
        assert!(kinds.iter().all(|kind| answer.message().find(*kind).is_none()));
    }
    let mut bench = bench();
    let request = bench.allocate_request().attribute(AttributeKind::USERHASH, &[7; 32]);
    let request =
        request.attribute(AttributeKind::REALM, b"adit").attribute(AttributeKind::NONCE, &bench.nonce);
    let answer = bench.exchange(&request.integrity(&bench.key()).finish()).expect("an answer");
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().find(AttributeKind::UNKNOWN_ATTRIBUTES), Some(&[0, 0x1e][..]));
}

/// Section 14.5: what comes after the code is not covered by it and must not count.
#[test]
fn attributes_behind_the_code_do_not_count() {
    let mut bench = bench();
    bench.allocate();
    let request = bench.request(Method::CREATE_PERMISSION);
    let peer = address("198.51.100.1:1");
    let bytes = named(&bench, request)
        .integrity(&bench.key())
        .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
        .finish();
    assert_eq!(bench.exchange(&bytes).expect("an answer").code(), 400, "no peer");
}

/// Sections 7 and 14.7: FINGERPRINT is answered with one; a wrong one makes it no STUN message.
#[test]
fn fingerprints_are_answered_and_checked() {
    let mut bench = bench();
    let request = bench.allocate_request();
    let mut bytes = named(&bench, request).integrity(&bench.key()).fingerprint().finish();
    *bytes.last_mut().expect("not empty") ^= 1;
    assert!(bench.exchange(&bytes).is_none());
    assert_eq!(bench.server.counters().dropped(DropReason::Garbage), 1);
    *bytes.last_mut().expect("not empty") ^= 1;
    let answer = bench.exchange(&bytes).expect("an answer");
    assert_eq!((answer.code(), answer.message().has_fingerprint()), (0, true));
    let stranger = bench.allocate_request().fingerprint().finish();
    bench.client = address("203.0.113.9:1");
    assert!(bench.exchange(&stranger).expect("an answer").message().has_fingerprint());
}

/// Section 6.3.1.1: an answer must have the method and the transaction id of its request.
#[test]
fn answers_name_their_request() {
    let mut bench = bench();
    bench.allocate();
    let methods =
        [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];
    for method in methods {
        let request = bench.request(method);
        let bytes = bench.sign(request);
        let asked = Message::parse(&bytes).expect("well formed");
        let answer = bench.exchange(&bytes).expect("an answer");
        let message = answer.message();
        assert_eq!((message.method(), message.transaction()), (method, asked.transaction()));
        assert_eq!(message.class() == Class::Error, message.error_code().is_some());
    }
}
