//! The relay's sockets: one listener per family, one socket per lent port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use adit_turn::Family;
use adit_turn::server::{RelayPort, Socket};
use anyhow::Context as _;
use tokio::task::AbortHandle;

use crate::settings::Settings;
use crate::udp::UdpSocket;

/// Buffers of a listener, which all clients share.
const LISTENER_BUFFER: usize = 7 << 20;
/// Buffers of a lent port, which one client has for itself.
const PORT_BUFFER: usize = 1 << 20;

/// A lent port: its socket, and the task that reads it.
#[derive(Debug)]
struct Lent {
    socket: Rc<UdpSocket>,
    task: AbortHandle,
}

/// All sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    listeners: [Option<Rc<UdpSocket>>; 2],
    binds: [Option<IpAddr>; 2],
    lent: HashMap<RelayPort, Lent>,
}

impl Sockets {
    /// Opens the listeners. Needs a runtime.
    ///
    /// They do not share their port (`SO_REUSEPORT`): a second relay on this port would silently take half of the datagrams.
    ///
    /// # Errors
    ///
    /// When a port is taken or an address is not ours.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let listen = |family| {
            let Some(address) = settings.address(family) else { return Ok(None) };
            let socket = UdpSocket::bind(SocketAddr::new(address.bind, settings.port), LISTENER_BUFFER)?;
            anyhow::Ok(Some(Rc::new(socket)))
        };
        let bind = |family| settings.address(family).map(|address| address.bind);
        Ok(Self {
            listeners: [listen(Family::V4)?, listen(Family::V6)?],
            binds: [bind(Family::V4), bind(Family::V6)],
            lent: HashMap::new(),
        })
    }

    /// The listener of a family.
    pub(crate) fn listener(&self, family: Family) -> Option<Rc<UdpSocket>> {
        self.listeners[index(family)].clone()
    }

    /// Opens the socket of a port.
    ///
    /// # Errors
    ///
    /// When the port is taken, or there are too many open files.
    pub(crate) fn open_port(&self, port: RelayPort) -> anyhow::Result<Rc<UdpSocket>> {
        let ip = self.binds[index(port.family)].context("the relay has no address of this family")?;
        Ok(Rc::new(UdpSocket::bind(SocketAddr::new(ip, port.number), PORT_BUFFER)?))
    }

    /// Keeps an open port with its task.
    pub(crate) fn keep(&mut self, port: RelayPort, socket: Rc<UdpSocket>, task: AbortHandle) {
        self.lent.insert(port, Lent { socket, task });
    }

    /// Closes a port and ends its task.
    pub(crate) fn close(&mut self, port: RelayPort) {
        if let Some(lent) = self.lent.remove(&port) {
            lent.task.abort();
        }
    }

    /// The socket that the machine means.
    pub(crate) fn get(&self, socket: Socket) -> Option<&UdpSocket> {
        let socket = match socket {
            Socket::Listener(family) => self.listeners[index(family)].as_ref(),
            Socket::Relay(port) => self.lent.get(&port).map(|lent| &lent.socket),
            Socket::Stream(_) => None, // no listener for them
        };
        socket.map(Rc::as_ref)
    }

    /// How many ports are open.
    pub(crate) fn open_ports(&self) -> usize {
        self.lent.len()
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
