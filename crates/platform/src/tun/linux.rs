//! TUN through `/dev/net/tun`.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use adit_packet::offload::{Offload, VirtioHeader};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::device_queues::{self, Queues};
use super::steering;
use super::{Config, TunError};
use crate::interface_request::{InterfaceRequest, set_offload};

const NODE: &str = "/dev/net/tun";

/// What `TUNSETOFFLOAD` is asked for, best first. Partial checksums are the condition of all the others.
const OFFLOADS: [(Offload, libc::c_uint); 2] = {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    [(Offload::TcpAndUdp, tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6), (Offload::Tcp, tcp)]
};

/// One queue of a TUN device; closing the last one removes the device.
#[derive(Debug)]
pub struct Tun {
    descriptor: OwnedFd,
    name: String,
    index: u32,
    offload: Offload,
}

impl Tun {
    /// Makes the device (it starts without addresses and down) with one queue, or takes over one of ours that was left
    /// [persistent](Self::set_persistent).
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn create(config: &Config) -> Result<Self, TunError> {
        let offloading = match config.offload {
            Offload::None => None,
            most => Self::create_with_offload(&config.name, most)?,
        };
        let tun = match offloading {
            Some(tun) => tun,
            None => Self::create_without_offload(&config.name)?,
        };
        set_mtu(&tun.name, config.mtu).map_err(|error| system(&tun.name, "set the MTU of", error))?;
        Ok(tun)
    }

    /// `None` when the kernel has no virtio headers or none of the offloads.
    fn create_with_offload(name: &str, most: Offload) -> Result<Option<Self>, TunError> {
        let Some(mut tun) = attach_first(name, libc::IFF_VNET_HDR)? else { return Ok(None) };
        tun.offload = negotiate(most, |features| set_offload(tun.descriptor.as_fd(), features));
        Ok((tun.offload != Offload::None).then_some(tun))
    }

    fn create_without_offload(name: &str) -> Result<Self, TunError> {
        match attach_first(name, 0)? {
            Some(tun) => Ok(tun),
            // Kernels in disguise (gVisor) know nothing but the oldest flags. One queue is better than none.
            None => attach(name, 0).map_err(|error| error.about(name)).and_then(Self::first),
        }
    }

    fn first((descriptor, name): (OwnedFd, String)) -> Result<Self, TunError> {
        let index =
            nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| system(&name, "find", error))?;
        Ok(Self { descriptor, name, index, offload: Offload::None })
    }

    /// Another queue of the same device, with the same offload. Flows are divided among all queues.
    ///
    /// # Errors
    /// See [`TunError`]; the kernel has a limit of 256 queues, and of one for devices that somebody else made so, and
    /// wants `CAP_BPF` for the division.
    pub fn add_queue(&self) -> Result<Self, TunError> {
        // First: without it flows would wander between the queues, and their packets overtake each other.
        steering::steer(self.descriptor.as_fd())
            .map_err(|error| system(&self.name, "divide flows among queues of", error))?;
        let virtio = if self.offload == Offload::None { 0 } else { libc::IFF_VNET_HDR };
        let attached = attach(&self.name, virtio | libc::IFF_MULTI_QUEUE);
        let (descriptor, name) = attached.map_err(|error| error.about(&self.name))?;
        Ok(Self { descriptor, name, index: self.index, offload: self.offload })
    }

    /// Two connected stand-ins without a kernel device: what is written to one is read from the other. For
    /// tests.
    ///
    /// With offload both carry virtio headers, but nothing is cut or merged in between.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair(offload: Offload) -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (left, right) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        let stand_in = |descriptor, name: &str| Self { descriptor, name: name.to_owned(), index: 0, offload };
        Ok((stand_in(left, "pair0"), stand_in(right, "pair1")))
    }

    /// Whether the device outlives this process, with its addresses and routes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_persistent(&self, is_persistent: bool) -> io::Result<()> {
        crate::interface_request::set_persistent(self.descriptor.as_fd(), is_persistent)
    }

    /// The interface name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What may be read and written beyond single packets; anything but [`Offload::None`] means virtio headers.
    #[must_use]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Reads one packet, with offload behind its virtio header; what is longer than `buffer` is cut.
    ///
    /// With offload a packet may be a super-packet of up to 65,535 bytes, so that `buffer` should have 65,545.
    ///
    /// # Errors
    /// `WouldBlock` when no packet waits; anything else means that the device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(uninterrupted(|| nix::unistd::read(&self.descriptor, buffer))?)
    }

    /// Hands one ordinary packet with complete checksums to the kernel; with offload this puts the virtio header in
    /// front that says so.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's queue is full, `EIO` while the interface is down, `EINVAL` for what is
    /// no IP packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        if self.offload != Offload::None {
            return self.write_parts(&[IoSlice::new(&VirtioHeader::NONE.to_bytes()), IoSlice::new(packet)]);
        }
        uninterrupted(|| nix::unistd::write(&self.descriptor, packet))?;
        Ok(())
    }

    /// Hands one packet to the kernel that lies in several places, in one system call and without copying it
    /// together first. With offload the parts begin with its virtio header, which may make it a super-packet.
    ///
    /// # Errors
    /// As [`write`](Self::write); also `EINVAL` for more than 1,024 parts, for a virtio header that is not true of the
    /// packet, and for a kind of segmentation that is not in [`offload`](Self::offload). Nothing is written then.
    pub fn write_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        uninterrupted(|| nix::sys::uio::writev(&self.descriptor, parts))?;
        Ok(())
    }
}

/// Repeats a system call that a signal has interrupted.
fn uninterrupted(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Asks for the most that is wanted and that the kernel grants; each refusal costs one feature.
fn negotiate(most: Offload, mut set_features: impl FnMut(libc::c_uint) -> Result<(), Errno>) -> Offload {
    let mut wanted = OFFLOADS.into_iter().filter(|(offload, _)| *offload <= most);
    let granted = wanted.find(|(_, features)| set_features(*features).is_ok());
    granted.map_or(Offload::None, |(offload, _)| offload)
}

/// The first queue of a device that nobody else holds; `None` when the kernel does not know a flag.
fn attach_first(name: &str, flags: libc::c_int) -> Result<Option<Tun>, TunError> {
    let flags = flags | libc::IFF_MULTI_QUEUE;
    match attach(name, flags | libc::IFF_TUN_EXCL) {
        Ok(fresh) => Tun::first(fresh).map(Some),
        Err(AttachError::Refused(Errno::EINVAL)) => Ok(None),
        // It exists already. With several queues the kernel would let us join whoever holds it.
        Err(AttachError::Refused(Errno::EBUSY)) => {
            take_over(name, flags).map_err(|error| error.about(name)).and_then(Tun::first).map(Some)
        }
        Err(error) => Err(error.about(name)),
    }
}

/// Attaches to a device that an earlier process has left; `EBUSY` when a process holds it.
fn take_over(name: &str, flags: libc::c_int) -> Result<(OwnedFd, String), AttachError> {
    let count = || device_queues::count(name).map_err(AttachError::Refused);
    let (descriptor, name) = match count()? {
        Queues::Single => attach(name, flags & !libc::IFF_MULTI_QUEUE)?,
        Queues::Several(0) => attach(name, flags)?,
        // Found out before it comes to that: a running process would lose packets to our queue.
        Queues::Several(_) => return Err(AttachError::Refused(Errno::EBUSY)),
    };
    // Another process may have come by the same way at the same moment.
    if matches!(count()?, Queues::Several(2..)) {
        return Err(AttachError::Refused(Errno::EBUSY));
    }
    // What the earlier process took, this one need not.
    set_offload(descriptor.as_fd(), 0).map_err(AttachError::Refused)?;
    Ok((descriptor, name))
}

/// Why a queue was not attached.
enum AttachError {
    Tun(TunError),
    /// By `TUNSETIFF`, or what belongs to it.
    Refused(Errno),
}

impl AttachError {
    fn about(self, name: &str) -> TunError {
        match self {
            Self::Tun(error) => error,
            Self::Refused(errno) => attach_error(errno, name),
        }
    }
}

/// Opens the driver and attaches it to the device `name`, which is made if there is none.
fn attach(name: &str, flags: libc::c_int) -> Result<(OwnedFd, String), AttachError> {
    let bad_name = || AttachError::Tun(TunError::BadName(name.to_owned()));
    let mut request = InterfaceRequest::new(name).ok_or_else(bad_name)?;
    let descriptor = open_node(Path::new(NODE), name).map_err(AttachError::Tun)?;
    // Truncation is not possible: all constants are below 0x10000. The highest one takes the bit of the sign.
    request.set_flags((flags | libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short);
    request.perform(descriptor.as_fd(), libc::TUNSETIFF).map_err(AttachError::Refused)?;
    Ok((descriptor, request.name()))
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn open_node(node: &Path, name: &str) -> Result<OwnedFd, TunError> {
    let open = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(node);
    let mut opened = open();
    if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && make_node(node).is_ok()
    {
        opened = open();
    }
    opened.map(OwnedFd::from).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver(error),
        Some(Errno::EACCES | Errno::EPERM) => TunError::NoPermission { name: name.to_owned(), error },
        _ => TunError::System { name: name.to_owned(), action: "open /dev/net/tun for", error },
    })
}

/// Minimal containers and root file systems come without the node although the driver is there.
fn make_node(node: &Path) -> io::Result<()> {
    if let Some(directory) = node.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    Ok(mknod(node, SFlag::S_IFCHR, mode, makedev(10, 200))?)
}

fn attach_error(errno: Errno, name: &str) -> TunError {
    let name = name.to_owned();
    match errno {
        Errno::EPERM | Errno::EACCES => TunError::NoPermission { name, error: errno.into() },
        Errno::EBUSY => TunError::NameTaken(name),
        Errno::EINVAL | Errno::EEXIST => TunError::NotTun(name),
        _ => TunError::System { name, action: "make", error: errno.into() },
    }
}

fn system(name: &str, action: &'static str, error: Errno) -> TunError {
    TunError::System { name: name.to_owned(), action, error: error.into() }
}

fn set_mtu(name: &str, mtu: u32) -> Result<(), Errno> {
    let mut request = InterfaceRequest::new(name).ok_or(Errno::EINVAL)?;
    request.set_mtu(libc::c_int::try_from(mtu).map_err(|_| Errno::EINVAL)?);
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    request.perform(any.as_fd(), libc::SIOCSIFMTU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused_before_anything_is_opened() {
        for name in ["", "a name", "a/b", "sixteen-bytes-xx", "nul\0"] {
            let made = Tun::create(&Config { name: name.to_owned(), mtu: 1280, offload: Offload::None });
            assert!(matches!(made, Err(TunError::BadName(_))), "{name:?}: {made:?}");
        }
    }

    #[test]
    fn a_pair_carries_packets_and_never_blocks() {
        let (left, right) = Tun::pair(Offload::None).expect("pair");
        let mut buffer = [0; 64];
        let nothing = right.read(&mut buffer).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        left.write(b"one").expect("writes");
        left.write(b"second").expect("writes");
        assert_eq!(right.read(&mut buffer).expect("reads"), 3);
        assert_eq!(right.read(&mut buffer).expect("reads"), 6);
        assert_eq!(&buffer[..6], b"second");
    }

    #[test]
    fn a_pair_with_offload_carries_virtio_headers() {
        let (left, right) = Tun::pair(Offload::Tcp).expect("pair");
        assert_eq!(right.offload(), Offload::Tcp);
        let header = VirtioHeader { segment_size: 7, ..VirtioHeader::NONE };
        let front = header.to_bytes();
        let parts = [&front[..], b"first", b"second"].map(IoSlice::new);
        left.write_parts(&parts).expect("writes");
        left.write(b"alone").expect("writes");
        let mut buffer = [0; 64];
        assert_eq!(right.read(&mut buffer).expect("reads"), 21);
        assert_eq!(VirtioHeader::parse(&buffer), Ok(header));
        assert_eq!(&buffer[10..21], b"firstsecond");
        assert_eq!(right.read(&mut buffer).expect("reads"), 15);
        assert_eq!(VirtioHeader::parse(&buffer), Ok(VirtioHeader::NONE));
        assert_eq!(&buffer[10..15], b"alone");
    }

    #[test]
    fn a_refused_feature_costs_that_feature_alone() {
        let kernel = |known: libc::c_uint| {
            move |features| if features & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
        };
        assert_eq!(negotiate(Offload::TcpAndUdp, kernel(0x7f)), Offload::TcpAndUdp);
        assert_eq!(negotiate(Offload::TcpAndUdp, kernel(0x1f)), Offload::Tcp, "before Linux 6.2");
        assert_eq!(negotiate(Offload::TcpAndUdp, kernel(0)), Offload::None);
        assert_eq!(negotiate(Offload::Tcp, kernel(0x7f)), Offload::Tcp, "more is not wanted");
    }

    #[test]
    fn errors_name_the_cure() {
        let text = attach_error(Errno::EPERM, "adit0").to_string();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
        let text = attach_error(Errno::EBUSY, "adit0").to_string();
        assert!(text.contains("another instance"), "{text}");
        let text = TunError::NoDriver(Errno::ENOENT.into()).to_string();
        assert!(text.contains("modprobe tun"), "{text}");
    }
}
