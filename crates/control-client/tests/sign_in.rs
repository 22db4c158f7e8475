//! Getting a token from a portal over TLS: one that does as the contract says, and ones that do not.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_control_client::sign_in::{CodeGrant, ExchangeError, SignInClient, SignInConfig};
use adit_control_client::{ConfigError, SystemDial};
use adit_protocol::sign_in::{DeviceCode, SignInError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

/// What the portal does with one connection.
enum Act {
    /// Answers so.
    Answer(&'static str, String),
    /// Says these bytes, which may be no HTTP.
    Say(Vec<u8>),
    /// Closes without a word.
    Close,
    /// Says nothing, and does not close.
    Hang,
}

/// A portal with a script; remembers what it was asked.
struct Portal {
    port: u16,
    ca: Vec<u8>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Portal {
    async fn start(script: Vec<Act>) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            for act in script {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let request = read_request(&mut stream).await;
                record.lock().unwrap().push(request);
                match act {
                    Act::Answer(status, body) => {
                        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                        stream.write_all(head.as_bytes()).await.unwrap();
                        // Whoever has enough goes away.
                        let _ = stream.write_all(body.as_bytes()).await;
                    }
                    Act::Say(bytes) => drop(stream.write_all(&bytes).await),
                    Act::Close => {}
                    Act::Hang => std::future::pending().await,
                }
                let _ = stream.shutdown().await;
            }
        });
        Self { port, ca: certified.cert.pem().into_bytes(), asked }
    }

    fn client(&self) -> SignInClient {
        SignInClient::new(SignInConfig {
            url: Url::parse(&format!("wss://localhost:{}/base", self.port)).unwrap(),
            ca: Some(self.ca.clone()),
            allow_plain: false,
            user_agent: "aditd/0".to_owned(),
            dial: Arc::new(SystemDial),
        })
        .unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap_or("0").parse().unwrap() {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return text;
        }
    }
}

fn ok(body: &str) -> Act {
    Act::Answer("200 OK", body.to_owned())
}

fn no(body: &str) -> Act {
    Act::Answer("400 Bad Request", body.to_owned())
}

const TOKEN: &str =
    r#"{"access_token":"adit_client_new","token_type":"Bearer","expires_in":60,"actor_name":"Maria"}"#;
const PENDING: &str = r#"{"error":"authorization_pending"}"#;

fn device_code() -> DeviceCode {
    serde_json::from_str(
        r#"{"device_code":"dc","user_code":"BCDF-GHJK","verification_uri":"https://localhost/device","expires_in":60,"interval":1}"#,
    )
    .unwrap()
}

#[tokio::test]
async fn a_device_code_becomes_a_token() {
    let code = r#"{"device_code":"dc","user_code":"BCDF-GHJK","verification_uri":"https://localhost/device","expires_in":60,"interval":1}"#;
    let portal = Portal::start(vec![ok(code), Act::Close, no(PENDING), ok(TOKEN)]).await;
    let client = portal.client();
    let code = client.device_code("lap & top").await.unwrap();
    assert_eq!((code.user_code.as_str(), code.interval), ("BCDF-GHJK", 1));
    let token = client.redeem_device_code(&code, Some("adit_client_old".to_owned())).await.unwrap();
    assert_eq!((token.access_token.as_str(), token.actor_name.as_str()), ("adit_client_new", "Maria"));
    let asked = portal.asked();
    assert!(asked[0].starts_with("POST /base/v1/sign-in/device HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].ends_with("client_id=adit&device_name=lap+%26+top"), "{}", asked[0]);
    assert_eq!(asked.len(), 4, "an answer that was lost is asked for again");
    assert!(asked[3].starts_with("POST /base/v1/sign-in/token HTTP/1.1\r\n"));
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&client_id=adit";
    assert!(asked[3].ends_with(&format!("{grant}&device_code=dc&renews=adit_client_old")), "{}", asked[3]);
}

#[tokio::test]
async fn a_code_is_offered_again_while_the_portal_is_busy_and_never_when_it_may_have_been_taken() {
    let busy = Act::Answer("503 Service Unavailable", String::new());
    let portal = Portal::start(vec![busy, ok(TOKEN)]).await;
    let grant = CodeGrant::new(&[5; 64]);
    let redirect = "http://127.0.0.1:7/callback".to_owned();
    let token = portal.client().redeem_code(&grant, "c".to_owned(), redirect.clone(), None).await.unwrap();
    assert_eq!(token.access_token, "adit_client_new");
    let asked = portal.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains("&code=c&redirect_uri=http%3A%2F%2F127.0.0.1%3A7%2Fcallback&code_verifier="));
    assert!(!asked[1].contains("renews"));

    let portal = Portal::start(vec![Act::Close, ok(TOKEN)]).await;
    let error =
        portal.client().redeem_code(&grant, "c".to_owned(), redirect.clone(), None).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Lost(_)), "{error:?}");
    assert_eq!(portal.asked().len(), 1);

    let denied = r#"{"error":"access_denied","error_description":"no\u001b[2J device for you"}"#;
    let portal = Portal::start(vec![no(denied), ok(TOKEN)]).await;
    let error = portal.client().redeem_code(&grant, "c".to_owned(), redirect, None).await.unwrap_err();
    let description = Some("no[2J device for you".to_owned());
    assert_eq!(error, ExchangeError::Refused { error: SignInError::AccessDenied, description });
    assert_eq!(portal.asked().len(), 1);
}

#[tokio::test]
async fn an_ended_device_code_says_so() {
    let portal = Portal::start(vec![no(r#"{"error":"expired_token"}"#)]).await;
    let error = portal.client().redeem_device_code(&device_code(), None).await.unwrap_err();
    assert_eq!(error, ExchangeError::Refused { error: SignInError::ExpiredToken, description: None });
    assert_eq!(error.to_string(), "nobody approved the sign-in in time");
}

#[tokio::test]
async fn nonsense_is_an_error_that_says_so() {
    let huge = format!("{{\"device_code\":\"{}\"}}", "x".repeat(1 << 20));
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes();
    let cases = [
        ok("<html>captive portal</html>"),
        ok("{}"),
        ok(&huge),
        ok(&"[".repeat(60_000)),
        no("teapot"),
        Act::Answer("302 Found", String::new()),
        Act::Answer("404 Not Found", "not found".to_owned()),
        Act::Say(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        Act::Say(vec![0; 9000]),
        Act::Say(header),
    ];
    for (index, act) in cases.into_iter().enumerate() {
        let portal = Portal::start(vec![act]).await;
        let error = portal.client().device_code("x").await.unwrap_err();
        assert!(matches!(error, ExchangeError::Malformed(_)), "case {index}: {error:?}");
    }
    let cut = Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"dev".to_vec());
    for act in [cut, Act::Close] {
        let portal = Portal::start(vec![act]).await;
        let error = portal.client().device_code("x").await.unwrap_err();
        assert!(matches!(error, ExchangeError::Lost(_)), "{error:?}");
    }
    let portal = Portal::start(vec![Act::Answer("502 Bad Gateway", "x".to_owned())]).await;
    let error = portal.client().device_code("x").await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_portal_that_never_answers_is_given_up() {
    let portal = Portal::start(vec![Act::Hang]).await;
    let began = tokio::time::Instant::now();
    let error = portal.client().device_code("x").await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable(_) | ExchangeError::Lost(_)), "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(16));
}

#[tokio::test]
async fn only_the_given_authority_is_believed() {
    let portal = Portal::start(vec![ok(TOKEN)]).await;
    let other = Portal::start(Vec::new()).await;
    let client = Portal { port: portal.port, ca: other.ca, asked: Arc::default() }.client();
    let error = client.device_code("x").await.unwrap_err();
    assert!(
        matches!(&error, ExchangeError::Unreachable(reason) if reason.starts_with("TLS with")),
        "{error}"
    );
    assert!(portal.asked().is_empty(), "no secret left us");
}

#[test]
fn plain_http_needs_permission() {
    let config = |allow_plain| SignInConfig {
        url: Url::parse("ws://localhost:1").unwrap(),
        ca: None,
        allow_plain,
        user_agent: String::new(),
        dial: Arc::new(SystemDial),
    };
    assert!(matches!(SignInClient::new(config(false)), Err(ConfigError::Plain(_))));
    let client = SignInClient::new(config(true)).unwrap();
    let url = client.authorize_url(&CodeGrant::new(&[0; 64]), "http://127.0.0.1:9/callback", "my laptop");
    assert_eq!((url.scheme(), url.path()), ("http", "/device/authorize"));
    let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(query["response_type"], "code");
    assert_eq!(query["code_challenge_method"], "S256");
    assert_eq!(query["redirect_uri"], "http://127.0.0.1:9/callback");
    assert_eq!(query["device_name"], "my laptop");
}
