use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, server};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const PLAIN: MarkedDial = MarkedDial { mark: None };

/// A server that answers every message with its own bytes and `!`, and counts connections.
struct Server {
    address: SocketAddr,
    authority: String,
    connections: Arc<AtomicUsize>,
    tasks: Arc<std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Server {
    async fn start(media_type: &'static str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["dns.example".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (counter, kept) = (Arc::clone(&connections), Arc::clone(&tasks));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                let task = tokio::spawn(async move {
                    // A client that does not believe us goes away.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, media_type));
                    let serving = server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
                kept.lock().unwrap().push(task);
            }
        });
        Self { address, authority: certificate.pem(), connections, tasks }
    }

    fn client(&self, ca: Option<&str>) -> DohClient {
        let url = format!("https://dns.example:{}/dns-query", self.address.port()).parse().unwrap();
        let server = DohServer::new(url, &[self.address.ip()], ca.map(str::as_bytes)).unwrap();
        DohClient::new(server, PLAIN)
    }

    fn break_connections(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

async fn answer(request: Request<Incoming>, kind: &'static str) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/dns-query"));
    assert_eq!(request.headers()[CONTENT_TYPE], "application/dns-message");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..2], [0, 0], "the id stays at home");
    let body = Bytes::from([&body[..], b"!"].concat());
    Ok(Response::builder().header(CONTENT_TYPE, kind).body(Full::new(body)).unwrap())
}

#[tokio::test]
async fn queries_share_one_connection_and_get_their_ids_back() {
    let server = Server::start("application/dns-message").await;
    let client = server.client(Some(&server.authority));
    assert!(client.is_at(server.address));
    assert_eq!(client.ask(b"\x12\x34question").await.unwrap(), b"\x12\x34question!");
    let (one, two) = tokio::join!(client.ask(b"\x00\x01one"), client.ask(b"\x00\x02two"));
    assert_eq!((one.unwrap(), two.unwrap()), (b"\x00\x01one!".to_vec(), b"\x00\x02two!".to_vec()));
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    assert!(client.ask(b"\x01").await.is_err(), "that is no message");
}

#[tokio::test]
async fn a_connection_that_ended_is_made_anew() {
    let server = Server::start("application/dns-message").await;
    let client = server.client(Some(&server.authority));
    client.ask(b"\x12\x34question").await.unwrap();
    server.break_connections();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.ask(b"\x12\x34again").await.unwrap(), b"\x12\x34again!");
    client.forget().await;
    client.ask(b"\x12\x34again").await.unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn somebody_else_is_not_asked() {
    let server = Server::start("application/dns-message").await;
    assert!(server.client(None).ask(b"\x12\x34question").await.is_err(), "no public authority signed that");
    let other = Server::start("application/dns-message").await;
    assert!(server.client(Some(&other.authority)).ask(b"\x12\x34question").await.is_err());
}

#[tokio::test]
async fn what_is_no_dns_is_no_answer() {
    let server = Server::start("text/html").await;
    let client = server.client(Some(&server.authority));
    assert!(client.ask(b"\x12\x34question").await.is_err());
}

#[test]
fn a_server_needs_an_address_that_can_be_reached_without_it() {
    let server = |url: &str, addresses: &[IpAddr]| DohServer::new(url.parse().unwrap(), addresses, None);
    let port = |server: Result<DohServer, DohError>| server.unwrap().addresses()[0].port();
    assert_eq!(port(server("https://192.0.2.53/dns-query", &[])), 443);
    assert_eq!(port(server("https://[2001:db8::53]:8443/dns-query", &[])), 8443);
    assert_eq!(port(server("https://dns.example/", &["192.0.2.53".parse().unwrap()])), 443);
    assert!(matches!(server("https://dns.example/dns-query", &[]), Err(DohError::NoAddress(_))));
    assert!(matches!(server("http://192.0.2.53/dns-query", &[]), Err(DohError::Url(_))));
    assert!(matches!(server("tls:somewhere", &[]), Err(DohError::Url(_))));
}

#[tokio::test]
async fn what_goes_to_its_address_goes_over_https_and_all_else_does_not() {
    use crate::upstream::{Transport, Upstreams};
    let server = Server::start("application/dns-message").await;
    let plain = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let doh = server.client(Some(&server.authority)).server;
    let (upstreams, mut answers) = Upstreams::new(PLAIN, Some(doh));
    for transport in [Transport::Udp, Transport::Tcp] {
        upstreams.query(7, server.address, transport, b"\x12\x34question".to_vec());
        let (id, answer) = answers.recv().await.unwrap();
        assert_eq!((id, answer.unwrap()), (7, b"\x12\x34question!".to_vec()));
    }
    upstreams.query(8, plain.local_addr().unwrap(), Transport::Udp, b"\x12\x34question".to_vec());
    let mut heard = [0; 64];
    let (length, _) = plain.recv_from(&mut heard).await.unwrap();
    assert_eq!(&heard[..length], b"\x12\x34question");
}
