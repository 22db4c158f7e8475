//! Whatever bytes arrive, reading them never panics, and what was read can be written again.

#![no_main]

use adit_turn::channel_data;
use adit_turn::stun::{Key, Message, Writer, decode_error_code};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((_, range)) = channel_data::parse(bytes) {
        assert!(range.start == channel_data::HEADER && range.end <= bytes.len());
    }
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(message.bytes(), bytes);
    let key = Key::short_term("key");
    let _ = (message.check_integrity(&key), message.check_integrity_sha256(&key), message.error_code());
    let mut writer = Writer::new(message.method(), message.class(), message.transaction());
    for attribute in message.attributes() {
        let _ = (message.xor_address(attribute.kind), message.number(attribute.kind));
        let _ = (message.text(attribute.kind), decode_error_code(attribute.value));
        assert!(message.find(attribute.kind).is_some());
        writer = writer.attribute(attribute.kind, attribute.value);
    }
    let written = writer.fingerprint().finish();
    let again = Message::parse(&written).expect("what was written can be read");
    assert!(again.has_fingerprint());
    assert!(again.attributes().eq(message.attributes()), "the same attributes");
});
