//! Opening the TCP connection: every address of the name, a little apart, first one wins.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Pause before the next address is tried beside the ones that have not answered (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

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

/// Connects to `host` and `port`; the families of its addresses alternate.
pub(crate) async fn connect(dial: &dyn Dial, host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = alternate(lookup_host((host, port)).await?);
    let mut attempts: FuturesUnordered<_> = addresses
        .into_iter()
        .take(MOST_ADDRESSES)
        .enumerate()
        .map(|(place, address)| async move {
            tokio::time::sleep(STAGGER * u32::try_from(place).unwrap_or(u32::MAX)).await;
            dial.socket(address)?.connect(address).await
        })
        .collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
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
}
