//! Streams to a relay that is a thread of ours: a socket, TLS perhaps, and what it is told to do with bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_dataplane::StreamId;
use adit_protocol::RelayTls;
use adit_tunnel::StreamTarget;
use aws_lc_rs::digest;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use super::*;
use crate::dial::MarkedDial;

const ID: StreamId = StreamId(7);

/// A channel data message of `length` bytes.
fn message(number: u8, length: usize) -> Vec<u8> {
    let size = u16::try_from(length).unwrap().to_be_bytes();
    [&[0x40, number, size[0], size[1]][..], &vec![number; length]].concat()
}

fn padded(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// What a relay does with a connection.
type Conduct = Box<dyn FnOnce(Box<dyn Stream>) + Send>;

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Sends everything back.
fn echo() -> Conduct {
    Box::new(|mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

struct Relay {
    address: SocketAddr,
    certificate: CertifiedKey<rcgen::KeyPair>,
    _thread: JoinHandle<()>,
}

impl Relay {
    fn start(is_tls: bool, conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let thread = std::thread::spawn(move || {
            let Ok((socket, _)) = listener.accept() else { return };
            if is_tls {
                let connection = ServerConnection::new(Arc::new(config)).unwrap();
                conduct(Box::new(StreamOwned::new(connection, socket)));
            } else {
                conduct(Box::new(socket));
            }
        });
        Self { address, certificate, _thread: thread }
    }

    fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.certificate.cert.der());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn target(&self, tls: Option<Option<String>>) -> StreamTarget {
        let tls = tls.map(|certificate_sha256| RelayTls {
            port: self.address.port(),
            server_name: "relay.example".to_owned(),
            certificate_sha256,
        });
        StreamTarget { id: adit_tunnel::StreamId(ID.0), addresses: vec![self.address], tls }
    }
}

struct Ours {
    streams: Arc<Streams>,
    news: mpsc::Receiver<News>,
    keeper: Keeper,
}

impl Ours {
    fn new(ca: Option<&[u8]>) -> Self {
        let (streams, news) = Streams::new().unwrap();
        let trusted = adit_control_client::client_config(ca).unwrap();
        let keeper = Keeper::new(Arc::clone(&streams), MarkedDial { mark: None }, trusted);
        Self { streams, news, keeper }
    }

    async fn open(&mut self, target: StreamTarget) -> News {
        self.keeper.want(&[target]);
        self.next().await
    }

    async fn next(&mut self) -> News {
        tokio::time::timeout(Duration::from_secs(10), self.news.recv()).await.unwrap().unwrap()
    }

    /// Reads as a worker does until this many messages have come.
    fn read(&self, count: usize) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while messages.len() < count && std::time::Instant::now() < end {
            for connection in self.streams.ready() {
                let mut input = connection.input();
                let read = (|| {
                    while connection.receive(&mut input)? {
                        messages
                            .extend(input.splitter.whole_messages().unwrap().map(|message| message.to_vec()));
                    }
                    self.streams.write(&connection)
                })();
                self.streams.settle(&connection, read);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        messages
    }
}

async fn exchange(is_tls: bool, ca: Option<&[u8]>, tls: impl FnOnce(&Relay) -> Option<Option<String>>) {
    let relay = Relay::start(is_tls, echo());
    let tls = tls(&relay);
    let mut ours = Ours::new(ca);
    assert_eq!(ours.open(relay.target(tls)).await, News::Opened(ID));
    let sizes = [0, 1, 5, 1420, 40_000];
    for (number, size) in (0..).zip(sizes) {
        ours.streams.send(ID, &message(number, size));
    }
    // A train whose last message is shorter, and one that needs padding.
    ours.streams.queue(ID, &[message(9, 1396), message(9, 1396), message(9, 100)].concat(), 1400);
    ours.streams.queue(ID, &[message(8, 5), message(8, 5)].concat(), 9);
    ours.streams.flush();
    let mut expected: Vec<_> =
        (0..).zip(sizes).map(|(number, size)| padded(&message(number, size))).collect();
    expected.extend([message(9, 1396), message(9, 1396), message(9, 100)]);
    expected.extend([padded(&message(8, 5)), padded(&message(8, 5))]);
    let got = ours.read(expected.len());
    assert!(got == expected, "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
    assert!(ours.streams.are_flushed());
}

#[tokio::test]
async fn messages_go_both_ways_over_tcp() {
    exchange(false, None, |_| None).await;
}

#[tokio::test]
async fn messages_go_both_ways_over_tls_with_a_certificate_that_the_portal_vouches_for() {
    exchange(true, None, |relay| Some(Some(relay.fingerprint()))).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    for fingerprint in [None, Some("0".repeat(64))] {
        let relay = Relay::start(true, echo());
        let mut ours = Ours::new(None);
        assert_eq!(ours.open(relay.target(Some(fingerprint))).await, News::Closed(ID));
    }
}

/// Why a stream could not be made, if that was because of the relay's certificate.
async fn refusal(target: &StreamTarget) -> Option<String> {
    let trusted = adit_control_client::client_config(None).unwrap();
    let made = connect::connect(ID, MarkedDial { mark: None }, &trusted, target).await;
    tls::refusal(&made.err()?)
}

#[tokio::test]
async fn a_refused_certificate_is_told_from_other_failures() {
    let (relay, named) = (Relay::start(true, echo()), "0".repeat(64));
    let told = refusal(&relay.target(Some(Some(named.clone())))).await.unwrap();
    assert!(told.contains(&relay.fingerprint()) && told.contains(&named), "{told}");
    let relay = Relay::start(true, echo());
    assert!(refusal(&relay.target(Some(None))).await.is_some(), "of no authority");
    let nonsense =
        Relay::start(false, Box::new(|mut stream| stream.write_all(b"HTTP/1.1 400\r\n\r\n").unwrap()));
    assert_eq!(refusal(&nonsense.target(Some(Some(named)))).await, None);
}

#[tokio::test]
async fn a_certificate_of_the_portals_authority_is_accepted() {
    let relay = Relay::start(true, echo());
    let pem = relay.certificate.cert.pem();
    let mut ours = Ours::new(Some(pem.as_bytes()));
    assert_eq!(ours.open(relay.target(Some(None))).await, News::Opened(ID));
    let mut target = relay.target(Some(None));
    target.id = adit_tunnel::StreamId(8);
    target.tls.as_mut().unwrap().server_name = "another.example".to_owned();
    let other = Relay::start(true, echo());
    target.addresses = vec![other.address];
    assert_eq!(ours.open(target).await, News::Closed(StreamId(8)));
}

#[tokio::test]
async fn a_relay_that_is_not_there_or_speaks_otherwise_is_a_failure() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay =
        Relay::start(false, Box::new(|mut stream| stream.write_all(b"HTTP/1.1 400\r\n\r\n").unwrap()));
    for (address, tls) in [(closed, None), (relay.address, Some(None))] {
        let mut ours = Ours::new(None);
        let target = StreamTarget { addresses: vec![address], ..relay.target(tls) };
        assert_eq!(ours.open(target).await, News::Closed(ID));
    }
}

#[tokio::test]
async fn a_stream_that_ends_is_told_once_and_forgotten() {
    for is_tls in [false, true] {
        let conduct: Conduct = Box::new(|mut stream| {
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).unwrap();
            stream.write_all(&message(1, 4)).unwrap();
        });
        let relay = Relay::start(is_tls, conduct);
        let mut ours = Ours::new(None);
        let tls = is_tls.then(|| Some(relay.fingerprint()));
        assert_eq!(ours.open(relay.target(tls)).await, News::Opened(ID));
        ours.streams.send(ID, &message(0, 0));
        assert_eq!(ours.read(1), [message(1, 4)], "TLS {is_tls}");
        while ours.streams.find(ID).is_some() {
            ours.read(1);
        }
        assert_eq!(ours.next().await, News::Closed(ID));
        ours.streams.send(ID, &message(0, 0));
        assert!(ours.news.try_recv().is_err(), "no second time");
    }
}

/// A relay that does not read makes the queue full: data is lost, what matters is not, and all goes on when it reads.
#[tokio::test]
async fn a_slow_relay_costs_data_and_nothing_else() {
    for is_tls in [false, true] {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let conduct: Conduct = Box::new(move |mut stream| {
            if is_tls {
                // The handshake needs somebody who reads.
                stream.read_exact(&mut [0; 4]).unwrap();
            }
            wait.recv().unwrap();
            echo()(stream);
        });
        let relay = Relay::start(is_tls, conduct);
        let mut ours = Ours::new(None);
        let tls = is_tls.then(|| Some(relay.fingerprint()));
        assert_eq!(ours.open(relay.target(tls)).await, News::Opened(ID));
        if is_tls {
            ours.streams.send(ID, &message(0, 0));
        }
        let train = message(1, 1396).repeat(45);
        for _ in 0..400 {
            ours.streams.queue(ID, &train, 1400);
            ours.streams.flush();
        }
        let connection = ours.streams.find(ID).unwrap();
        assert_eq!(connection.queue(&train, 1400), 45, "full");
        assert!(!ours.streams.are_flushed());
        ours.streams.send(ID, &message(2, 100));
        go.send(()).unwrap();
        let mut got = Vec::new();
        while got.last() != Some(&message(2, 100)) {
            let more = ours.read(1);
            assert!(!more.is_empty(), "TLS {is_tls}: it ends after {}", got.len());
            got.extend(more);
        }
        assert!(got[..got.len() - 1].iter().all(|other| *other == message(1, 1396)));
        assert!(got.len() < 400 * 45, "some were dropped");
    }
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_closed() {
    let (seen, end) = std::sync::mpsc::channel();
    let conduct: Conduct = Box::new(move |mut stream| {
        let mut all = Vec::new();
        let ended = stream.read_to_end(&mut all);
        seen.send((ended.is_ok(), all)).unwrap();
    });
    let relay = Relay::start(true, conduct);
    let mut ours = Ours::new(None);
    let target = relay.target(Some(Some(relay.fingerprint())));
    assert_eq!(ours.open(target.clone()).await, News::Opened(ID));
    ours.keeper.want(&[target]);
    ours.streams.send(ID, &message(3, 4));
    ours.keeper.want(&[]);
    assert!(ours.streams.find(ID).is_none());
    let (was_orderly, all) = end.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(was_orderly && all == message(3, 4), "last words arrive, and the end is announced");
    assert!(ours.news.try_recv().is_err());
}

#[test]
fn nobody_hears_of_streams_that_are_not_there() {
    let (streams, _news) = Streams::new().unwrap();
    streams.queue(ID, &message(1, 4), 8);
    streams.send(ID, &message(1, 4));
    streams.flush();
    assert!(streams.are_flushed() && streams.ready().next().is_none());
}
