//! UDP sockets for the data plane: batches, offload, and control over both addresses of a datagram.
//!
//! One socket serves one family, normally bound to the wildcard address. Received datagrams tell which local
//! address they came to; sent ones may name the source address to leave from. So one pair of sockets serves
//! all interfaces, and an address that comes or goes needs no new socket.
//!
//! UDP is unreliable anyway: whatever goes wrong with one datagram is reported as a [`SendError`] to count,
//! never as a reason to close the socket. ICMP errors come out at [`UdpSocket::take_unreachable`] if asked for;
//! what they leave behind on the socket is swallowed when receiving, and when sending to somebody else.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub mod train;
#[cfg(target_os = "linux")]
mod unreachable;

#[cfg(target_os = "linux")]
pub(crate) use linux::queued_bytes;

/// Room for one received super-datagram in bytes.
const SLOT: usize = 65_536;

/// The largest UDP payload over IPv4 in bytes.
const MAX_PAYLOAD: usize = 65_507;

/// Errors left behind by ICMP that one `receive` call skips before it gives up its turn.
const MAX_SKIPPED: usize = 16;

/// How to bind a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address to bind; the wildcard of a family serves all interfaces, port 0 picks a free port.
    pub address: SocketAddr,
    /// Mark on every packet sent, so that the tunnel's own routes do not apply to it (Linux; needs
    /// `CAP_NET_ADMIN`).
    pub fwmark: Option<u32>,
    /// Lets several sockets share the port, one per worker.
    pub reuse_port: bool,
    /// Keeps ICMP errors for [`UdpSocket::take_unreachable`], which must then be called whenever the socket
    /// is in error (`EPOLLERR`).
    pub keep_errors: bool,
    /// Lets the kernel cut what is sent in one call into datagrams, where it can.
    pub segmentation: bool,
    /// Lets the kernel hand over datagrams that arrive together as one, where it can.
    pub coalescing: bool,
    /// Receive buffer asked of the kernel in bytes.
    pub receive_buffer: usize,
    /// Send buffer asked of the kernel in bytes.
    pub send_buffer: usize,
}

impl Config {
    /// All IPv4 addresses, 7 MiB buffers, no mark.
    #[must_use]
    pub fn wildcard_v4(port: u16) -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
    }

    /// All IPv6 addresses and no IPv4, 7 MiB buffers, no mark.
    #[must_use]
    pub fn wildcard_v6(port: u16) -> Self {
        Self::new(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    }

    /// One address, 7 MiB buffers, no mark.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            fwmark: None,
            reuse_port: false,
            keep_errors: false,
            segmentation: true,
            coalescing: true,
            receive_buffer: 7 << 20,
            send_buffer: 7 << 20,
        }
    }
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host has no such address family.
    #[error("this host has no {0}")]
    NoFamily(&'static str),
    /// The port is in use.
    #[error("UDP {0} is taken by another process")]
    Taken(SocketAddr),
    /// The mark was refused.
    #[error("cannot mark packets of UDP {address}: {error} (run as root or with CAP_NET_ADMIN)")]
    Mark {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// Anything else.
    #[error("cannot open UDP {address}: {error}")]
    System {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Why a datagram did not leave; every kind is normal on a network and none is fatal to the socket.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's buffer is full; wait until it is writable.
    #[error("the send buffer is full")]
    Full,
    /// Larger than the path or the interface carries.
    #[error("the datagram is too large for the path")]
    TooLarge,
    /// The source address is no longer ours (newer kernels report that as
    /// [`Unreachable`](Self::Unreachable)).
    #[error("the source address is not ours")]
    SourceGone,
    /// No route, network down, or an ICMP error said so.
    #[error("unreachable: {0}")]
    Unreachable(io::Error),
    /// Refused by the local firewall, or anything else.
    #[error("not sent: {0}")]
    Refused(io::Error),
}

/// Datagrams to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Local address to leave from; `None` lets the kernel choose.
    pub source: Option<IpAddr>,
    /// Where to.
    pub destination: SocketAddr,
    /// One datagram, or several of `segment_size` bytes in a row, the last of which may be shorter.
    pub contents: &'a [u8],
    /// Size of the datagrams in `contents`; `None` means one.
    pub segment_size: Option<usize>,
}

/// One received datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// The local address it came to, with the port of the socket.
    pub local: SocketAddr,
    /// Its bytes, to be worked on in place; never empty.
    pub payload: &'a mut [u8],
}

/// Buffers for one `receive` call, made once per worker.
pub struct ReceiveBatch {
    buffer: Box<[u8]>,
    metadata: [RecvMeta; BATCH_SIZE],
    filled: usize,
    local: SocketAddr,
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReceiveBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl ReceiveBatch {
    /// Room for `slots` super-datagrams of 64 KiB, at least one and at most 32.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            buffer: vec![0; slots.clamp(1, BATCH_SIZE) * SLOT].into_boxed_slice(),
            metadata: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            local: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        }
    }

    /// The datagrams of the last `receive`, in order of arrival; empty datagrams are left out.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let local = self.local;
        self.buffer.chunks_mut(SLOT).zip(&self.metadata).take(self.filled).flat_map(
            move |(slot, metadata)| {
                let length = metadata.len.min(slot.len());
                let local = SocketAddr::new(metadata.dst_ip.unwrap_or(local.ip()), local.port());
                let source = metadata.addr;
                slot[..length].chunks_mut(metadata.stride.max(1)).map(move |payload| Datagram {
                    source,
                    local,
                    payload,
                })
            },
        )
    }
}

/// A non-blocking UDP socket that threads may share.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    state: UdpSocketState,
    local: SocketAddr,
    segmentation: AtomicBool,
    may_segment: bool,
    keeps_errors: bool,
}

impl UdpSocket {
    /// Opens and binds a socket.
    ///
    /// # Errors
    /// See [`BindError`]; smaller buffers than asked for are not an error.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let address = config.address;
        let socket = open(config)?;
        let system = |error| BindError::System { address, error };
        #[cfg(target_os = "linux")]
        linux::enlarge_buffers(&socket, config.receive_buffer, config.send_buffer);
        if config.keep_errors {
            unreachable::enable(&socket, address.is_ipv4()).map_err(|error| system(error.into()))?;
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(system)?;
        let local = socket.local_addr().map_err(system)?;
        let local = local.as_socket().ok_or_else(|| system(io::ErrorKind::Unsupported.into()))?;
        #[cfg(target_os = "linux")]
        if !config.coalescing {
            linux::disable_coalescing(&socket);
        }
        let segmentation = AtomicBool::new(config.segmentation && state.max_gso_segments() > 1);
        let (keeps_errors, may_segment) = (config.keep_errors, config.segmentation);
        Ok(Self { socket, state, local, segmentation, may_segment, keeps_errors })
    }

    /// The bound address; for a wildcard socket only the port says something.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How many datagrams one [`Transmit`] may hold for a single system call; 1 once the kernel or a driver
    /// has refused segmentation.
    #[must_use]
    pub fn max_segments(&self) -> usize {
        if self.segmentation.load(Ordering::Relaxed) { 64 } else { 1 }
    }

    /// Lets other sockets of this user bind the same address with [`Config::reuse_port`]; the kernel then divides
    /// datagrams among all of them by both ends' addresses.
    ///
    /// Before this call nobody can, so that a port that is taken is noticed.
    ///
    /// # Errors
    /// When the kernel has no such option.
    pub fn share_port(&self) -> Result<(), BindError> {
        let result = self.socket.set_reuse_port(true);
        result.map_err(|error| BindError::System { address: self.local, error })
    }

    /// Tries segmentation again, for example after the machine moved to another network interface.
    pub fn retry_segmentation(&self) {
        let is_supported = self.may_segment && linux::supports_segmentation(&self.socket);
        self.segmentation.store(is_supported, Ordering::Relaxed);
    }

    /// Receives what waits, up to the size of `batch`; 0 when nothing does.
    ///
    /// # Errors
    /// Only when the socket itself is broken.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.local = self.local;
        batch.filled = 0;
        let mut chunks = batch.buffer.chunks_mut(SLOT);
        let slots = chunks.len().min(BATCH_SIZE);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        for _ in 0..MAX_SKIPPED {
            let sock = UdpSockRef::from(&self.socket);
            match self.state.recv(sock, &mut slices[..slots], &mut batch.metadata[..slots]) {
                Ok(count) => {
                    batch.filled = count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Sends all datagrams of `transmit`, in one system call where the system can.
    ///
    /// # Errors
    /// See [`SendError`]; when there are several datagrams, the ones before the failing one have left.
    pub fn send(&self, transmit: &Transmit<'_>) -> Result<(), SendError> {
        let Some(segment) = transmit.segment_size.filter(|&size| size > 0 && size < transmit.contents.len())
        else {
            return self
                .send_one(transmit, transmit.contents, None)
                .map_err(|error| classify(error, transmit));
        };
        let together = (MAX_PAYLOAD / segment).clamp(1, 64) * segment;
        for run in transmit.contents.chunks(together) {
            self.send_run(transmit, run, segment)?;
        }
        Ok(())
    }

    fn send_run(&self, transmit: &Transmit<'_>, run: &[u8], segment: usize) -> Result<(), SendError> {
        let mut refused = false;
        if self.segmentation.load(Ordering::Relaxed) {
            match self.send_one(transmit, run, Some(segment)) {
                Ok(()) => return Ok(()),
                // Drivers without segmentation or checksum offload answer EIO, old kernels EINVAL; EINVAL may
                // also be another fault.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
                    refused = true
                }
                Err(error) => return Err(classify(error, transmit)),
            }
        }
        for datagram in run.chunks(segment) {
            self.send_one(transmit, datagram, None).map_err(|error| classify(error, transmit))?;
            if std::mem::take(&mut refused) {
                // The very same datagram leaves alone: segmentation was the fault.
                self.segmentation.store(false, Ordering::Relaxed);
                tracing::info!(local = %self.local, "UDP segmentation offload does not work here; sending datagrams one by one");
            }
        }
        Ok(())
    }

    fn send_one(
        &self,
        transmit: &Transmit<'_>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: None,
            contents,
            segment_size,
            src_ip: transmit.source,
        };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        match send() {
            // It may be about an earlier datagram, and to another destination. Then it is gone now.
            Err(error) if self.keeps_errors && is_transient(&error) => send(),
            sent => sent,
        }
    }

    /// Where a datagram of ours did not arrive, as somebody on its way says; `None` when nothing more is known.
    ///
    /// Takes at most 16 errors a call. They are not authentic.
    pub fn take_unreachable(&self) -> Option<SocketAddr> {
        (0..MAX_SKIPPED).map_while(|_| unreachable::take(&self.socket)).flatten().next()
    }

    /// True when everything sent has left the host's queues.
    #[must_use]
    pub fn outbound_queue_empty(&self) -> bool {
        linux::queued_bytes(&self.socket).is_none_or(|bytes| bytes == 0)
    }
}

/// Waits until all `sockets` have handed everything to the network, at most `limit`; false when something was
/// left.
pub async fn drained<S: std::borrow::Borrow<UdpSocket>>(sockets: &[S], limit: Duration) -> bool {
    let all_empty = async {
        while !sockets.iter().all(|socket| socket.borrow().outbound_queue_empty()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(limit, all_empty).await.is_ok()
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn open(config: &Config) -> Result<Socket, BindError> {
    let address = config.address;
    let system = |error| BindError::System { address, error };
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => BindError::NoFamily(family),
            _ => system(error),
        })?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(system)?;
    }
    if config.reuse_port {
        socket.set_reuse_port(true).map_err(system)?;
    }
    if let Some(mark) = config.fwmark {
        socket.set_mark(mark).map_err(|error| BindError::Mark { address, error })?;
    }
    socket.bind(&address.into()).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::Taken(address),
        // Binding the IPv6 wildcard fails like this when IPv6 is switched off by sysctl.
        Some(libc::EADDRNOTAVAIL) if address.ip().is_unspecified() => BindError::NoFamily(family),
        _ => system(error),
    })?;
    Ok(socket)
}

fn classify(error: io::Error, transmit: &Transmit<'_>) -> SendError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => SendError::Full,
        Some(libc::EMSGSIZE) => SendError::TooLarge,
        Some(libc::EADDRNOTAVAIL) => SendError::SourceGone,
        Some(libc::EINVAL) if transmit.source.is_some() => SendError::SourceGone,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ECONNREFUSED
            | libc::ENODEV,
        ) => SendError::Unreachable(error),
        _ => SendError::Refused(error),
    }
}

/// Errors that an earlier datagram left behind on the socket.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ENOPROTOOPT
        )
    )
}
