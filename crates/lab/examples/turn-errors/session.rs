//! One user's conversation with a server, request by request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use adit_turn::credentials;
use adit_turn::stun::{AttributeKind, Class, Key, Message, Method, TransactionId, Writer};
use anyhow::{Context as _, Result, ensure};
use rand::TryRngCore as _;

/// How long the credentials are good.
const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(3_600);

/// How long to wait for an answer, and how often to ask.
const WAIT: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 4;

/// The answer to a request: 0 for success, else the error code; `None` when none came.
pub(crate) type Code = Option<u16>;

/// What REQUESTED-TRANSPORT says for UDP.
pub(crate) const UDP: [u8; 4] = [17, 0, 0, 0];

/// A user on a socket, with what the server said in its challenge.
#[derive(Debug)]
pub(crate) struct Session {
    socket: UdpSocket,
    username: String,
    password: String,
    pub(crate) realm: String,
    pub(crate) nonce: Vec<u8>,
}

impl Session {
    /// Opens a socket, and has the server ask for credentials.
    pub(crate) fn new(server: SocketAddr, secret: &str, user: &str) -> Result<Self> {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).context("cannot open a UDP socket")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(WAIT))?;
        let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + CREDENTIAL_LIFETIME;
        let username = credentials::username(expires.as_secs(), user);
        let password = credentials::password(secret.as_bytes(), &username);
        let mut session = Self { socket, username, password, realm: String::new(), nonce: Vec::new() };
        session.challenge()?;
        Ok(session)
    }

    /// Learns realm and nonce anew.
    fn challenge(&mut self) -> Result<()> {
        let request = allocate(start(Method::ALLOCATE)?).finish();
        let answer = self.exchange(&request)?.context("the server does not answer")?;
        let message = Message::parse(&answer)?;
        ensure!(message.error_code().is_some_and(|code| code.0 == 401), "no challenge but {message:?}");
        self.realm = message.text(AttributeKind::REALM).context("no realm")?.to_owned();
        self.nonce = message.find(AttributeKind::NONCE).context("no nonce")?.to_vec();
        Ok(())
    }

    /// Becomes another user on the same socket.
    pub(crate) fn become_user(&mut self, other: &Self) {
        (self.username, self.password) = (other.username.clone(), other.password.clone());
    }

    /// Forgets the right password.
    pub(crate) fn forget_password(&mut self) {
        "not the password".clone_into(&mut self.password);
    }

    /// Sends a request with whatever attributes, signed.
    pub(crate) fn ask(&self, method: Method, attributes: impl FnOnce(Writer) -> Writer) -> Result<Code> {
        let request = self.sign(attributes(start(method)?), true);
        self.send(&request)
    }

    /// Sends finished bytes.
    pub(crate) fn send(&self, request: &[u8]) -> Result<Code> {
        let Some(answer) = self.exchange(request)? else { return Ok(None) };
        let message = Message::parse(&answer)?;
        Ok(match message.class() {
            Class::Success => Some(0),
            _ => message.error_code().map(|code| code.0),
        })
    }

    /// Adds credentials, with the nonce or without.
    pub(crate) fn sign(&self, request: Writer, with_nonce: bool) -> Vec<u8> {
        let mut request = request
            .attribute(AttributeKind::USERNAME, self.username.as_bytes())
            .attribute(AttributeKind::REALM, self.realm.as_bytes());
        if with_nonce {
            request = request.attribute(AttributeKind::NONCE, &self.nonce);
        }
        request.integrity(&Key::long_term_md5(&self.username, &self.realm, &self.password)).finish()
    }

    /// Sends until an answer to this very request comes.
    fn exchange(&self, request: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 2_048];
        for _ in 0..ATTEMPTS {
            self.socket.send(request)?;
            while let Ok(length) = self.socket.recv(&mut buffer) {
                if buffer[..length].get(8..20) == request.get(8..20) {
                    return Ok(Some(buffer[..length].to_vec()));
                }
            }
        }
        Ok(None)
    }
}

/// A request without attributes.
pub(crate) fn start(method: Method) -> Result<Writer> {
    let mut transaction = [0; 12];
    rand::rngs::OsRng.try_fill_bytes(&mut transaction).context("no randomness")?;
    Ok(Writer::new(method, Class::Request, TransactionId(transaction)))
}

/// What every sound Allocate has.
pub(crate) fn allocate(request: Writer) -> Writer {
    request.attribute(AttributeKind::REQUESTED_TRANSPORT, &UDP)
}
