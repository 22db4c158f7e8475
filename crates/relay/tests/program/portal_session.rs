//! The program and its portal: hello, credentials, draining, refusal.

use std::time::Duration;

use crate::certificate;
use crate::driver::{Driver, LIMIT, Program, free_port};
use crate::requester::Requester;
use adit_protocol::relay::{RelayHello, RelayInit};
use adit_protocol::{PortalToRelay, RelayToPortal, frame};
use adit_turn::Family;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

type Socket = WebSocketStream<TcpStream>;

/// A portal of our own, and a relay that dials it.
struct Scene {
    listener: TcpListener,
    state: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        Self { listener, state: tempfile::tempdir().expect("temporary directory") }
    }

    fn start_relay(&self, more: &[&str]) -> Program {
        let portal = format!("ws://{}", self.listener.local_addr().expect("address"));
        let state = self.state.path().join("state");
        let state = state.to_str().expect("UTF-8");
        let mut arguments =
            vec!["--portal", &portal, "--insecure-plain-portal", "--token", "adit_relay_test"];
        arguments.extend(["--state-dir", state, "--name", "relay-7", "--drain-timeout", "1"]);
        arguments.extend(more);
        Program::start(&arguments)
    }

    async fn accept(&self) -> Socket {
        let (stream, _) =
            tokio::time::timeout(LIMIT, self.listener.accept()).await.expect("dials").expect("accepts");
        tokio_tungstenite::accept_async(stream).await.expect("a WebSocket")
    }

    /// Accepts the relay and its hello, and welcomes it.
    async fn welcome(&self) -> (Socket, RelayHello) {
        let mut socket = self.accept().await;
        let RelayToPortal::Hello(hello) = heard(&mut socket).await else { panic!("no hello") };
        let unix = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let portal_time_ms = unix.expect("a sane clock").as_millis() as u64;
        let relay = "00000000-0000-0000-0000-000000000002".parse().expect("an id");
        let init = PortalToRelay::Init(RelayInit { portal_time_ms, relay });
        let text = frame::encode(&init, None).expect("encodes");
        socket.send(Frame::text(text)).await.expect("sends");
        (socket, hello)
    }
}

async fn heard(socket: &mut Socket) -> RelayToPortal {
    loop {
        match tokio::time::timeout(LIMIT, socket.next()).await.expect("speaks") {
            Some(Ok(Frame::Text(text))) => match frame::decode(&text).expect("a frame") {
                frame::Decoded::Message { message, .. } => return message,
                frame::Decoded::Unknown { kind } => panic!("unknown {kind}"),
            },
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits off the runtime's thread.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.expect("no panic")
}

#[tokio::test]
async fn the_relay_introduces_itself_serves_and_says_when_it_leaves() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    assert!(
        !relay.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
        "not before the portal"
    );
    let (mut socket, hello) = scene.welcome().await;
    assert_eq!((hello.name.as_str(), hello.port), ("relay-7", relay.port));
    assert_eq!(hello.ipv4.map(|ip| ip.to_string()).as_deref(), Some("127.0.0.1"));
    let secret = hello.secret.clone();
    let relay = blocking(move || {
        relay.wait_ready();
        Driver::new(&relay, &secret).run_until_allocated();
        relay.terminate();
        relay
    })
    .await;
    assert!(matches!(heard(&mut socket).await, RelayToPortal::Draining(_)));
    // Somebody must answer the closing handshake.
    let reader = tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    let ended = blocking(move || relay.ended()).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    reader.await.expect("closed");
}

#[tokio::test]
async fn identity_and_credentials_survive_a_restart_and_a_rotation() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    let (_, first) = scene.welcome().await;
    drop(relay);
    let relay = scene.start_relay(&[]);
    let (_, second) = scene.welcome().await;
    assert_eq!((first.device_id, &first.secret), (second.device_id, &second.secret));
    drop(relay);
    let relay = scene.start_relay(&["--rotate-secret"]);
    let (_socket, third) = scene.welcome().await;
    assert_eq!(first.device_id, third.device_id);
    assert_ne!(first.secret, third.secret);
    blocking(move || {
        Driver::new(&relay, &first.secret).run_until_allocated();
        Driver::new(&relay, &third.secret).run_until_allocated();
    })
    .await;
}

#[tokio::test]
async fn tcp_and_tls_are_announced_with_the_hash_of_the_relays_own_certificate() {
    let scene = Scene::new().await;
    let (tcp_port, tls_port) = (free_port(), free_port());
    let relay =
        scene.start_relay(&["--tcp-port", &tcp_port.to_string(), "--tls-port", &tls_port.to_string()]);
    let (_socket, hello) = scene.welcome().await;
    assert_eq!(hello.tcp_port, Some(tcp_port));
    let tls = hello.tls.expect("TLS is announced");
    assert!(tls.is_sound() && tls.port == tls_port, "{tls:?}");
    let hash = tls.certificate_sha256.expect("the relay's own certificate has a hash");
    blocking(move || {
        let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut by_tls = Requester::tls(at(tls_port), &tls.server_name, &certificate::pinning(&hash));
        by_tls.become_user("tester", &hello.secret);
        by_tls.allocate();
        let mut by_tcp = Requester::tcp(at(tcp_port));
        by_tcp.become_user("tester", &hello.secret);
        by_tcp.allocate();
        drop(relay);
    })
    .await;
}

#[tokio::test]
async fn without_being_asked_a_relay_under_a_portal_has_neither_tcp_nor_tls() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    let (_socket, hello) = scene.welcome().await;
    assert_eq!((hello.tcp_port, hello.tls), (None, None));
    assert!(std::net::TcpStream::connect(relay.address(Family::V4)).is_err());
}

#[tokio::test]
async fn a_secret_made_on_the_way_is_told_and_the_old_one_stays_good() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    let (mut socket, hello) = scene.welcome().await;
    let relay = blocking(move || {
        relay.wait_ready();
        relay.signal(nix::sys::signal::Signal::SIGUSR1);
        relay
    })
    .await;
    let RelayToPortal::SecretRotated(rotated) = heard(&mut socket).await else { panic!("no new secret") };
    assert_ne!(rotated.secret, hello.secret);
    let new_secret = rotated.secret.clone();
    let relay = blocking(move || {
        for secret in [&new_secret, &hello.secret] {
            let mut client = Requester::udp(relay.address(Family::V4));
            client.become_user("tester", secret);
            client.allocate();
        }
        relay.wait_ready();
        relay
    })
    .await;
    // The next session begins with the new one.
    drop(socket);
    let (_socket, again) = scene.welcome().await;
    assert_eq!((again.secret, again.device_id), (rotated.secret, hello.device_id));
    drop(relay);
}

#[tokio::test]
async fn a_lost_portal_changes_nothing_for_clients() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    let (socket, hello) = scene.welcome().await;
    drop(socket);
    blocking(move || {
        std::thread::sleep(Duration::from_millis(200));
        Driver::new(&relay, &hello.secret).run_until_allocated();
        assert!(relay.get("/readyz").expect("answers").starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn a_dead_token_ends_the_relay_with_its_own_exit_code() {
    let scene = Scene::new().await;
    let relay = scene.start_relay(&[]);
    let (mut stream, _) = scene.listener.accept().await.expect("accepts");
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.expect("reads");
    let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
    assert!(request.starts_with("get /v1/relay ") && request.contains("bearer adit_relay_test"), "{request}");
    let body = r#"{"code":"revoked_token","title":"revoked","status":401}"#;
    let answer = format!(
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.expect("writes");
    let ended = blocking(move || relay.ended()).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("revoked"), "{}", ended.stderr);
}
