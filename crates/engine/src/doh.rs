//! DNS over HTTPS (RFC 8484): names that belong to no resource are asked for in secret.
//!
//! One HTTP/2 connection carries all queries, past the tunnel like everything of the daemon's; it is made by the first query
//! and made anew when it is gone. The server is known by its address, since its name could only be looked up through itself.
//! Messages carry the id 0 on the way (RFC 8484, section 4.1).
//!
//! Deliberately absent: a second way. Where the server does not answer, names are not resolved, and certainly not in the
//! clear.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_control_client::Dial as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::dial::MarkedDial;

/// The port of `https:`.
const HTTPS_PORT: u16 = 443;

/// The largest DNS message.
const LARGEST_MESSAGE: usize = 65_535;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");

/// Why a server for DNS over HTTPS cannot be used. The caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum DohError {
    /// No `https:` address.
    #[error("DNS over HTTPS needs an address such as https://dns.example/dns-query, not {0}")]
    Url(Url),
    /// A name, and nobody who could look it up.
    #[error("the address of {0} has to be given: its name could only be looked up through itself")]
    NoAddress(String),
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Roots(#[from] adit_control_client::RootsError),
}

/// A server that answers DNS over HTTPS.
#[derive(Clone)]
pub struct DohServer {
    url: Url,
    name: ServerName<'static>,
    addresses: Vec<SocketAddr>,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for DohServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DohServer").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl DohServer {
    /// The server behind `url`, at `addresses`; none are needed if the URL holds one. `ca` (PEM) is trusted instead of the
    /// public certificate authorities.
    ///
    /// # Errors
    ///
    /// See [`DohError`].
    pub fn new(url: Url, addresses: &[IpAddr], ca: Option<&[u8]>) -> Result<Self, DohError> {
        let host = url.host().filter(|_| url.scheme() == "https").map(|host| host.to_owned());
        let (name, own) = match host {
            Some(Host::Domain(name)) => (ServerName::try_from(name).ok(), None),
            Some(Host::Ipv4(address)) => (Some(IpAddr::V4(address).into()), Some(IpAddr::V4(address))),
            Some(Host::Ipv6(address)) => (Some(IpAddr::V6(address).into()), Some(IpAddr::V6(address))),
            None => (None, None),
        };
        let Some(name) = name else { return Err(DohError::Url(url)) };
        let port = url.port().unwrap_or(HTTPS_PORT);
        let addresses: Vec<SocketAddr> =
            if addresses.is_empty() { own.into_iter().collect() } else { addresses.to_vec() }
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect();
        if addresses.is_empty() {
            return Err(DohError::NoAddress(url.host_str().unwrap_or_default().to_owned()));
        }
        let mut tls = rustls::ClientConfig::clone(&*adit_control_client::client_config(ca)?);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { url, name, addresses, tls: Arc::new(tls) })
    }

    /// Where it listens, the first one first; never empty.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Asks one server.
#[derive(Debug)]
pub(crate) struct DohClient {
    server: DohServer,
    dial: MarkedDial,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl DohClient {
    pub(crate) fn new(server: DohServer, dial: MarkedDial) -> Self {
        Self { server, dial, connection: Mutex::new(None) }
    }

    /// Whether queries to this address are meant for the server.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        self.server.addresses.contains(&address)
    }

    /// Sends a DNS message and returns the answer. The caller limits the time; when that is over the connection may be
    /// dead, and [`forget`](Self::forget) is called.
    pub(crate) async fn ask(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let (Some(id), Some(rest)) = (message.get(..2), message.get(2..)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let body = Bytes::from([&[0, 0], rest].concat());
        let mut sender = self.sender().await?;
        let answer = match self.exchange(&mut sender, body.clone()).await {
            // It had ended, and nobody had noticed yet.
            Err(_) if sender.is_closed() => {
                self.forget().await;
                self.exchange(&mut self.sender().await?, body).await?
            }
            answer => answer?,
        };
        match answer.get(2..) {
            Some(rest) => Ok([id, rest].concat()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The next query makes a new connection.
    pub(crate) async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    async fn sender(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *connection = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = self.open().await?;
        let connector = TlsConnector::from(Arc::clone(&self.server.tls));
        let stream = connector.connect(self.server.name.clone(), stream).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // What goes wrong shows at the sender.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// The first address that answers.
    async fn open(&self) -> io::Result<tokio::net::TcpStream> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.server.addresses() {
            match async { self.dial.socket(*address)?.connect(*address).await }.await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn exchange(&self, sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> io::Result<Bytes> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.server.url.as_str())
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let is_dns = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
        if response.status() != StatusCode::OK || !is_dns {
            return Err(io::Error::other(format!("the server answers with {}", response.status())));
        }
        let answer = Limited::new(response.into_body(), LARGEST_MESSAGE).collect().await;
        Ok(answer.map_err(io::Error::other)?.to_bytes())
    }
}

#[cfg(test)]
mod tests;
