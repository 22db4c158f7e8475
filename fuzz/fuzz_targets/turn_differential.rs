//! Our codec and `stun-types`, which nobody wrote with the other in mind, read the same messages.

#![no_main]

use adit_turn::stun::{AttributeKind, IntegrityStatus, Key, Message, ParseError, Writer};
use adit_turn::stun::{Class, Method, TransactionId};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stun_types::attribute::Attribute as _;
use stun_types::message::{
    IntegrityAlgorithm, Message as Oracle, MessageClass, MessageIntegrityCredentials, ShortTermCredentials,
};

/// Attributes that end a message.
const ENDING: [u16; 3] = [0x0008, 0x001c, 0x8028];

#[derive(Arbitrary, Debug)]
enum Input {
    Raw(Vec<u8>),
    /// A message that is right, but for some bytes.
    Built {
        kind: u16,
        id: [u8; 12],
        attributes: Vec<(u16, Vec<u8>)>,
        code: Code,
        flips: Vec<(u16, u8)>,
    },
}

#[derive(Arbitrary, Debug)]
enum Code {
    None,
    Sha1 { fingerprint: bool },
    Sha256 { fingerprint: bool },
}

fuzz_target!(|input: Input| {
    let bytes = match input {
        Input::Raw(bytes) => bytes,
        Input::Built { kind, id, attributes, code, flips } => build(kind, id, attributes, &code, flips),
    };
    compare(&bytes);
});

fn build(
    kind: u16,
    id: [u8; 12],
    attributes: Vec<(u16, Vec<u8>)>,
    code: &Code,
    flips: Vec<(u16, u8)>,
) -> Vec<u8> {
    let class = [Class::Request, Class::Indication, Class::Success, Class::Error][usize::from(kind >> 14)];
    let mut writer = Writer::new(Method(kind & 0xfff), class, TransactionId(id));
    for (kind, value) in attributes.into_iter().take(20) {
        writer = writer.attribute(AttributeKind(kind), &value[..value.len().min(1000)]);
    }
    let key = Key::short_term("key");
    let (writer, fingerprint) = match code {
        Code::None => (writer, false),
        Code::Sha1 { fingerprint } => (writer.integrity(&key), *fingerprint),
        Code::Sha256 { fingerprint } => (writer.integrity_sha256(&key), *fingerprint),
    };
    let mut bytes = if fingerprint { writer.fingerprint() } else { writer }.finish();
    for (at, change) in flips.into_iter().take(3) {
        let length = bytes.len();
        bytes[usize::from(at) % length] ^= change;
    }
    bytes
}

fn compare(bytes: &[u8]) {
    let theirs = Oracle::from_bytes(bytes);
    let ours = match Message::parse(bytes) {
        Ok(ours) => ours,
        // The oracle lets bytes follow a message, and does not look behind the first code.
        Err(ParseError::WrongLength | ParseError::WrongFingerprint | ParseError::WrongIntegrityLength) => {
            return;
        }
        Err(ParseError::TruncatedAttribute) if contains_ending(bytes) => return,
        Err(error) => return assert!(theirs.is_err(), "{error}, but the oracle reads it"),
    };
    let theirs = theirs.unwrap_or_else(|error| panic!("we read it, the oracle says: {error}"));
    let class = match theirs.class() {
        MessageClass::Request => Class::Request,
        MessageClass::Indication => Class::Indication,
        MessageClass::Success => Class::Success,
        MessageClass::Error => Class::Error,
    };
    assert_eq!((ours.class(), ours.method().0), (class, theirs.method().value()));
    let mut id = [0; 16];
    id[4..].copy_from_slice(&ours.transaction().0);
    assert_eq!(u128::from_be_bytes(id), u128::from(theirs.transaction_id()));
    let their_attributes: Vec<(u16, Vec<u8>)> = theirs
        .iter_attributes()
        .map(|(_, attribute)| (attribute.get_type().value(), attribute.value.to_vec()))
        .take_while(|(kind, _)| !ENDING.contains(kind))
        .collect();
    let our_attributes: Vec<(u16, Vec<u8>)> =
        ours.attributes().map(|attribute| (attribute.kind.0, attribute.value.to_vec())).collect();
    assert_eq!(our_attributes, their_attributes);
    compare_integrity(&ours, &theirs);
}

fn compare_integrity(ours: &Message<'_>, theirs: &Oracle<'_>) {
    let key = Key::short_term("key");
    // With both codes, each side has its own idea of which one counts; ours is asked for both.
    let codes = (ours.check_integrity(&key), ours.check_integrity_sha256(&key));
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new("key".to_owned()));
    match theirs.validate_integrity(&credentials) {
        Ok(IntegrityAlgorithm::Sha1) => assert_eq!(codes.0, IntegrityStatus::Valid),
        Ok(IntegrityAlgorithm::Sha256) => assert_eq!(codes.1, IntegrityStatus::Valid),
        Err(_) => {
            let (sha1, sha256) = codes;
            let only_sha1 = sha1 == IntegrityStatus::Valid && sha256 == IntegrityStatus::Absent;
            let only_sha256 = sha256 == IntegrityStatus::Valid && sha1 == IntegrityStatus::Absent;
            assert!(!only_sha1 && !only_sha256, "only we find the code right");
        }
    }
}

fn contains_ending(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| ENDING.contains(&u16::from_be_bytes([pair[0], pair[1]])))
}
