//! A TUN device whose packets may be as long as 64 KiB, with a header that says how to cut them.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;

/// Length of `virtio_net_hdr`, which precedes each packet.
pub(super) const OFFLOAD_HEADER: usize = 10;

/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_USO4`, `TUN_F_USO6`.
const FEATURES: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;

/// Makes the device, down and without addresses.
#[expect(unsafe_code, reason = "ioctl has no safe wrapper")]
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let options = libc::O_NONBLOCK;
    let tun = OpenOptions::new().read(true).write(true).custom_flags(options).open("/dev/net/tun")?;
    let mut request = request(name)?;
    // SAFETY: the descriptor is open, and `TUNSETIFF` reads and writes an `ifreq`, which is initialised and lives
    // through the call.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: the descriptor is open, and `TUNSETOFFLOAD` takes a number, no pointer.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, FEATURES) })?;
    Ok(tun.into())
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an interface"));
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // Truncation is not possible: all flags are below 0x8000.
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}
