//! A session against a real server on loopback: what it survives, and what ends it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use adit_control_client::{Config, ConfigError, Event, FatalReason, Session, SystemDial, start};
use adit_protocol::client::Empty;
use adit_protocol::relay::{RelayHello, RelayInit};
use adit_protocol::{PortalToRelay, REVISION, RelayToPortal, frame};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use url::Url;

type RelaySession = Session<PortalToRelay, RelayToPortal>;

const LIMIT: Duration = Duration::from_secs(10);

fn hello() -> RelayToPortal {
    RelayToPortal::Hello(RelayHello {
        revision: REVISION,
        device_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
        name: "relay-1".to_owned(),
        version: "0.1.0".to_owned(),
        ipv4: None,
        ipv6: None,
        port: 3478,
        tcp_port: None,
        tls: None,
        secret: "secret".to_owned(),
    })
}

fn config(scheme: &str, port: u16) -> Config {
    Config {
        url: Url::parse(&format!("{scheme}://localhost:{port}/v1/relay")).unwrap(),
        token: "adit_relay_token".to_owned(),
        ca: None,
        allow_plain: true,
        user_agent: "adit-relay/0.1.0".to_owned(),
        dial: Arc::new(SystemDial),
    }
}

async fn server() -> (TcpListener, RelaySession) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = start(config("ws", listener.local_addr().unwrap().port()), hello).unwrap();
    (listener, session)
}

async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_async(stream).await.unwrap()
}

async fn next(session: &mut RelaySession) -> Event<PortalToRelay> {
    tokio::time::timeout(LIMIT, session.next_event()).await.unwrap().unwrap()
}

async fn heard(socket: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap() {
            Frame::Text(text) => return text.to_string(),
            Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn init() -> PortalToRelay {
    PortalToRelay::Init(RelayInit {
        portal_time_ms: 1,
        relay: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
    })
}

/// Answers one HTTP request with `status` and a problem of `code`, whatever was asked.
async fn refuse(listener: &TcpListener, status: &str, code: &str, more: &str) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
    assert!(request.contains("authorization: bearer adit_relay_token"), "{request}");
    let body = format!(r#"{{"code":"{code}","title":"no","status":401}}"#);
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn hello_comes_first_and_strange_messages_are_ignored() {
    let (listener, mut session) = server().await;
    session.send(RelayToPortal::Draining(Empty {}));
    let mut socket = accept(&listener).await;
    assert!(heard(&mut socket).await.contains(r#""type":"hello""#));
    assert!(heard(&mut socket).await.contains(r#""type":"draining""#));
    assert_eq!(next(&mut session).await, Event::Connected);
    for text in
        [r#"{"v":1,"type":"from_the_future","payload":{"x":1}}"#, "garbage", r#"{"v":9,"type":"init"}"#]
    {
        socket.send(Frame::text(text)).await.unwrap();
    }
    socket.send(Frame::text(frame::encode(&init(), None).unwrap())).await.unwrap();
    assert_eq!(next(&mut session).await, Event::Message(init()));
}

#[tokio::test]
async fn a_lost_connection_comes_back_with_what_waited() {
    let (listener, mut session) = server().await;
    drop(accept(&listener).await);
    loop {
        if let Event::Disconnected { retry_in, .. } = next(&mut session).await {
            assert!(retry_in <= Duration::from_millis(500));
            break;
        }
    }
    session.send(RelayToPortal::Draining(Empty {}));
    let mut socket = accept(&listener).await;
    assert!(heard(&mut socket).await.contains("hello"));
    assert!(heard(&mut socket).await.contains("draining"));
}

#[tokio::test]
async fn only_a_dead_token_is_final() {
    let (listener, mut session) = server().await;
    refuse(&listener, "401 Unauthorized", "session_limit", "").await;
    assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
    refuse(&listener, "403 Forbidden", "invalid_token", "").await;
    assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
    refuse(&listener, "401 Unauthorized", "expired_token", "").await;
    assert_eq!(next(&mut session).await, Event::Fatal { reason: FatalReason::ExpiredToken });
    assert_eq!(session.next_event().await, None);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let (listener, mut session) = server().await;
    refuse(&listener, "503 Service Unavailable", "busy", "retry-after: 7\r\n").await;
    match next(&mut session).await {
        Event::Disconnected { retry_in, .. } => assert!(retry_in >= Duration::from_secs(7)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dead_token_is_final_even_if_its_code_comes_late() {
    let (listener, mut session) = server().await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    assert_ne!(stream.read(&mut request).await.unwrap(), 0);
    let body = r#"{"code":"invalid_token","title":"no","status":401}"#;
    let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n", body.len());
    for part in [head.as_str(), &body[..10], &body[10..]] {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next(&mut session).await, Event::Fatal { reason: FatalReason::InvalidToken });
}

#[tokio::test]
async fn a_network_change_ends_a_pause() {
    let (listener, mut session) = server().await;
    for _ in 0..6 {
        refuse(&listener, "502 Bad Gateway", "none", "").await;
        assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
        session.network_changed();
    }
    let start = std::time::Instant::now();
    accept(&listener).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_network_change_a_dead_connection_is_noticed_soon() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    assert_eq!(next(&mut session).await, Event::Connected);
    let start = tokio::time::Instant::now();
    session.network_changed();
    // The portal says nothing, as if the path were gone.
    match next(&mut session).await {
        Event::Disconnected { reason, .. } => assert!(reason.contains("network changed"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() <= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    assert_eq!(next(&mut session).await, Event::Connected);
    let start = tokio::time::Instant::now();
    let event = tokio::time::timeout(Duration::from_secs(120), session.next_event()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Disconnected { .. }), "{event:?}");
    assert!((30..=50).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_message_larger_than_allowed_leads_to_a_fresh_start() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    let huge = format!(r#"{{"v":1,"type":"x","payload":"{}"}}"#, "y".repeat(adit_protocol::MAX_MESSAGE));
    // The session may hang up while we still write.
    let _ = socket.send(Frame::text(huge)).await;
    assert_eq!(next(&mut session).await, Event::Connected);
    assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
}

#[tokio::test]
async fn an_announced_end_is_final() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    let text = r#"{"v":1,"type":"disconnect","payload":{"reason":"revoked_token"}}"#;
    socket.send(Frame::text(text)).await.unwrap();
    assert_eq!(next(&mut session).await, Event::Connected);
    assert!(matches!(next(&mut session).await, Event::Message(PortalToRelay::Disconnect(_))));
    assert_eq!(next(&mut session).await, Event::Fatal { reason: FatalReason::RevokedToken });
}

#[tokio::test]
async fn malformed_frames_without_end_lead_to_a_fresh_start() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    for _ in 0..16 {
        socket.send(Frame::text("{")).await.unwrap();
    }
    assert_eq!(next(&mut session).await, Event::Connected);
    assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
}

#[tokio::test]
async fn closing_sends_what_waits() {
    let (listener, session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    let closing = tokio::spawn(async move {
        session.send(RelayToPortal::Draining(Empty {}));
        session.close(LIMIT).await;
    });
    assert!(heard(&mut socket).await.contains("draining"));
    assert!(matches!(socket.next().await, Some(Ok(Frame::Close(_))) | None));
    drop(socket);
    closing.await.unwrap();
}

#[tokio::test]
async fn closing_does_not_lose_messages_to_unread_data() {
    let (listener, mut session) = server().await;
    let mut socket = accept(&listener).await;
    heard(&mut socket).await;
    assert_eq!(next(&mut session).await, Event::Connected);
    let init = frame::encode(&init(), None).unwrap();
    for _ in 0..50 {
        socket.send(Frame::text(init.as_str())).await.unwrap();
    }
    session.send(RelayToPortal::Draining(Empty {}));
    let closing = tokio::spawn(session.close(LIMIT));
    assert!(heard(&mut socket).await.contains("draining"));
    drop(socket);
    closing.await.unwrap();
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other() {
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(ours.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![ours.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                socket.next().await.unwrap().unwrap();
            }
        }
    });
    let trusting = Config { ca: Some(ours.cert.pem().into_bytes()), ..config("wss", port) };
    let mut session: RelaySession = start(trusting, hello).unwrap();
    assert_eq!(next(&mut session).await, Event::Connected);
    let wary = Config { ca: Some(other.cert.pem().into_bytes()), ..config("wss", port) };
    let mut session: RelaySession = start(wary, hello).unwrap();
    assert!(matches!(next(&mut session).await, Event::Disconnected { .. }));
    server.abort();
}

#[tokio::test]
async fn a_plain_portal_needs_permission() {
    let refused = start::<PortalToRelay, _>(Config { allow_plain: false, ..config("ws", 1) }, hello);
    assert!(matches!(refused, Err(ConfigError::Plain(_))));
    let nonsense = Config { url: Url::parse("ftp://localhost/").unwrap(), ..config("ws", 1) };
    assert!(matches!(start::<PortalToRelay, _>(nonsense, hello), Err(ConfigError::Url(_))));
}
