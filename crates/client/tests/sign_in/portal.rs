//! A portal that speaks as much of the contract as a device needs to sign in and connect, over real TLS.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use adit_protocol::client::{Disconnect, Init, SignIn};
use adit_protocol::{Interface, PortalToClient, frame};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, Role};

/// An answer of the sign-in: status and body.
pub(crate) type Answer = (&'static str, String);

/// A portal that answers sign-ins by a script and lets everybody in.
pub(crate) struct Portal {
    pub(crate) port: u16,
    pub(crate) ca: PathBuf,
    state: Arc<State>,
}

struct State {
    answers: Mutex<VecDeque<Answer>>,
    forms: Mutex<Vec<HashMap<String, String>>>,
    /// The tokens that sessions were opened with.
    sessions: Mutex<Vec<String>>,
    say: broadcast::Sender<PortalToClient>,
}

impl Portal {
    pub(crate) async fn start(directory: &std::path::Path) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca = directory.join("ca.pem");
        std::fs::write(&ca, certified.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            answers: Mutex::default(),
            forms: Mutex::default(),
            sessions: Mutex::default(),
            say: broadcast::channel(8).0,
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        state.serve(stream).await;
                    }
                });
            }
        });
        Self { port, ca, state }
    }

    /// What sign-ins are answered with from now on, in this order.
    pub(crate) fn will_answer(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.state.answers.lock().unwrap() = answers.into_iter().collect();
    }

    /// The forms so far.
    pub(crate) fn forms(&self) -> Vec<HashMap<String, String>> {
        self.state.forms.lock().unwrap().clone()
    }

    /// The tokens that sessions were opened with so far.
    pub(crate) fn sessions(&self) -> Vec<String> {
        self.state.sessions.lock().unwrap().clone()
    }

    /// Says something to every client that is connected.
    pub(crate) fn say(&self, message: PortalToClient) {
        self.state.say.send(message).unwrap();
    }
}

impl State {
    async fn serve(&self, mut stream: TlsStream<TcpStream>) {
        let Some((head, body)) = read_request(&mut stream).await else { return };
        if head.starts_with("GET /v1/client ") {
            return self.converse(stream, &head).await;
        }
        let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        self.forms.lock().unwrap().push(form);
        let answer = self.answers.lock().unwrap().pop_front();
        // A device that gave up sends no more.
        let (status, body) = answer.unwrap_or(("500 Internal Server Error", String::new()));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    async fn converse(&self, mut stream: TlsStream<TcpStream>, head: &str) {
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let token = header("authorization").unwrap().replace("Bearer ", "");
        let accept = derive_accept_key(header("sec-websocket-key").unwrap().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let mut said = self.say.subscribe();
        // The hello.
        socket.next().await.unwrap().unwrap();
        send(&mut socket, &PortalToClient::Init(init())).await;
        self.sessions.lock().unwrap().push(token);
        loop {
            tokio::select! {
                heard = socket.next() => if !matches!(heard, Some(Ok(_))) { return },
                message = said.recv() => {
                    let message = message.unwrap();
                    send(&mut socket, &message).await;
                    if matches!(message, PortalToClient::Disconnect(Disconnect { .. })) {
                        return;
                    }
                }
            }
        }
    }
}

async fn send(socket: &mut WebSocketStream<TlsStream<TcpStream>>, message: &PortalToClient) {
    // A client that is gone hears nothing.
    let _ = socket.send(Frame::text(frame::encode(message, None).unwrap())).await;
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, body)) = String::from_utf8_lossy(&bytes).split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn init() -> Init {
    Init {
        portal_time_ms: now_ms(),
        client: "0195f0a0-0000-7000-8000-000000000001".parse().unwrap(),
        actor_name: "Maria".to_owned(),
        interface: Interface {
            ipv4: "100.64.0.7".parse().unwrap(),
            ipv6: "fd00:adee::7".parse().unwrap(),
            ipv4_range: "100.64.0.0/16".parse().unwrap(),
            ipv6_range: "fd00:adee::/64".parse().unwrap(),
            ipv4_proxy_range: "100.96.0.0/16".parse().unwrap(),
            ipv6_proxy_range: "fd00:adee:1::/64".parse().unwrap(),
            dns_upstreams: vec!["192.0.2.53:53".parse().unwrap()],
            search_domains: vec!["corp".to_owned()],
        },
        resources: Vec::new(),
        relays: Vec::new(),
        authorizations: Vec::new(),
        session_expires_at_ms: None,
        keeps_flows: false,
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A sign-in of now that ends in so many hours.
pub(crate) fn fresh(hours: u64, is_too_old: bool) -> PortalToClient {
    let now = now_ms();
    PortalToClient::SignIn(SignIn {
        authenticated_at_ms: Some(now),
        expires_at_ms: Some(now + hours * 3_600_000),
        is_too_old,
    })
}
