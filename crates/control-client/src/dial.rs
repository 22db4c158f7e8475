//! Opening the TCP connection: every address of the name, a little apart, first one wins.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Pause before the next address is tried beside the ones that have not answered (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// How long a name look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Makes the sockets through which the portal is reached.
pub trait Dial: Send + Sync + fmt::Debug {
    /// A fresh socket for connecting to `address`, marked or bound as the owner needs it.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket>;
}

/// Plain sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDial;

impl Dial for SystemDial {
    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    }
}

/// Connects by name, and remembers where the name led.
pub(crate) struct Dialer {
    dial: Arc<dyn Dial>,
    known: Mutex<Vec<SocketAddr>>,
}

impl Dialer {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, known: Mutex::default() }
    }

    /// Connects to `host` and `port`; the families of its addresses alternate.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolve(host, port).await?;
        connect_first(&*self.dial, addresses).await
    }

    /// The addresses of the name; those of the last time while names do not work, which is
    /// common just after a network change.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = match tokio::time::timeout(LOOKUP_LIMIT, lookup_host((host, port))).await {
            Ok(found) => found.map(alternate),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the name look-up takes too long")),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) => {
                known.clone_from(&addresses);
                Ok(addresses)
            }
            Err(error) if known.is_empty() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the portal's name does not resolve; trying its last addresses");
                Ok(known.clone())
            }
        }
    }
}

/// Tries the addresses in order; the next one starts when the last one has failed, or has not
/// answered for a moment. The first that answers wins.
///
/// # Errors
///
/// What came of the last address.
pub async fn connect_first(dial: &dyn Dial, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter().take(MOST_ADDRESSES);
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => attempts.push(async move { dial.socket(address)?.connect(address).await }),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let pause = if waiting.len() == 0 { Duration::MAX } else { STAGGER };
        match tokio::time::timeout(pause, attempts.next()).await {
            Ok(Some(Ok(stream))) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
}

/// IPv6 and IPv4 in turns, each in the resolver's order.
fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    (0..longest).flat_map(|place| [v6.get(place).copied(), v4.get(place).copied()]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("192.0.2.1:1"), address("192.0.2.2:1"), address("[2001:db8::1]:1"));
        assert_eq!(alternate([a, b, c].into_iter()), [c, a, b]);
    }

    async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_refused_address_costs_no_pause() {
        let ((closed, refused), (_open, address)) = (listener().await, listener().await);
        drop(closed);
        let start = tokio::time::Instant::now();
        let stream = connect_first(&SystemDial, vec![refused, refused, address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(start.elapsed() < STAGGER);
        let failed = connect_first(&SystemDial, vec![refused, refused]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_first(&SystemDial, Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Refuses to make a socket for one address.
    #[derive(Debug)]
    struct Without(SocketAddr);

    impl Dial for Without {
        fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
            if address == self.0 {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
            SystemDial.socket(address)
        }
    }

    #[tokio::test]
    async fn a_family_that_the_host_lacks_is_skipped() {
        let (_open, address) = listener().await;
        let absent: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        assert!(connect_first(&Without(absent), vec![absent, address]).await.is_ok());
    }

    #[tokio::test]
    async fn the_last_addresses_serve_while_names_do_not() {
        let (_open, address) = listener().await;
        let dialer = Dialer::new(Arc::new(SystemDial));
        assert!(dialer.connect("name.invalid", address.port()).await.is_err());
        dialer.known.lock().unwrap().push(address);
        assert!(dialer.connect("name.invalid", address.port()).await.is_ok());
    }
}
