//! What can go wrong between the relay and the kernel.

use std::io;

use crate::Mode;
use crate::route::Unroutable;

/// Why the program is not attached.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The build lacks the program.
    #[error("this build lacks the XDP program; build with `--features xdp`, which needs clang")]
    NotBuilt,
    /// No interface, or too many of them.
    #[error("{0} interfaces; the program can be attached to 1 to {max}", max = crate::MAX_INTERFACES)]
    Interfaces(usize),
    /// There is no such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// The kernel refuses the program or a table.
    #[error(
        "the kernel does not take the program (Linux 5.11 or newer, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed): {0}"
    )]
    Load(String),
    /// An interface refuses the program.
    #[error("{interface} does not take the program in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode.
        mode: Mode,
        /// What the kernel says.
        reason: String,
    },
    /// The kernel does not say where packets go.
    #[error(
        "cannot set {path} to 1, without which the kernel does not tell the program where packets go: {source}"
    )]
    Forwarding {
        /// The setting.
        path: &'static str,
        /// Why it cannot be set.
        source: io::Error,
    },
}

/// Why a route is left to the sockets.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The table is full.
    #[error("the table is full")]
    Full,
    /// Frames of this route cannot be told or made.
    #[error(transparent)]
    Unroutable(#[from] Unroutable),
    /// The program was detached because its frames were lost.
    #[error("the program is detached")]
    Detached,
    /// Anything else that the kernel says.
    #[error("the kernel does not take the route: {0}")]
    Kernel(String),
}
