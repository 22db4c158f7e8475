//! Sockets that stay out of our own tunnel.

use std::io;
use std::net::SocketAddr;

use adit_control_client::Dial;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, UdpSocket};

/// Opens sockets that carry the firewall mark by which the client's routing rules let them
/// pass the tunnel by; without a mark they are plain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MarkedDial {
    /// The mark; `None` on a gateway, which routes nothing of its own into the tunnel.
    pub(crate) mark: Option<u32>,
}

impl MarkedDial {
    /// A UDP socket on a fresh port, for talking to `remote`.
    pub(crate) fn udp_socket(self, remote: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.plain_udp_socket(remote)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// As [`MarkedDial::udp_socket`], without a runtime.
    pub(crate) fn plain_udp_socket(self, remote: SocketAddr) -> io::Result<std::net::UdpSocket> {
        let any: SocketAddr = if remote.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = std::net::UdpSocket::bind(any)?;
        if let Some(mark) = self.mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        socket.connect(remote)?;
        Ok(socket)
    }
}

impl Dial for MarkedDial {
    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        Ok(socket)
    }
}
