//! Listening for connections: one socket per shard, family and port; the kernel spreads connections over the shards.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use adit_turn::Family;
use anyhow::{Context as _, anyhow};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::Security;
use crate::settings::Place;
use crate::sockets::FAMILIES;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// After this long without an acknowledgement a connection is dead, whether it waits for one or is idle.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Bytes that the kernel takes in but has not sent yet: more would only be delay.
const NOT_SENT: u32 = 128 << 10;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) family: Family,
    pub(crate) security: Security,
    socket: TcpListener,
    /// Given up for a moment to turn connections away when no file can be opened; else they would ring for ever.
    reserve: Option<File>,
}

/// A new connection.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: TcpStream,
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Accepts a connection; `None` when none waits, or none can be taken now.
    pub(super) fn accept(&mut self) -> Option<Opened> {
        match self.socket.accept() {
            Ok((socket, address)) => {
                let tuned = tune(&socket);
                tuned.ok().map(|()| Opened { socket, address })
            }
            Err(error) => {
                if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE))
                    && self.reserve.take().is_some()
                {
                    drop(self.socket.accept());
                    self.reserve = reserve();
                    tracing::debug!(%error, "a connection is turned away");
                }
                None
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Opens the listeners of all shards.
///
/// # Errors
///
/// When a port is taken or an address is not ours.
pub(crate) fn open_listeners(place: &Place, shards: usize) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut all: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    let tls_port = place.tls.as_ref().map(|tls| tls.port);
    for (security, port) in [(Security::Plain, place.tcp_port), (Security::Tls, tls_port)] {
        for family in FAMILIES {
            let (Some(port), Some(address)) = (port, place.address(family)) else { continue };
            let address = SocketAddr::new(address.bind, port);
            let mut is_first = true;
            for listeners in &mut all {
                let socket = listen(address, std::mem::take(&mut is_first))?;
                listeners.push(Listener { family, security, socket, reserve: reserve() });
            }
        }
    }
    Ok(all)
}

/// The first one of a group does not share its port until it has it, so that a second relay is noticed.
fn listen(address: SocketAddr, is_first: bool) -> anyhow::Result<TcpListener> {
    let failed = || format!("cannot listen on TCP {address}");
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).with_context(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).with_context(failed)?;
    }
    // Connections of a relay that ran before may linger.
    socket.set_reuse_address(true).with_context(failed)?;
    socket.set_reuse_port(!is_first).with_context(failed)?;
    socket.set_nonblocking(true).with_context(failed)?;
    let bound = socket.bind(&address.into()).and_then(|()| socket.listen(BACKLOG));
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(anyhow!("TCP {address} is taken by another process"));
        }
        outcome => outcome.with_context(failed)?,
    }
    socket.set_reuse_port(true).with_context(failed)?;
    Ok(socket.into())
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
    let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(DEAD_AFTER / 3).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
