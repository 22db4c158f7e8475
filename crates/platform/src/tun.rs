//! The tunnel interface: packets between the kernel and the data plane.
//!
//! A [`Tun`] is one queue of one layer-3 device; [`Tun::add_queue`] makes another one for another thread. Each flow comes
//! out of one queue, the same for its whole life, whichever queue is written to. Reads and writes never block; wait for
//! readiness with epoll on the descriptor. Addresses, MTU changes and routes are the business of
//! [`network`](crate::network).
//!
//! # Offload
//!
//! Without it, a read or write is a single packet. With it ([`Tun::offload`] says how much of it there is), every packet
//! has a virtio header of 10 bytes in front, which [`adit_packet::offload`] reads and writes. What is read may then have
//! a partial checksum or stand for many segments; what is written may too.

#[cfg(target_os = "linux")]
mod device_queues;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod steering;

pub use adit_packet::offload::Offload;
#[cfg(target_os = "linux")]
pub use linux::Tun;

/// The device to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interface name, 1 to 15 bytes.
    pub name: String,
    /// Largest packet in bytes, 1,280 to 65,535.
    pub mtu: u32,
    /// The most offload to ask the kernel for; less, or none, is no error.
    pub offload: Offload,
}

/// Why the device could not be made; each message names the cure.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name cannot be an interface name.
    #[error("`{0}` cannot be a network interface name (1 to 15 bytes, no spaces, no slashes)")]
    BadName(String),
    /// The kernel has no TUN driver here.
    #[error(
        "this machine offers no TUN devices: {0} (load the module with `modprobe tun`; \
         in a container pass `--device /dev/net/tun`)"
    )]
    NoDriver(std::io::Error),
    /// The process may not make interfaces.
    #[error("no permission to make the interface `{name}`: {error} (run as root or with CAP_NET_ADMIN)")]
    NoPermission {
        /// The interface asked for.
        name: String,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// Somebody else has an interface of that name open.
    #[error("the interface `{0}` is held by another process (is another instance running?)")]
    NameTaken(String),
    /// The name belongs to an interface of another kind.
    #[error("an interface `{0}` exists and is not a TUN device of ours")]
    NotTun(String),
    /// Anything else.
    #[error("cannot {action} the interface `{name}`: {error}")]
    System {
        /// The interface asked for.
        name: String,
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        error: std::io::Error,
    },
}
