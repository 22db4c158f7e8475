//! What only Linux offers on UDP sockets.

use std::os::fd::AsRawFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

/// Sets buffer sizes past the system limit where the process may, and up to it elsewhere.
pub(super) fn enlarge_buffers(socket: &Socket, receive: usize, send: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &receive).is_err() {
        let _ = socket.set_recv_buffer_size(receive);
    }
    if setsockopt(socket, sockopt::SndBufForce, &send).is_err() {
        let _ = socket.set_send_buffer_size(send);
    }
}

/// Whether the kernel knows `UDP_SEGMENT` (Linux 4.18).
pub(super) fn supports_segmentation(socket: &Socket) -> bool {
    nix::sys::socket::getsockopt(socket, sockopt::UdpGsoSegment).is_ok()
}

/// Has each datagram handed over alone. Kernels that do not know `UDP_GRO` do nothing else.
pub(super) fn disable_coalescing(socket: &Socket) {
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &false);
}

/// Bytes handed to the kernel that have not left it yet; `None` when it cannot say.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(crate) fn queued_bytes(socket: &impl AsRawFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call; SIOCOUTQ (the same number as TIOCOUTQ) writes one
    // int to the given place, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then(|| usize::try_from(bytes).unwrap_or(0))
}
