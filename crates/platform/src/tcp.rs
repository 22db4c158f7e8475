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

/// Keeps short what waits in a socket: the kernel takes `unsent` bytes beyond what is under way, and ends the
/// connection when nothing was acknowledged for `silence`.
///
/// # Errors
/// What the operating system says.
#[cfg(target_os = "linux")]
pub fn bound_waiting(socket: &std::net::TcpStream, unsent: u32, silence: Duration) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_notsent_lowat(unsent)?;
    socket.set_tcp_user_timeout(Some(silence))
}

/// Bytes that the other side has not acknowledged, sent or not; `None` when the kernel cannot say.
#[cfg(target_os = "linux")]
#[must_use]
pub fn unacknowledged(socket: &std::net::TcpStream) -> Option<usize> {
    crate::udp::queued_bytes(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_takes_little_that_it_cannot_send() {
        use std::io::Write as _;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let mut sender =
            std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        let (receiver, _) = listener.accept().expect("accepts");
        bound_waiting(&sender, 16 * 1024, Duration::from_secs(15)).expect("sets");
        assert_eq!(unacknowledged(&sender), Some(0));
        sender.set_nonblocking(true).expect("sets");
        // Nobody reads, so the window closes, and then no more is taken than asked for.
        while sender.write(&[0; 4096]).is_ok() {}
        std::thread::sleep(Duration::from_millis(50));
        let before = unacknowledged(&sender).expect("known");
        let more: usize = (0..100).map_while(|_| sender.write(&[0; 4096]).ok()).sum();
        assert!(before > 0 && more <= 32 * 1024, "{before} and {more} more");
        drop(receiver);
    }

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
