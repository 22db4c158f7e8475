//! A client that says exactly what a test wants, over UDP, TCP or TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use adit_turn::channel_data;
use adit_turn::credentials;
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use adit_turn::stun::{AttributeKind, Class, ErrorCode, Key, Message, Method, TransactionId, Writer};
use rustls::pki_types::ServerName;

use crate::driver::{LIMIT, SECRET};

/// After this long without an answer a request is sent again over UDP.
const REPEAT: Duration = Duration::from_millis(500);
/// UDP, as REQUESTED-TRANSPORT has it.
const UDP: u32 = 17 << 24;

/// A TCP or TLS connection.
pub(crate) trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

enum Link {
    Udp(UdpSocket),
    Stream { connection: Box<dyn Connection>, splitter: Box<Splitter> },
}

/// The client.
pub(crate) struct Requester {
    link: Link,
    username: String,
    password: String,
    nonce: Vec<u8>,
    /// Data that came while an answer was waited for.
    data: Vec<(u16, Vec<u8>)>,
    /// Requests that had to be sent again.
    pub(crate) repeated: u32,
}

impl Requester {
    pub(crate) fn udp(server: SocketAddr) -> Self {
        let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).expect("binds");
        socket.connect(server).expect("connects");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
        Self::new(Link::Udp(socket))
    }

    pub(crate) fn tcp(server: SocketAddr) -> Self {
        Self::over(connect(server))
    }

    pub(crate) fn tls(server: SocketAddr, name: &str, config: &Arc<rustls::ClientConfig>) -> Self {
        Self::over(tls(server, name, config))
    }

    pub(crate) fn over(connection: impl Connection + 'static) -> Self {
        let splitter = Box::new(Splitter::new(LONGEST_MESSAGE));
        Self::new(Link::Stream { connection: Box::new(connection), splitter })
    }

    fn new(link: Link) -> Self {
        let mut requester = Self {
            link,
            username: String::new(),
            password: String::new(),
            nonce: Vec::new(),
            data: Vec::new(),
            repeated: 0,
        };
        requester.become_user("requester", SECRET);
        requester
    }

    pub(crate) fn become_user(&mut self, user: &str, secret: &str) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a sane clock");
        self.username = credentials::username(unix.as_secs() + 3600, user);
        self.password = credentials::password(secret.as_bytes(), &self.username);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.link {
            Link::Udp(socket) => socket.send(bytes).map(drop),
            Link::Stream { connection, .. } => connection.write_all(bytes).and_then(|()| connection.flush()),
        }
    }

    /// The next message, or `None` after a moment without one.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    pub(crate) fn receive(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let is_passing = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        };
        match &mut self.link {
            Link::Udp(socket) => {
                let mut buffer = vec![0; 65_536];
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Ok(Some(buffer))
                    }
                    Err(error) if is_passing(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Link::Stream { connection, splitter } => loop {
                if let Some(message) = splitter.next_message().map_err(std::io::Error::other)? {
                    return Ok(Some(message.to_vec()));
                }
                match connection.read(splitter.space()) {
                    Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(length) => splitter.filled(length),
                    Err(error) if is_passing(&error) => return Ok(None),
                    Err(error) => return Err(error),
                }
            },
        }
    }

    /// The socket of a client over UDP, once more.
    pub(crate) fn socket(&self) -> UdpSocket {
        match &self.link {
            Link::Udp(socket) => socket.try_clone().expect("clones"),
            Link::Stream { .. } => panic!("a connection is no socket"),
        }
    }

    pub(crate) fn request(&self, method: Method) -> Writer {
        // Never the same twice, because a later client may come from the same port.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut id = [7; 12];
        id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Writer::new(method, Class::Request, TransactionId(id))
    }

    pub(crate) fn allocate_request(&self) -> Writer {
        self.request(Method::ALLOCATE).number(AttributeKind::REQUESTED_TRANSPORT, UDP)
    }

    pub(crate) fn sign(&self, writer: Writer) -> Vec<u8> {
        let key = Key::long_term_md5(&self.username, "adit", &self.password);
        let writer = writer
            .attribute(AttributeKind::USERNAME, self.username.as_bytes())
            .attribute(AttributeKind::REALM, b"adit")
            .attribute(AttributeKind::NONCE, &self.nonce);
        writer.integrity(&key).finish()
    }

    /// Sends bytes until the answer to them comes.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let id = Message::parse(bytes).expect("well formed").transaction();
        let deadline = Instant::now() + LIMIT;
        let mut sent_at = None;
        loop {
            let now = Instant::now();
            assert!(now < deadline, "no answer");
            let is_udp = matches!(self.link, Link::Udp(_));
            if sent_at.is_none_or(|at| is_udp && now.duration_since(at) >= REPEAT) {
                self.repeated += u32::from(sent_at.is_some());
                self.send(bytes).expect("sends");
                sent_at = Some(now);
            }
            let Some(received) = self.receive().expect("open") else { continue };
            if let Some((number, range)) = channel_data::parse(&received) {
                self.data.push((number, received[range].to_vec()));
            } else if Message::parse(&received).is_ok_and(|message| message.transaction() == id) {
                return received;
            }
        }
    }

    /// Signs and sends; returns the answer.
    pub(crate) fn ask(&mut self, writer: Writer) -> Vec<u8> {
        if self.nonce.is_empty() {
            let request = self.allocate_request().finish();
            let challenge = self.exchange(&request);
            let message = Message::parse(&challenge).expect("well formed");
            assert_eq!(code(&challenge), 401);
            self.nonce = message.find(AttributeKind::NONCE).expect("a nonce").to_vec();
        }
        let bytes = self.sign(writer);
        self.exchange(&bytes)
    }

    /// The relayed address, or the error code.
    pub(crate) fn try_allocate(&mut self) -> Result<SocketAddr, u16> {
        let request = self.allocate_request();
        let answer = self.ask(request);
        match code(&answer) {
            0 => {
                let message = Message::parse(&answer).expect("well formed");
                Ok(message.xor_address(AttributeKind::XOR_RELAYED_ADDRESS).expect("an address"))
            }
            code => Err(code),
        }
    }

    pub(crate) fn allocate(&mut self) -> SocketAddr {
        self.try_allocate().expect("an allocation")
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let request = self.request(Method::CHANNEL_BIND);
        let request = request.number(AttributeKind::CHANNEL_NUMBER, u32::from(number) << 16);
        code(&self.ask(request.xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)))
    }

    pub(crate) fn refresh(&mut self, lifetime: u32) -> u16 {
        let request = self.request(Method::REFRESH);
        code(&self.ask(request.number(AttributeKind::LIFETIME, lifetime)))
    }

    /// Sends ChannelData, padded as a connection wants it.
    pub(crate) fn send_data(&mut self, number: u16, data: &[u8]) {
        let message = self.data_message(number, data);
        self.send(&message).expect("sends");
    }

    pub(crate) fn data_message(&self, number: u16, data: &[u8]) -> Vec<u8> {
        let mut message = channel_data::header(number, data.len() as u16).to_vec();
        message.extend_from_slice(data);
        if matches!(self.link, Link::Stream { .. }) {
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    /// The next data, within the time limit.
    pub(crate) fn receive_data(&mut self) -> (u16, Vec<u8>) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if !self.data.is_empty() {
                return self.data.remove(0);
            }
            assert!(Instant::now() < deadline, "no data");
            let Some(received) = self.receive().expect("open") else { continue };
            if let Some((number, range)) = channel_data::parse(&received) {
                return (number, received[range].to_vec());
            }
        }
    }

    /// Waits until the relay closes the connection.
    pub(crate) fn wait_closed(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.receive().is_ok() {
            assert!(Instant::now() < deadline, "the connection stays open");
        }
    }
}

/// The error code of an answer; 0 for success.
pub(crate) fn code(answer: &[u8]) -> u16 {
    let message = Message::parse(answer).expect("well formed");
    match message.class() {
        Class::Success => 0,
        _ => message.error_code().map_or(999, |ErrorCode(code)| code),
    }
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server, LIMIT).expect("connects");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
    stream.set_nodelay(true).expect("sets");
    stream
}

/// A TLS connection after its handshake.
pub(crate) fn tls(
    server: SocketAddr,
    name: &str,
    config: &Arc<rustls::ClientConfig>,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::clone(config), name).expect("sound");
    let mut socket = connect(server);
    let deadline = Instant::now() + LIMIT;
    while connection.is_handshaking() {
        assert!(Instant::now() < deadline, "no handshake");
        match connection.complete_io(&mut socket) {
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => panic!("the handshake fails: {error}"),
        }
    }
    rustls::StreamOwned::new(connection, socket)
}
