//! Sending: datagrams gathered from many places, cut by the kernel (`UDP_SEGMENT`).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;

use socket2::{SockAddr, Socket};

/// The kernel takes no more datagrams in one call.
pub const MAX_DATAGRAMS: usize = 64;
/// Nor more bytes, headers included.
pub const MAX_BYTES: usize = 65_000;

/// Datagrams to one destination.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a, 'data> {
    /// Where to.
    pub destination: SocketAddr,
    /// The bytes of all datagrams in a row.
    pub parts: &'a [IoSlice<'data>],
    /// How many parts make a datagram, at least 1; the same for each.
    pub parts_per_datagram: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment: usize,
}

impl Train<'_, '_> {
    fn datagrams(&self) -> usize {
        self.parts.len() / self.parts_per_datagram.max(1)
    }
}

/// Whether the kernel can be left to cut trains; shared by the sockets of one thread.
#[derive(Debug)]
pub struct Segmentation {
    works: Cell<bool>,
}

impl Segmentation {
    /// Asks the kernel.
    #[must_use]
    pub fn detect() -> Self {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
        Self { works: Cell::new(socket.is_ok_and(|socket| super::linux::supports_segmentation(&socket))) }
    }

    /// Never uses it.
    #[must_use]
    pub fn off() -> Self {
        Self { works: Cell::new(false) }
    }

    /// False once a driver has refused.
    #[must_use]
    pub fn works(&self) -> bool {
        self.works.get()
    }

    /// Notes what the kernel said to a train; true if its datagrams may still leave one by one.
    pub(super) fn refused(&self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            // A driver that cannot compute checksums. It will not learn.
            Some(libc::EIO) => {
                self.works.set(false);
                tracing::info!("UDP segmentation does not work here; sending datagrams one by one");
                true
            }
            // Datagrams too large for the path: nothing is wrong with the kernel.
            Some(libc::EINVAL | libc::EMSGSIZE) => true,
            _ => false,
        }
    }
}

pub(super) fn send(
    socket: RawFd,
    segmentation: &Segmentation,
    train: &Train<'_, '_>,
) -> (usize, Option<io::Error>) {
    let count = train.datagrams();
    let destination = SockAddr::from(train.destination);
    if count <= 1 {
        return match send_parts(socket, &destination, train.parts, None) {
            Ok(()) => (count, None),
            Err(error) => (0, Some(error)),
        };
    }
    if segmentation.works() {
        let segment = u16::try_from(train.segment).ok();
        match send_parts(socket, &destination, train.parts, segment) {
            Ok(()) => return (count, None),
            Err(error) if segmentation.refused(&error) => {}
            Err(error) => return (0, Some(error)),
        }
    }
    for (sent, datagram) in train.parts.chunks(train.parts_per_datagram.max(1)).enumerate() {
        if let Err(error) = send_parts(socket, &destination, datagram, None) {
            return (sent, Some(error));
        }
    }
    (count, None)
}

/// One call. A signal does not interrupt what does not wait.
#[expect(unsafe_code, reason = "no safe wrapper gathers and cuts without allocating")]
pub(super) fn send_parts(
    socket: RawFd,
    destination: &SockAddr,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut control = segment.map(segment_message);
    // SAFETY: a plain C structure, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = destination.as_ptr().cast_mut().cast();
    header.msg_namelen = destination.len();
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len();
    if let Some(control) = &mut control {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(control);
    }
    // SAFETY: the header points to a name, parts and a control message that live through the call, with their true
    // sizes; `sendmsg` reads them only. `IoSlice` has the layout of `iovec`.
    let sent = unsafe { libc::sendmsg(socket, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A control message that says where to cut: struct cmsghdr, then 16 bits, then padding to a word.
fn segment_message(segment: u16) -> [u64; 3] {
    const LENGTH: u64 = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as u64;
    let mut kind = [0; 8];
    kind[..4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    kind[4..].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    let mut value = [0; 8];
    value[..2].copy_from_slice(&segment.to_ne_bytes());
    [LENGTH, u64::from_ne_bytes(kind), u64::from_ne_bytes(value)]
}

/// Has the kernel neither cut datagrams into fragments nor believe ICMP about how large they may be.
#[expect(unsafe_code, reason = "the option has no safe wrapper")]
pub(super) fn forbid_fragments(socket: &Socket, is_ipv4: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (level, name, value) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    };
    // SAFETY: the value is an int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
