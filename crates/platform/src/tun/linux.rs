//! TUN through `/dev/net/tun`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{Config, TunError};
use crate::interface_request::InterfaceRequest;

const NODE: &str = "/dev/net/tun";

/// One queue of a TUN device; closing it removes the device.
#[derive(Debug)]
pub struct Tun {
    descriptor: OwnedFd,
    name: String,
    index: u32,
}

impl Tun {
    /// Makes the device (it starts without addresses and down).
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn create(config: &Config) -> Result<Self, TunError> {
        let name = &config.name;
        let mut request = InterfaceRequest::new(name).ok_or_else(|| TunError::BadName(name.clone()))?;
        let descriptor = open_node(Path::new(NODE), name)?;
        // Truncation is not possible: both constants are below 0x8000.
        request.set_flags((libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short);
        request.perform(descriptor.as_fd(), libc::TUNSETIFF).map_err(|errno| attach_error(errno, name))?;
        let name = request.name();
        let system =
            |action, error: Errno| TunError::System { name: name.clone(), action, error: error.into() };
        let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|error| system("find", error))?;
        set_mtu(&name, config.mtu).map_err(|error| system("set the MTU of", error))?;
        Ok(Self { descriptor, name, index })
    }

    /// Two connected stand-ins without a kernel device: what is written to one is read from the other. For
    /// tests.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (left, right) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
        let stand_in = |descriptor, name: &str| Self { descriptor, name: name.to_owned(), index: 0 };
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

    /// Reads one packet; a packet longer than `buffer` is cut.
    ///
    /// # Errors
    /// `WouldBlock` when no packet waits; anything else means that the device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(&self.descriptor, buffer) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Hands one packet to the kernel.
    ///
    /// # Errors
    /// `WouldBlock` when the kernel's queue is full, `EIO` while the interface is down, `EINVAL` for what is
    /// no IP packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            match nix::unistd::write(&self.descriptor, packet) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }
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
            let made = Tun::create(&Config { name: name.to_owned(), mtu: 1280 });
            assert!(matches!(made, Err(TunError::BadName(_))), "{name:?}: {made:?}");
        }
    }

    #[test]
    fn a_pair_carries_packets_and_never_blocks() {
        let (left, right) = Tun::pair().expect("pair");
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
    fn errors_name_the_cure() {
        let text = attach_error(Errno::EPERM, "adit0").to_string();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
        let text = attach_error(Errno::EBUSY, "adit0").to_string();
        assert!(text.contains("another instance"), "{text}");
        let text = TunError::NoDriver(Errno::ENOENT.into()).to_string();
        assert!(text.contains("modprobe tun"), "{text}");
    }
}
