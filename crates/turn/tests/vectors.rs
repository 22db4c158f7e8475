//! The sample messages of RFC 5769 and RFC 8489 (appendix B.1, with erratum 6268).

use adit_turn::stun::{
    AttributeKind, Class, IntegrityStatus, Key, Message, Method, ParseError, Writer, looks_like,
};
use std::net::SocketAddr;

const REQUEST: &str = "
    00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

const RESPONSE_V4: &str = "
    0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

const RESPONSE_V6: &str = "
    01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

const LONG_TERM: &str = "
    00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b9 0000
    0015001c 662f2f3439396b39353464364f4c33346f4c394653547679363473 41
    0014000b 6578616d706c652e6f726700
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

const LONG_TERM_SHA256: &str = "
    00010090 2112a442 78ad3433c6ad72c029da412e
    001e0020 4a3cf38fef6992bda952c6780417da0f2481941556 9e60b205c46e41407f1704
    00150029 6f624d61744a6f7332414141 43662f2f3439396b39353464364f4c33346f4c394653547679363473 41 000000
    0014000b 6578616d706c652e6f726700
    001d0004 00020000
    001c0020 b5c7bf005b6c52a21c51c5e892f819241362 96cb927c43149309278cc6518e65";

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const USERNAME: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
const LONG_TERM_PASSWORD: &str = "TheMatrIX"; // after string preparation

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| (digit as char).to_digit(16).expect("hexadecimal") as u8;
    let pairs = digits.chunks(2);
    pairs.map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

#[test]
fn request_with_short_term_credentials() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).expect("well formed");
    assert!(looks_like(&bytes));
    assert_eq!((message.method(), message.class()), (Method::BINDING, Class::Request));
    assert_eq!(message.text(AttributeKind::SOFTWARE), Some("STUN test client"));
    assert_eq!(message.text(AttributeKind::USERNAME), Some("evtj:h6vY"));
    assert!(message.has_fingerprint());
    let key = Key::short_term(PASSWORD);
    assert_eq!(message.check_integrity(&key), IntegrityStatus::Valid);
    let wrong = Key::short_term("wrong");
    assert_eq!(message.check_integrity(&wrong), IntegrityStatus::Invalid);
    assert_eq!(message.check_integrity_sha256(&key), IntegrityStatus::Absent);
}

#[test]
fn responses_with_mapped_addresses() {
    for (hex, address) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let bytes = bytes(hex);
        let message = Message::parse(&bytes).expect("well formed");
        assert_eq!(message.class(), Class::Success);
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(message.xor_address(AttributeKind::XOR_MAPPED_ADDRESS), Some(address));
        let key = Key::short_term(PASSWORD);
        assert_eq!(message.check_integrity(&key), IntegrityStatus::Valid);
    }
}

#[test]
fn our_writer_makes_the_same_response() {
    // The sample pads with a space where we pad with zero, so the text is made to fit.
    let original = bytes(RESPONSE_V4);
    let transaction = Message::parse(&original).unwrap().transaction();
    let made = Writer::new(Method::BINDING, Class::Success, transaction)
        .attribute(AttributeKind::SOFTWARE, b"test vector ")
        .xor_address(AttributeKind::XOR_MAPPED_ADDRESS, "192.0.2.1:32853".parse().unwrap())
        .finish();
    assert_eq!(made[24..], original[24..20 + 16 + 12]);
    let signed = Writer::new(Method::BINDING, Class::Request, transaction)
        .integrity(&Key::short_term(PASSWORD))
        .fingerprint()
        .finish();
    let parsed = Message::parse(&signed).expect("well formed");
    assert_eq!(parsed.check_integrity(&Key::short_term(PASSWORD)), IntegrityStatus::Valid);
}

#[test]
fn request_with_long_term_credentials() {
    let bytes = bytes(LONG_TERM);
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.text(AttributeKind::USERNAME), Some(USERNAME));
    assert_eq!(message.text(AttributeKind::REALM), Some("example.org"));
    let nonce = message.find(AttributeKind::NONCE);
    assert_eq!(nonce, Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
    let key = Key::long_term_md5(USERNAME, "example.org", LONG_TERM_PASSWORD);
    assert_eq!(message.check_integrity(&key), IntegrityStatus::Valid);
}

#[test]
fn request_with_long_term_credentials_and_sha256() {
    let bytes = bytes(LONG_TERM_SHA256);
    let message = Message::parse(&bytes).expect("well formed");
    let key = Key::long_term_sha256(USERNAME, "example.org", LONG_TERM_PASSWORD);
    assert_eq!(message.check_integrity_sha256(&key), IntegrityStatus::Valid);
    assert_eq!(message.check_integrity(&key), IntegrityStatus::Absent);
    assert_eq!(message.find(AttributeKind::PASSWORD_ALGORITHM), Some(&[0, 2, 0, 0][..]));
}

#[test]
fn every_changed_byte_is_noticed() {
    let original = bytes(REQUEST);
    let key = Key::short_term(PASSWORD);
    let integrity_end = original.len() - 8;
    for index in 0..original.len() {
        let mut changed = original.clone();
        changed[index] ^= 1;
        let parsed = Message::parse(&changed);
        if index < integrity_end {
            let valid = |message: Message<'_>| message.check_integrity(&key) == IntegrityStatus::Valid;
            assert!(!parsed.is_ok_and(valid), "byte {index}");
        } else {
            // Whatever is behind the integrity may be lost, but not be wrong.
            assert!(parsed.is_err() || !parsed.unwrap().has_fingerprint(), "byte {index}");
        }
    }
}

#[test]
fn malformed_messages_are_named() {
    let good = bytes(REQUEST);
    let parse = |bytes: &[u8]| Message::parse(bytes).map(|_| ()).unwrap_err();
    assert_eq!(parse(&good[..19]), ParseError::TooShort);
    assert_eq!(parse(&good[..104]), ParseError::WrongLength);
    let mut wrong = good.clone();
    wrong[0] = 0x80;
    assert_eq!(parse(&wrong), ParseError::NotStun);
    wrong = good.clone();
    wrong[4] = 0;
    assert_eq!(parse(&wrong), ParseError::NotStun);
    wrong = good.clone();
    wrong[22] = 0xff; // SOFTWARE claims more than there is
    assert_eq!(parse(&wrong), ParseError::TruncatedAttribute);
    wrong = good.clone();
    wrong[107] ^= 1;
    assert_eq!(parse(&wrong), ParseError::WrongFingerprint);
    wrong = good.clone();
    wrong[3] += 4; // something behind the fingerprint
    wrong.extend_from_slice(&[0x80, 0x22, 0, 0]);
    assert_eq!(parse(&wrong), ParseError::WrongFingerprint);
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let transaction = Message::parse(&bytes(REQUEST)).unwrap().transaction();
    let key = Key::short_term(PASSWORD);
    let message = Writer::new(Method::ALLOCATE, Class::Request, transaction)
        .integrity(&key)
        .number(AttributeKind::LIFETIME, 0)
        .finish();
    let parsed = Message::parse(&message).expect("well formed");
    assert_eq!(parsed.find(AttributeKind::LIFETIME), None);
    assert_eq!(parsed.check_integrity(&key), IntegrityStatus::Valid);
}
