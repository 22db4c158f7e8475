//! Whatever bytes come, both decoders answer with a value or an error.

use adit_protocol::frame::{self, DecodeError};
use adit_protocol::peer::{self, PeerMessageError};
use adit_protocol::{ClientToPortal, MAX_MESSAGE, PortalToClient, PortalToGateway, RelayToPortal};
use proptest::prelude::*;

use crate::samples;

fn packet(message: &peer::PeerMessage) -> Vec<u8> {
    peer::encode(samples::CLIENT_ADDRESS, samples::GATEWAY_ADDRESS, 1, message).unwrap()
}

#[test]
fn a_frame_that_is_none_is_named() {
    let decode = frame::decode::<ClientToPortal>;
    assert!(matches!(decode(&"x".repeat(MAX_MESSAGE + 1)), Err(DecodeError::TooLarge(_))));
    for text in
        ["", "null", "7", "[]", "{}", r#"{"v":1}"#, r#"{"type":"hello"}"#, r#"{"v":-1,"type":"hello"}"#]
    {
        assert!(matches!(decode(text), Err(DecodeError::NotAFrame(_))), "{text}");
    }
    assert!(matches!(decode(r#"{"v":2,"type":"hello"}"#), Err(DecodeError::Version(2))));
    let wrong = r#"{"v":1,"type":"hello","payload":{"revision":"one"}}"#;
    assert!(matches!(decode(wrong), Err(DecodeError::Payload { kind, .. }) if kind == "hello"));
    assert!(decode(&"[".repeat(MAX_MESSAGE)).is_err(), "depth is limited");
}

#[test]
fn keys_that_are_none_are_refused() {
    let hello = |key: &str| {
        format!(
            r#"{{"v":1,"type":"hello","payload":{{"revision":1,"device_id":"{}","name":"x","version":"1",
               "public_key":"{key}"}}}}"#,
            uuid::Uuid::nil()
        )
    };
    assert!(frame::decode::<ClientToPortal>(&hello("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")).is_ok());
    for key in ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        assert!(frame::decode::<ClientToPortal>(&hello(key)).is_err(), "{key}");
    }
}

#[test]
fn every_truncation_of_a_peer_message_is_an_error_or_another_message() {
    for (name, message) in samples::peer() {
        let whole = packet(&message);
        for length in 0..whole.len() {
            assert!(peer::decode(&whole[..length]).is_err(), "{name} cut to {length}");
        }
        let mut padded = whole.clone();
        padded.extend_from_slice(&[0; 15]);
        assert_eq!(peer::decode(&padded).unwrap().message, message, "{name} with WireGuard's padding");
    }
}

#[test]
fn packets_that_are_no_control_packets_are_named() {
    let good = packet(&samples::peer()[0].1);
    let changed = |offset: usize, value: u8| {
        let mut packet = good.clone();
        packet[offset] = value;
        peer::decode(&packet)
    };
    assert_eq!(changed(0, 0x45), Err(PeerMessageError::NotControl));
    assert_eq!(changed(6, 17), Err(PeerMessageError::NotControl));
    assert_eq!(changed(7, 64), Err(PeerMessageError::NotControl), "hop limit 1: nobody forwarded it");
    assert_eq!(changed(40, 2), Err(PeerMessageError::Version(2)));
    assert_eq!(changed(41, 99), Err(PeerMessageError::UnknownKind(99)));
    assert_eq!(changed(4, 0xff), Err(PeerMessageError::Length));
}

#[test]
fn a_goodbye_from_the_future_is_still_a_goodbye() {
    let mut future = packet(&samples::peer()[0].1);
    let reason = future.len() - 5;
    assert_eq!(future[reason], 2, "the reason is where this test thinks it is: {future:02x?}");
    future[reason] = 23;
    match peer::decode(&future).unwrap().message {
        peer::PeerMessage::Goodbye { reason, .. } => assert_eq!(reason, peer::GoodbyeReason::InternalError),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_would_not_fit_is_not_written() {
    let name = "x".repeat(1300);
    let resource = adit_policy::ResourceId::from_uuid(uuid::Uuid::nil());
    let message = peer::PeerMessage::AssignedAddresses { resource, name, addresses: Vec::new() };
    let written = peer::encode(samples::CLIENT_ADDRESS, samples::GATEWAY_ADDRESS, 1, &message);
    assert_eq!(written, Err(PeerMessageError::TooLarge));
}

proptest! {
    #[test]
    fn no_text_makes_the_frame_decoder_panic(text in ".{0,300}") {
        let _ = frame::decode::<ClientToPortal>(&text);
        let _ = frame::decode::<PortalToClient>(&text);
    }

    #[test]
    fn no_mutilated_frame_makes_the_decoder_panic(which in 0..11_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut frame = frame::encode(&samples::portal_to_client()[which], None).unwrap().into_bytes();
        let at = at.index(frame.len());
        frame[at] = byte;
        let text = String::from_utf8_lossy(&frame);
        let _ = frame::decode::<PortalToClient>(&text);
        let _ = frame::decode::<PortalToGateway>(&text);
        let _ = frame::decode::<RelayToPortal>(&text);
    }

    #[test]
    fn no_packet_makes_the_peer_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let _ = peer::decode(&bytes);
        let _ = peer::is_control(&bytes);
    }

    #[test]
    fn no_content_makes_the_peer_decoder_panic(kind in 0..8_u8, content in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut packet = packet(&samples::peer()[1].1);
        packet.truncate(48);
        packet[41] = kind;
        packet.extend_from_slice(&content);
        packet[4..6].copy_from_slice(&u16::try_from(8 + content.len()).unwrap().to_be_bytes());
        let _ = peer::decode(&packet);
    }

    #[test]
    fn no_mutilated_packet_makes_the_peer_decoder_panic(which in 0..6_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut packet = packet(&samples::peer()[which].1);
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = peer::decode(&packet);
    }
}
