//! A packet socket on one interface: whole Ethernet frames in and out.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recvmsg, send,
    setsockopt, socket,
};

/// `sll_pkttype` of frames this machine itself sent (packet(7)).
const PACKET_OUTGOING: u8 = 4;

const SOCKET_BUFFER: usize = 16 << 20;

/// One interface as a source and a sink of frames.
#[derive(Debug)]
pub(super) struct FrameSocket {
    socket: OwnedFd,
}

impl FrameSocket {
    /// Opens `interface` of the namespace this thread is in.
    pub(super) fn open(interface: &str) -> Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .context("opening a packet socket")?;
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)?;
        setsockopt(&socket, SndBufForce, &SOCKET_BUFFER)?;
        // The address in the interface list has protocol 0, with which bind keeps the socket's own.
        bind(socket.as_raw_fd(), &link_address(interface)?)
            .with_context(|| format!("binding to {interface}"))?;
        Ok(Self { socket })
    }

    /// Reads one frame, `None` when there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut slices, None, flags) {
                Ok(message) if message.address.is_some_and(|address| is_outgoing(&address)) => {}
                Ok(message) => return Ok(Some(message.bytes)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one frame; an error means it was dropped.
    pub(super) fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_outgoing(address: &LinkAddr) -> bool {
    address.as_ref().sll_pkttype == PACKET_OUTGOING
}

fn link_address(interface: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address.as_ref().and_then(|address| address.as_link_addr().copied()))
        .filter(|address| address.family() == Some(AddressFamily::Packet))
        .with_context(|| format!("no interface {interface}"))
}
