//! The codec against arbitrary bytes and against an independent implementation (`stun-types`).

use adit_turn::channel_data;
use adit_turn::stun::{AttributeKind, Class, IntegrityStatus, Key, Message, Method, TransactionId, Writer};
use aws_lc_rs::hmac;
use proptest::prelude::*;
use std::net::SocketAddr;
use stun_types::attribute::{AttributeStaticType as _, XorMappedAddress};
use stun_types::message::{
    IntegrityAlgorithm, LongTermCredentials, Message as Oracle, MessageIntegrityCredentials,
};

fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
        let _ = channel_data::parse(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        length in 0u16..120,
        body in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        // A plausible header gets the parser to the attributes.
        let mut bytes = vec![0x00, 0x03];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0x21, 0x12, 0xa4, 0x42]);
        bytes.extend([7; 12]);
        bytes.extend(body);
        let total = (bytes.len() - 20) as u16 / 4 * 4;
        bytes.truncate(20 + usize::from(total));
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        let Ok(message) = Message::parse(&bytes) else { return Ok(()) };
        prop_assert!(Oracle::from_bytes(&bytes).is_ok() || message.has_integrity());
        let key = Key::short_term("key");
        let _ = (message.check_integrity(&key), message.check_integrity_sha256(&key));
        for attribute in message.attributes() {
            let _ = message.xor_address(attribute.kind);
            let _ = message.number(attribute.kind);
            let _ = message.text(attribute.kind);
        }
        let _ = message.error_code();
    }

    #[test]
    fn the_oracle_reads_what_we_write(
        address in any_address(),
        id in any::<[u8; 12]>(),
        username in "[a-z0-9:]{1,40}",
        sha256 in any::<bool>(),
    ) {
        let writer = Writer::new(Method::BINDING, Class::Success, TransactionId(id))
            .attribute(AttributeKind::USERNAME, username.as_bytes())
            .xor_address(AttributeKind::XOR_MAPPED_ADDRESS, address);
        let writer = if sha256 {
            writer.integrity_sha256(&Key::long_term_sha256(&username, "adit", "secret"))
        } else {
            writer.integrity(&Key::long_term_md5(&username, "adit", "secret"))
        };
        let bytes = writer.fingerprint().finish();

        let oracle = Oracle::from_bytes(&bytes).expect("the oracle accepts it");
        prop_assert_eq!(oracle.attribute::<XorMappedAddress>().unwrap().addr(oracle.transaction_id()), address);
        prop_assert!(oracle.has_attribute(XorMappedAddress::TYPE));
        let key = LongTermCredentials::new(username, "secret".into()).to_key("adit".into());
        let verdict = oracle.validate_integrity(&MessageIntegrityCredentials::LongTerm(key));
        let algorithm = if sha256 { IntegrityAlgorithm::Sha256 } else { IntegrityAlgorithm::Sha1 };
        prop_assert_eq!(verdict.ok(), Some(algorithm));
    }

    #[test]
    fn a_cut_sha256_code_still_counts(words in 4usize..=8, id in any::<[u8; 12]>()) {
        let mut bytes = Writer::new(Method::BINDING, Class::Request, TransactionId(id)).finish();
        bytes[3] = (4 + words * 4) as u8; // the code covers a length that counts the cut attribute
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let tag = hmac::sign(&mac_key, &bytes);
        bytes.extend([0x00, 0x1c, 0x00, (words * 4) as u8]);
        bytes.extend(&tag.as_ref()[..words * 4]);
        let status = |bytes: &[u8]| {
            let message = Message::parse(bytes).expect("well formed");
            message.check_integrity_sha256(&Key::short_term("secret"))
        };
        prop_assert_eq!(status(&bytes), IntegrityStatus::Valid);
        *bytes.last_mut().expect("not empty") ^= 1;
        prop_assert_eq!(status(&bytes), IntegrityStatus::Invalid);
    }
}
