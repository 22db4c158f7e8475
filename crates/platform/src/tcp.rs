//! Outgoing TCP connections of our own programs: to the portal, to name servers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Idle time before keepalive probes; finds out that a silent peer is gone behind a NAT that forgot it.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects; with `fwmark` the connection ignores the tunnel's own routes (Linux; needs `CAP_NET_ADMIN`). The
/// caller bounds the time.
///
/// # Errors
/// What the operating system says.
pub async fn connect(destination: SocketAddr, fwmark: Option<u32>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(mark) = fwmark {
        socket.set_mark(mark)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = fwmark;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    TcpSocket::from_std_stream(socket.into()).connect(destination).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connects_and_reports_refusal() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let stream = connect(address, None).await.expect("connects");
        assert_eq!(stream.peer_addr().expect("address"), address);
        drop(listener);
        let refused = connect(address, None).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
