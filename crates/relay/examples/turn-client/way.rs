//! What carries datagrams to the server and back: a UDP socket, or a connection with messages in it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_turn::Transmit;
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use anyhow::{Context as _, Result, bail};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

/// The largest UDP payload.
const LARGEST: usize = 65_535;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The way to the server.
pub(crate) enum Way {
    Udp { socket: UdpSocket, buffer: Vec<u8> },
    Stream(Box<Stream>),
}

/// A connection, encrypted or not.
pub(crate) struct Stream {
    server: SocketAddr,
    /// The same connection, for its timeouts.
    socket: TcpStream,
    bytes: Box<dyn Bytes>,
    splitter: Splitter,
}

pub(crate) trait Bytes: Read + Write {}

impl<T: Read + Write> Bytes for T {}

impl Way {
    pub(crate) fn udp(server: SocketAddr) -> Result<Self> {
        let local: SocketAddr = match server.is_ipv4() {
            true => (Ipv4Addr::UNSPECIFIED, 0).into(),
            false => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).context("cannot open a UDP socket")?;
        Ok(Self::Udp { socket, buffer: vec![0; LARGEST] })
    }

    pub(crate) fn tcp(server: SocketAddr) -> Result<Self> {
        let socket = connect(server)?;
        let bytes = Box::new(socket.try_clone()?);
        Ok(Self::stream(server, socket, bytes))
    }

    /// TLS to a server whose certificate names its address.
    pub(crate) fn tls(server: SocketAddr, ca: &Path) -> Result<Self> {
        let socket = connect(server)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), ServerName::from(server.ip()))?;
        let mut bytes = StreamOwned::new(tls, socket.try_clone()?);
        bytes.flush().context("TLS")?;
        Ok(Self::stream(server, socket, Box::new(bytes)))
    }

    fn stream(server: SocketAddr, socket: TcpStream, bytes: Box<dyn Bytes>) -> Self {
        Self::Stream(Box::new(Stream { server, socket, bytes, splitter: Splitter::new(LONGEST_MESSAGE) }))
    }

    pub(crate) fn send(&mut self, transmit: &Transmit) -> Result<()> {
        match self {
            Self::Udp { socket, .. } => {
                // What cannot leave is lost, as anywhere on the way.
                let _ = socket.send_to(&transmit.payload, transmit.destination);
                Ok(())
            }
            Self::Stream(stream) => {
                stream.bytes.write_all(&transmit.payload)?;
                stream.bytes.flush().context("the connection is broken")
            }
        }
    }

    /// Waits for datagrams and takes them.
    pub(crate) fn receive(&mut self, wait: Duration, mut take: impl FnMut(SocketAddr, &[u8])) -> Result<()> {
        match self {
            Self::Udp { socket, buffer } => {
                socket.set_read_timeout(Some(wait))?;
                match socket.recv_from(buffer) {
                    Ok((length, from)) => take(from, &buffer[..length]),
                    // An ICMP error of an earlier datagram also ends up here.
                    Err(error) if is_transient(&error) => {}
                    Err(error) => return Err(error).context("the socket is broken"),
                }
            }
            Self::Stream(stream) => {
                stream.socket.set_read_timeout(Some(wait))?;
                match stream.bytes.read(stream.splitter.space()) {
                    Ok(0) => bail!("the server closed the connection"),
                    Ok(count) => stream.splitter.filled(count),
                    Err(error) if is_transient(&error) => return Ok(()),
                    Err(error) => return Err(error).context("the connection is broken"),
                }
                while let Some(message) = stream.splitter.next_message()? {
                    take(stream.server, message);
                }
            }
        }
        Ok(())
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&server, CONNECT_LIMIT).context("cannot connect")?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}
