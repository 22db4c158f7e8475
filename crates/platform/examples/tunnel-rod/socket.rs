//! UDP with segmentation offload on the way out and receive offload on the way in.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

/// Socket buffers: bursts of several super-packets must fit.
const BUFFER: usize = 8 << 20;

/// Messages taken from the kernel in one call, each as long as a super-packet can be.
const MESSAGES: usize = 32;
const LONGEST: usize = 1 << 16;

pub(super) fn enable_offload(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(socket, sockopt::SndBufForce, &BUFFER)?;
    setsockopt(socket, sockopt::UdpGroSegment, &true)?;
    Ok(())
}

/// Waits until `descriptor` is ready for `events`.
pub(super) fn wait(descriptor: &impl AsFd, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(descriptor.as_fd(), events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends datagrams of `segment` bytes each, the last of which may be shorter.
pub(super) fn send(socket: &UdpSocket, datagrams: &[u8], segment: u16) -> io::Result<()> {
    let slices = [IoSlice::new(datagrams)];
    let segments = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if datagrams.len() > usize::from(segment) { &segments[..] } else { &[] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::empty(), None) {
            Err(Errno::EAGAIN) => wait(socket, PollFlags::POLLOUT)?,
            // The other end is not there yet, or not any more: a tunnel loses what it cannot deliver.
            Ok(_) | Err(Errno::ECONNREFUSED | Errno::ENOBUFS | Errno::EHOSTUNREACH) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Datagrams of equal length (the last may be shorter), one after the other.
#[derive(Clone, Copy)]
pub(super) struct Message {
    /// Where they start in the receiver's memory.
    pub(super) start: usize,
    pub(super) length: usize,
    /// Length of each.
    pub(super) segment: usize,
}

/// Memory for what is received.
pub(super) struct Receiver {
    pub(super) memory: Vec<u8>,
}

/// The only control message that is asked for, as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    segment: libc::c_int,
    /// Control messages end at a multiple of their alignment.
    padding: libc::c_int,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { memory: vec![0; MESSAGES * LONGEST] }
    }

    /// Takes what waits and fills `messages` with where it is; nothing when nothing waits.
    #[expect(unsafe_code, reason = "the safe wrapper does not reset the length of control messages")]
    pub(super) fn receive(&mut self, socket: &UdpSocket, messages: &mut Vec<Message>) -> io::Result<()> {
        messages.clear();
        let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
        let mut controls = [Control { header, segment: 0, padding: 0 }; MESSAGES];
        // SAFETY: `iovec` and `mmsghdr` are plain numbers and pointers, for which all zeros are a value.
        let (mut vectors, mut headers): ([libc::iovec; MESSAGES], [libc::mmsghdr; MESSAGES]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let places = self.memory.chunks_exact_mut(LONGEST);
        for (((place, vector), control), header) in
            places.zip(&mut vectors).zip(&mut controls).zip(&mut headers)
        {
            *vector = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: each header points at one vector and one control message, and each vector at its own part of
        // `memory`, all of the stated lengths; none of them moves or is used otherwise during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = match Errno::result(received) {
            Ok(count) => usize::try_from(count).unwrap_or_default(),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => 0,
            Err(error) => return Err(error.into()),
        };
        for (index, (header, control)) in headers.iter().zip(&controls).take(count).enumerate() {
            let length = header.msg_len as usize;
            messages.push(Message { start: index * LONGEST, length, segment: control.segment_of(length) });
        }
        Ok(())
    }
}

impl Control {
    /// The kernel says nothing when there is one datagram only.
    fn segment_of(&self, length: usize) -> usize {
        let is_ours = (self.header.cmsg_level, self.header.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
        let said = usize::try_from(self.segment).unwrap_or_default();
        if is_ours && said > 0 { said } else { length.max(1) }
    }
}
