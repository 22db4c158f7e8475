//! Golden files: one for each kind of message, byte for byte what goes over the wire.
//!
//! A change of a golden file is a change of the contract: it needs a line in `REVISIONS` and
//! must leave what older peers send readable. `ADIT_BLESS=1 cargo test -p adit-protocol` writes
//! the files anew.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use adit_protocol::frame::{self, Decoded};
use adit_protocol::peer::PeerMessage;
use adit_protocol::{Message, peer};
use serde_json::Value;

use crate::samples;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn compare(name: &str, text: &str) -> String {
    let path = golden(name);
    if std::env::var_os("ADIT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, expected, "{name} has changed; see the head of this file");
    expected
}

/// Every message of one direction: written as its file says, and read back from it.
fn check<T: Message + PartialEq + Debug>(direction: &str, messages: &[T]) {
    let mut kinds = BTreeSet::new();
    for message in messages {
        let kind = message.kind();
        kinds.insert(kind);
        let frame = frame::encode(message, Some(7)).unwrap();
        let pretty: Value = serde_json::from_str(&frame).unwrap();
        let text = format!("{}\n", serde_json::to_string_pretty(&pretty).unwrap());
        let expected = compare(&format!("{direction}.{kind}.json"), &text);
        match frame::decode::<T>(&expected).unwrap() {
            Decoded::Message { message: read, reference } => {
                assert_eq!((&read, reference), (message, Some(7)));
            }
            Decoded::Unknown { kind } => panic!("{kind} is unknown to itself"),
        }
    }
    assert_eq!(kinds.len(), messages.len(), "two samples of one kind");
    assert_eq!(kinds, T::KINDS.iter().copied().collect(), "every kind has a golden file");
    for file in std::fs::read_dir(golden("")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if let Some(kind) =
            name.strip_prefix(&format!("{direction}.")).and_then(|rest| rest.strip_suffix(".json"))
        {
            assert!(kinds.contains(kind), "{name} belongs to no message");
        }
    }
}

#[test]
fn control_messages_are_what_their_golden_files_say() {
    check("client_to_portal", &samples::client_to_portal());
    check("portal_to_client", &samples::portal_to_client());
    check("gateway_to_portal", &samples::gateway_to_portal());
    check("portal_to_gateway", &samples::portal_to_gateway());
    check("relay_to_portal", &samples::relay_to_portal());
    check("portal_to_relay", &samples::portal_to_relay());
}

#[test]
fn peer_messages_are_what_their_golden_files_say() {
    for (name, message) in samples::peer() {
        let packet =
            peer::encode(samples::CLIENT_ADDRESS, samples::GATEWAY_ADDRESS, 0x0102_0304, &message).unwrap();
        let hex: Vec<String> = packet
            .chunks(16)
            .map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        let expected = compare(&format!("peer.{name}.hex"), &format!("{}\n", hex.join("\n")));
        let bytes: Vec<u8> =
            expected.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let received = peer::decode(&bytes).unwrap();
        assert_eq!(
            (received.source, received.destination),
            (samples::CLIENT_ADDRESS, samples::GATEWAY_ADDRESS)
        );
        assert_eq!(name, name_of(&message));
        assert_eq!((received.id, received.message), (0x0102_0304, message), "{name}");
    }
}

/// A new kind of message makes this match incomplete: it needs a sample too.
fn name_of(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Goodbye { .. } => "goodbye",
        PeerMessage::ResetTicket { .. } => "reset_ticket",
        PeerMessage::Candidates { .. } => "candidates",
        PeerMessage::AssignedAddresses { .. } => "assigned_addresses",
        PeerMessage::DomainStatus { .. } => "domain_status",
        PeerMessage::Draining { .. } => "draining",
        PeerMessage::SizeProbe { .. } => "size_probe",
        PeerMessage::SizeConfirmed { .. } => "size_confirmed",
    }
}

/// What a newer peer may add is ignored by an older one.
#[test]
fn unknown_fields_and_types_are_ignored() {
    for file in std::fs::read_dir(golden("")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let mut frame: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        add_fields(&mut frame);
        let text = frame.to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        let readable = match name.split('.').next().unwrap() {
            "client_to_portal" => frame::decode::<adit_protocol::ClientToPortal>(&text).is_ok(),
            "portal_to_client" => frame::decode::<adit_protocol::PortalToClient>(&text).is_ok(),
            "gateway_to_portal" => frame::decode::<adit_protocol::GatewayToPortal>(&text).is_ok(),
            "portal_to_gateway" => frame::decode::<adit_protocol::PortalToGateway>(&text).is_ok(),
            "relay_to_portal" => frame::decode::<adit_protocol::RelayToPortal>(&text).is_ok(),
            "portal_to_relay" => frame::decode::<adit_protocol::PortalToRelay>(&text).is_ok(),
            other => panic!("{other}"),
        };
        assert!(readable, "{name} with unknown fields");
    }
    let future = r#"{"v":1,"type":"from_the_future","payload":{"x":1}}"#;
    let decoded = frame::decode::<adit_protocol::PortalToClient>(future).unwrap();
    assert_eq!(decoded, Decoded::Unknown { kind: "from_the_future".to_owned() });
}

fn add_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(add_fields);
            map.insert("field_of_the_future".to_owned(), Value::Bool(true));
        }
        Value::Array(items) => items.iter_mut().for_each(add_fields),
        _ => {}
    }
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!(
        "{:?} {:?} {:?}",
        samples::portal_to_client(),
        samples::portal_to_gateway(),
        samples::relay_to_portal()
    );
    for secret in samples::SECRETS {
        assert!(!printed.contains(secret), "{secret}");
    }
}
