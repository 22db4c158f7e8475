//! Garbage, impostors and floods: clear errors, and the portal goes on.

use std::time::Duration;

use adit_protocol::{ClientToPortal, MAX_MESSAGE_TO_PORTAL, PortalToClient};
use futures_util::SinkExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;

use crate::world::{ClientPeer, GatewayPeer, RelayPeer, World, hello};

/// The portal still answers.
async fn lives(world: &World) {
    let (status, _) = world.call(reqwest::Method::GET, "sites", None).await;
    assert_eq!(status, 200);
}

async fn refused(world: &World, endpoint: &str, token: &str) -> (u16, String) {
    ClientPeer::connect(world.address, endpoint, token).await.err().expect("let in")
}

#[tokio::test]
async fn only_the_right_token_opens_an_endpoint() {
    let world = World::new().await;
    let office = world.office().await;
    let (client, gateway) = (&office.client_token, &office.gateway_token);
    assert_eq!(refused(&world, "client", "").await, (401, "missing_token".to_owned()));
    assert_eq!(refused(&world, "client", "nonsense").await, (401, "invalid_token".to_owned()));
    let forged = format!("{}{}", &client[..client.len() - 4], "AAAA");
    assert_eq!(refused(&world, "client", &forged).await, (401, "invalid_token".to_owned()));
    let unknown = format!("adit_client_{}_x", "0".repeat(32));
    assert_eq!(refused(&world, "client", &unknown).await, (401, "invalid_token".to_owned()));
    for (endpoint, token) in [
        ("client", gateway),
        ("gateway", client),
        ("relay", client),
        ("client", &world.admin),
        ("relay", gateway),
    ] {
        assert_eq!(
            refused(&world, endpoint, token).await,
            (403, "wrong_token_kind".to_owned()),
            "{endpoint}"
        );
    }
    let (status, answer) = world.call_as(client, reqwest::Method::GET, "sites", None).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("wrong_token_kind")));
}

/// What a client gets for a text frame: the close reason.
async fn answer_to(world: &World, token: &str, first: &str, text: &str) -> String {
    let mut peer = ClientPeer::connect(world.address, "client", token).await.unwrap();
    if !first.is_empty() {
        peer.send_text(first).await;
        assert!(matches!(peer.next().await, PortalToClient::Init(_)));
    }
    peer.send_text(text).await;
    close_reason(&mut peer).await
}

async fn close_reason(peer: &mut ClientPeer) -> String {
    use futures_util::StreamExt as _;
    loop {
        match tokio::time::timeout(Duration::from_secs(10), peer.socket.next()).await.unwrap() {
            Some(Ok(tungstenite::Message::Close(Some(frame)))) => return frame.reason.to_string(),
            Some(Ok(_)) => {}
            other => return format!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn malformed_frames_end_the_session_with_a_reason() {
    let world = World::new().await;
    let office = world.office().await;
    let greeting = adit_protocol::frame::encode(&ClientToPortal::Hello(hello(2, 2)), None).unwrap();
    let deep = "[".repeat(100_000);
    for (text, reason) in [
        ("", "not a frame"),
        ("{", "not a frame"),
        ("[]", "not a frame"),
        (r#"{"v":1}"#, "not a frame"),
        (r#"{"v":"x","type":"hello"}"#, "not a frame"),
        (r#"{"v":2,"type":"hello","payload":{}}"#, "the frame version is not supported"),
        (r#"{"v":1,"type":"candidates","payload":{"added":7}}"#, "the payload does not fit the type"),
        (r#"{"v":1,"type":"request_authorization"}"#, "the payload does not fit the type"),
        (deep.as_str(), "not a frame"),
    ] {
        for first in ["", greeting.as_str()] {
            let got = answer_to(&world, &office.client_token, first, text).await;
            assert_eq!(got, reason, "{}", &text[..text.len().min(60)]);
        }
    }
    lives(&world).await;
}

#[tokio::test]
async fn a_client_that_floods_what_others_must_hear_is_sent_away() {
    let world = World::new().await;
    let office = world.office().await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let update = ClientToPortal::Candidates(adit_protocol::CandidateUpdate::default());
    let text = adit_protocol::frame::encode(&update, None).unwrap();
    for _ in 0..600 {
        let _ = client.peer.socket.send(tungstenite::Message::text(text.clone())).await;
    }
    assert_eq!(close_reason(&mut client.peer).await, "too many messages");
    lives(&world).await;
}

#[tokio::test]
async fn what_must_not_be_said_is_refused() {
    let world = World::new().await;
    let office = world.office().await;
    let token = &office.client_token;
    let greeting = adit_protocol::frame::encode(&ClientToPortal::Hello(hello(2, 2)), None).unwrap();
    assert_eq!(answer_to(&world, token, &greeting, &greeting).await, "hello was said already");
    let other = adit_protocol::frame::encode(&ClientToPortal::SignOut(Default::default()), None).unwrap();
    assert_eq!(answer_to(&world, token, "", &other).await, "no hello");
    let zero_key = adit_protocol::frame::encode(&ClientToPortal::Hello(hello(2, 0)), None).unwrap();
    assert_eq!(answer_to(&world, token, "", &zero_key).await, "the public key is empty");
    let old = adit_protocol::Hello { revision: 0, ..hello(2, 2) };
    let old = adit_protocol::frame::encode(&ClientToPortal::Hello(old), None).unwrap();
    assert_eq!(answer_to(&world, token, "", &old).await, "revision 0 does not exist");
}

#[tokio::test]
async fn unknown_types_are_ignored() {
    let world = World::new().await;
    let office = world.office().await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.peer.send_text(r#"{"v":1,"type":"from_the_future","payload":{"x":[1,2,3]}}"#).await;
    client.peer.silent().await;
    client.request(1, office.resource).await;
    client.denied().await;
}

#[tokio::test]
async fn binary_and_oversized_frames_are_refused() {
    let world = World::new().await;
    let office = world.office().await;
    let mut peer = ClientPeer::connect(world.address, "client", &office.client_token).await.unwrap();
    peer.socket.send(tungstenite::Message::binary(vec![0; 100])).await.unwrap();
    assert_eq!(close_reason(&mut peer).await, "binary frames are not part of the protocol");
    let mut peer = ClientPeer::connect(world.address, "client", &office.client_token).await.unwrap();
    // The portal closes in the middle, so the write may fail too.
    let _ = peer.socket.send(tungstenite::Message::text("x".repeat(MAX_MESSAGE_TO_PORTAL + 1))).await;
    assert!(peer.try_next().await.is_none_or(|message| matches!(message, PortalToClient::Disconnect(_))));
    lives(&world).await;
}

#[tokio::test]
async fn frames_that_are_no_websocket_frames_are_refused() {
    let world = World::new().await;
    let office = world.office().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = format!(
        "GET /v1/client HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {}\r\n\r\n",
        office.client_token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 101"));
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    lives(&world).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_sent_away() {
    let world = World::new().await;
    let office = world.office().await;
    let mut peer = ClientPeer::connect(world.address, "client", &office.client_token).await.unwrap();
    let start = std::time::Instant::now();
    assert_eq!(close_reason(&mut peer).await, "no hello");
    assert!((4..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn garbage_instead_of_http_is_refused() {
    let world = World::new().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"POST /api/v1/sites HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    // A head that never ends.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let endless = async {
        for n in 0..100_000 {
            if stream.write_all(format!("x-{n}: {}\r\n", "y".repeat(100)).as_bytes()).await.is_err() {
                return;
            }
        }
        panic!("an endless head was swallowed");
    };
    tokio::time::timeout(Duration::from_secs(10), endless).await.unwrap();
    lives(&world).await;
}

#[tokio::test]
async fn a_relay_must_say_something_sensible() {
    let world = World::new().await;
    for change in [
        json!({ "port": 0 }),
        json!({ "secret": "short" }),
        json!({ "ipv4": null }),
        json!({ "revision": 0 }),
        json!({ "tcp_port": 0 }),
        json!({ "tls": { "port": 0, "server_name": "relay.example" } }),
        json!({ "tls": { "port": 443, "server_name": "two words" } }),
        json!({ "tls": { "port": 443, "server_name": "relay.example", "certificate_sha256": "no hash" } }),
    ] {
        let mut hello = json!({
            "revision": 1, "device_id": uuid::Uuid::from_u128(1), "name": "r", "version": "1.0.0",
            "ipv4": "192.0.2.1", "port": 3478, "secret": "a secret of sufficient length",
        });
        for (key, value) in change.as_object().unwrap() {
            hello[key] = value.clone();
        }
        let mut peer = RelayPeer::connect(world.address, "relay", &world.relay_token).await.unwrap();
        let frame = json!({ "v": 1, "type": "hello", "payload": hello });
        peer.send_text(&frame.to_string()).await;
        let answer = peer.try_next().await;
        assert!(matches!(answer, Some(adit_protocol::PortalToRelay::Disconnect(_))), "{change}: {answer:?}");
    }
}

#[tokio::test]
async fn one_token_cannot_connect_without_end() {
    let world = World::new().await;
    let office = world.office().await;
    let mut refusals = 0;
    for _ in 0..80 {
        if let Err((status, code)) =
            GatewayPeer::connect(world.address, "gateway", &office.gateway_token).await
        {
            assert_eq!((status, code.as_str()), (429, "too_many_requests"));
            refusals += 1;
        }
    }
    assert!((1..=20).contains(&refusals), "{refusals}");
    // Others are not affected.
    world.client(&office.client_token, 2, 2).await;
}

#[tokio::test]
async fn a_flood_of_requests_is_answered_one_by_one() {
    let world = World::new().await;
    let office = world.office().await;
    let _gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    for request in 0..400 {
        client.request(request, office.resource).await;
    }
    for _ in 0..400 {
        match client.peer.next().await {
            PortalToClient::AuthorizationCreated(_) => {}
            // Too many a second: come back later. How many depends on the machine.
            PortalToClient::AuthorizationFailed(failed) => assert!(failed.retry_after_ms.is_some()),
            other => panic!("{other:?}"),
        }
    }
    let list = world.admin(reqwest::Method::GET, "authorizations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "one lease answers them all");
}
