//! UDP sockets that send and receive trains: datagrams of equal length that cross the kernel together.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Socket buffers: a receiver that is not scheduled for some milliseconds is not a lossy relay.
const BUFFER: usize = 8 << 20;

/// The most that the kernel hands up in one call.
const LONGEST: usize = 1 << 16;

/// Opens a socket on an address; its calls do not wait.
pub(crate) fn open(ip: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0)).with_context(|| format!("cannot open a UDP socket on {ip}"))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    // Without the right to more, the usual size has to do.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
    Ok(socket)
}

/// Raises the number of files that this process may have open: to the kernel's own limit where that is allowed, else to
/// this user's.
pub(crate) fn raise_open_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let of_kernel = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let of_kernel = of_kernel.and_then(|limit| limit.trim().parse().ok()).unwrap_or(most);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, of_kernel, of_kernel);
    raised.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, most, most)).context("the limit of open files")
}

/// Sends datagrams of `segment` bytes, one after the other in `train`; false when the kernel takes none of them.
pub(crate) fn send(socket: &UdpSocket, train: &[u8], segment: usize) -> Result<bool> {
    let slices = [IoSlice::new(train)];
    let length = u16::try_from(segment).context("datagrams are at most 65,535 bytes long")?;
    let segments = [ControlMessage::UdpGsoSegments(&length)];
    let control = if train.len() > segment { &segments[..] } else { &[] };
    match sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::empty(), None) {
        Ok(_) => Ok(true),
        // A full buffer, or the echo of an earlier datagram that nobody received: lost, as anywhere on the way.
        Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EINTR) => Ok(false),
        Err(error) => Err(error).context("cannot send"),
    }
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

    /// Takes what waits on a connected socket and hands out each datagram; false when nothing waits.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, mut each: impl FnMut(&[u8])) -> Result<bool> {
        let (length, segment) = {
            let mut slices = [IoSliceMut::new(&mut self.memory)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut self.control), flags);
            let received = match received {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::ECONNREFUSED | Errno::EINTR) => return Ok(true),
                Err(error) => return Err(error).context("cannot receive"),
            };
            let said = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::UdpGroSegments(length) => usize::try_from(length).ok(),
                _ => None,
            });
            (received.bytes, said.unwrap_or(received.bytes))
        };
        for datagram in self.memory[..length].chunks(segment.max(1)) {
            each(datagram);
        }
        Ok(true)
    }
}

/// The address of a socket.
pub(crate) fn address(socket: &UdpSocket) -> Result<SocketAddr> {
    Ok(socket.local_addr()?)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_train_arrives_as_the_datagrams_it_was_made_of() {
        let [sender, receiver] = [(); 2].map(|()| open(Ipv4Addr::LOCALHOST.into()).unwrap());
        sender.connect(address(&receiver).unwrap()).unwrap();
        receiver.connect(address(&sender).unwrap()).unwrap();
        let train: Vec<u8> = (0..10_u8).flat_map(|number| [number; 1_000]).chain([10; 7]).collect();
        assert!(send(&sender, &train, 1_000).unwrap());
        let (mut datagrams, begin) = (Vec::new(), Instant::now());
        let mut memory = Receiver::new();
        while datagrams.len() < 11 && begin.elapsed() < Duration::from_secs(5) {
            memory.receive(&receiver, |datagram| datagrams.push(datagram.to_vec())).unwrap();
        }
        assert_eq!(datagrams.concat(), train);
        assert!(datagrams.iter().take(10).all(|datagram| datagram.len() == 1_000));
        assert!(!memory.receive(&receiver, |_| ()).unwrap());
    }
}
