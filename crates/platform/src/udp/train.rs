//! UDP sockets that take in and give out trains: datagrams of one size that follow each other.
//!
//! For programs that pass datagrams on unread. Against [`UdpSocket`](super::UdpSocket) they leave out what such a
//! program does not need (local addresses, ECN), because the kernel charges for each; received datagrams lie in
//! buffers with room in front and behind, so that headers are added in place; and what is sent is gathered from
//! many places without a copy.
//!
//! A socket never fragments (`IP_PMTUDISC_PROBE`): what is too large for the next link is an error.
//!
//! Several sockets may share a port, and a program in the kernel may choose among them ([`TrainSocket::steer`]).

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

use super::{BindError, Config, MAX_SKIPPED, is_transient, linux, open};

mod receive;
mod send;

pub use receive::{ReceiveBatch, Received};
pub use send::{MAX_BYTES, MAX_DATAGRAMS, Segmentation, Train};

/// A non-blocking UDP socket for one thread.
#[derive(Debug)]
pub struct TrainSocket {
    socket: Socket,
}

impl TrainSocket {
    /// Opens and binds a socket; `fwmark` and `keep_errors` of the configuration do not apply.
    ///
    /// # Errors
    /// See [`BindError`]; smaller buffers than asked for are not an error.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let address = config.address;
        let socket = open(config)?;
        let system = |error| BindError::System { address, error };
        linux::enlarge_buffers(&socket, config.receive_buffer, config.send_buffer);
        send::forbid_fragments(&socket, address.is_ipv4()).map_err(system)?;
        if config.coalescing {
            // Kernels that do not know it hand over each datagram alone.
            let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        }
        Ok(Self { socket })
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Lets further sockets of this user share the port of this one, which has had it for itself until now: so the
    /// first of a group finds out whether another process has the port.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn share_port(&self) -> io::Result<()> {
        self.socket.set_reuse_port(true)
    }

    /// Has a program choose the socket for each datagram among those that share the port, numbered in the order in
    /// which they were bound. It sees the UDP payload at offset 0 and the IP header at `SKF_NET_OFF`. A number that
    /// no socket has lets the kernel choose.
    ///
    /// # Errors
    /// When the kernel refuses the program; it chooses by a hash of the addresses then.
    pub fn steer(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel only reads through the pointer.
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        Ok(setsockopt(&self.socket, sockopt::AttachReusePortCbpf, &program)?)
    }

    /// Fills up to `slots` slots of `batch` with what waits, and says how many; 0 when nothing does.
    ///
    /// # Errors
    /// Only when the socket itself is broken.
    pub fn receive(&self, batch: &mut ReceiveBatch, slots: usize) -> io::Result<usize> {
        for _ in 0..MAX_SKIPPED {
            match batch.fill(self.socket.as_raw_fd(), slots) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// How many datagrams the kernel has dropped since the socket was opened, because its buffer was full as a rule;
    /// `None` when it cannot say.
    #[must_use]
    pub fn dropped(&self) -> Option<u32> {
        receive::dropped(self.socket.as_raw_fd())
    }

    /// Sends a train, in one system call where the kernel can cut it into datagrams. Returns how many datagrams the
    /// kernel took, and the error of the others if there are any: `WouldBlock` when the buffer is full, else what
    /// the kernel says; all of it is normal on a network.
    pub fn send(&self, segmentation: &Segmentation, train: &Train<'_, '_>) -> (usize, Option<io::Error>) {
        send::send(self.socket.as_raw_fd(), segmentation, train)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_one(&self, destination: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        send::send_parts(self.socket.as_raw_fd(), &destination.into(), &[IoSlice::new(datagram)], None)
    }
}

impl AsFd for TrainSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
