//! The `ifreq` structure of interface ioctls, kept in one place because it needs `unsafe`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// An `ifreq` that names an interface.
pub(crate) struct InterfaceRequest(libc::ifreq);

impl InterfaceRequest {
    /// `None` when the name cannot be an interface name.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/' && *byte != b':';
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || !bytes.iter().all(legal) || name.contains('%')
        {
            return None;
        }
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_map: libc::__c_anonymous_ifru_map {
                    mem_start: 0,
                    mem_end: 0,
                    base_addr: 0,
                    irq: 0,
                    dma: 0,
                    port: 0,
                },
            },
        };
        for (slot, byte) in request.ifr_name.iter_mut().zip(bytes) {
            *slot = libc::c_char::from_ne_bytes([*byte]);
        }
        Some(Self(request))
    }

    pub(crate) fn set_flags(&mut self, flags: libc::c_short) {
        self.0.ifr_ifru.ifru_flags = flags;
    }

    pub(crate) fn set_mtu(&mut self, mtu: libc::c_int) {
        self.0.ifr_ifru.ifru_mtu = mtu;
    }

    /// The name, which the kernel may have completed.
    pub(crate) fn name(&self) -> String {
        let bytes: Vec<u8> =
            self.0.ifr_name.iter().map(|&char| char.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Performs an ioctl that takes a pointer to an `ifreq`, such as `TUNSETIFF` or `SIOCSIFMTU`.
    #[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
    pub(crate) fn perform(&mut self, descriptor: BorrowedFd<'_>, request: libc::Ioctl) -> Result<(), Errno> {
        // SAFETY: the descriptor is open for the whole call, and `self.0` is a fully initialised `ifreq` that
        // lives through it. The requests used in this crate read and write that structure only and keep no
        // pointer to it.
        let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), request, &raw mut self.0) };
        Errno::result(result).map(drop)
    }
}

/// Lets a TUN device outlive the process, or not.
pub(crate) fn set_persistent(descriptor: BorrowedFd<'_>, is_persistent: bool) -> io::Result<()> {
    Ok(set_number(descriptor, libc::TUNSETPERSIST, is_persistent.into())?)
}

/// Says which kinds of unfinished packets (`TUN_F_*`) the reader of a TUN device takes.
pub(crate) fn set_offload(descriptor: BorrowedFd<'_>, features: libc::c_uint) -> Result<(), Errno> {
    set_number(descriptor, libc::TUNSETOFFLOAD, features.into())
}

/// Gives a TUN device the program that says which queue a packet comes out of.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(crate) fn set_steering(descriptor: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let program: libc::c_int = program.as_raw_fd();
    // SAFETY: both descriptors are open for the whole call, which reads one integer through the pointer and keeps none.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const program) };
    Errno::result(result).map(drop)
}

/// Performs an ioctl of the TUN driver that takes a number, no pointer.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
fn set_number(descriptor: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for the whole call, and both requests used above take their argument as a number,
    // so that no memory is touched, whatever the value.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), request, value) };
    Errno::result(result).map(drop)
}
