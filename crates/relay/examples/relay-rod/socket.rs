//! IPv4 sockets that receive and send trains.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Datagrams that the kernel takes in one call.
pub(crate) const MOST_TOGETHER: usize = 64;

/// Socket buffers: bursts of several trains must fit.
const BUFFER: usize = 8 << 20;

/// The longest train.
const LONGEST: usize = 1 << 16;

pub(crate) fn open(address: SocketAddrV4) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    Ok(socket)
}

/// One port for each allocation is one file.
pub(crate) fn raise_open_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Sends what the slices hold, in their order, as datagrams of `segment` bytes.
pub(crate) fn send(
    socket: &UdpSocket,
    slices: &[IoSlice<'_>],
    segment: usize,
    to: SocketAddrV4,
) -> Result<()> {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let length = u16::try_from(segment)?;
    let segments = [ControlMessage::UdpGsoSegments(&length)];
    let control = if total > segment { &segments[..] } else { &[] };
    let to = SockaddrIn::from(to);
    match sendmsg(socket.as_raw_fd(), slices, control, MsgFlags::empty(), Some(&to)) {
        // A relay loses what it cannot deliver.
        Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("cannot send"),
    }
}

/// Datagrams of one sender and of equal length (the last may be shorter), one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Train {
    pub(crate) from: SocketAddrV4,
    pub(crate) length: usize,
    pub(crate) segment: usize,
}

/// Memory for what is received.
pub(crate) struct Receiver {
    memory: Vec<u8>,
    control: Vec<u8>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { memory: vec![0; LONGEST], control: nix::cmsg_space!(i32) }
    }

    /// Takes a train; `None` when none waits.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> Result<Option<Train>> {
        let mut slices = [IoSliceMut::new(&mut self.memory)];
        let control = Some(&mut self.control[..]);
        let received =
            match recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, control, MsgFlags::MSG_DONTWAIT) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error).context("cannot receive"),
            };
        let segment = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::UdpGroSegments(length) => usize::try_from(length).ok(),
            _ => None,
        });
        let length = received.bytes;
        let from = received.address.context("a datagram without a sender")?;
        let from = SocketAddrV4::new(from.ip(), from.port());
        Ok(Some(Train { from, length, segment: segment.unwrap_or(length).max(1) }))
    }

    pub(crate) fn bytes(&self, train: Train) -> &[u8] {
        &self.memory[..train.length]
    }
}
