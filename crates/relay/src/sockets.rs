//! The relay's UDP sockets: listeners that all shards share, and the ports that each shard lends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use adit_platform::udp::train::TrainSocket;
use adit_platform::udp::{BindError, Config};
use adit_turn::Family;
use adit_turn::server::{RelayPort, Socket};
use anyhow::Context as _;

use crate::settings::Place;
use crate::steering::{self, Keys};

/// Buffers of a listener for data, which many clients share.
const DATA_BUFFER: usize = 7 << 20;
/// Buffers of a listener for requests: thousands of them, each answered within microseconds.
const REQUEST_BUFFER: usize = 4 << 20;
/// Buffers of a lent port, which one client has for itself.
const PORT_BUFFER: usize = 1 << 20;

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// ChannelData, indications, and whatever else comes.
    Data,
    /// STUN requests.
    Requests,
}

/// The listeners of one shard.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    data: [Option<TrainSocket>; 2],
    requests: [Option<TrainSocket>; 2],
}

impl Listeners {
    /// Opens the listeners of all shards.
    ///
    /// The first one is bound without sharing its port: a second relay on this port would silently take half of the datagrams.
    ///
    /// # Errors
    ///
    /// When a port is taken or an address is not ours.
    pub(crate) fn open(place: &Place, shards: usize, keys: Keys) -> anyhow::Result<Vec<Self>> {
        let mut all: Vec<Self> = (0..shards).map(|_| Self::default()).collect();
        for family in FAMILIES {
            let Some(address) = place.address(family) else { continue };
            let mut group = Group::new(SocketAddr::new(address.bind, place.port));
            // The order is what the steering program goes by.
            for listeners in &mut all {
                listeners.data[index(family)] = Some(group.join(DATA_BUFFER)?);
            }
            for listeners in &mut all {
                listeners.requests[index(family)] = Some(group.join(REQUEST_BUFFER)?);
            }
            let program = steering::program(family, shards as u32, keys);
            let first = all.first().and_then(|listeners| listeners.get(family, Role::Data));
            if let Some(Err(error)) = first.map(|first| first.steer(&program)) {
                tracing::warn!(%error, "the kernel refuses to tell requests from data; under overload it may lose both");
            }
        }
        Ok(all)
    }

    /// One of them.
    pub(crate) fn get(&self, family: Family, role: Role) -> Option<&TrainSocket> {
        match role {
            Role::Data => self.data[index(family)].as_ref(),
            Role::Requests => self.requests[index(family)].as_ref(),
        }
    }

    /// What the kernel has dropped at those for a purpose, because their queue was full.
    pub(crate) fn dropped(&self, purpose: Role) -> u64 {
        let of = self.all().filter(|(_, role, _)| *role == purpose);
        of.filter_map(|(_, _, socket)| socket.dropped()).map(u64::from).sum()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Family, Role, &TrainSocket)> {
        let both = FAMILIES.into_iter().flat_map(|family| [(family, Role::Data), (family, Role::Requests)]);
        both.filter_map(|(family, role)| Some((family, role, self.get(family, role)?)))
    }
}

/// Sockets that share an address and port.
struct Group {
    address: SocketAddr,
    is_first: bool,
}

impl Group {
    fn new(address: SocketAddr) -> Self {
        Self { address, is_first: true }
    }

    fn join(&mut self, buffer: usize) -> anyhow::Result<TrainSocket> {
        let reuse_port = !std::mem::take(&mut self.is_first);
        let config =
            Config { reuse_port, receive_buffer: buffer, send_buffer: buffer, ..Config::new(self.address) };
        let socket = TrainSocket::bind(&config)?;
        if !reuse_port {
            socket
                .share_port()
                .with_context(|| format!("cannot share UDP {} among threads", self.address))?;
        }
        Ok(socket)
    }
}

/// The ports that one shard lends.
#[derive(Debug)]
pub(crate) struct LentPorts {
    first: u16,
    binds: [Option<IpAddr>; 2],
    /// By distance from the first port.
    sockets: [Vec<Option<TrainSocket>>; 2],
    open: usize,
}

impl LentPorts {
    /// None lent yet.
    pub(crate) fn new(place: &Place, ports: &RangeInclusive<u16>) -> Self {
        let count = usize::from(ports.end().saturating_sub(*ports.start())) + 1;
        let binds = FAMILIES.map(|family| place.address(family).map(|address| address.bind));
        let sockets = binds.map(|bind| (0..if bind.is_some() { count } else { 0 }).map(|_| None).collect());
        Self { first: *ports.start(), binds, sockets, open: 0 }
    }

    /// Opens the socket of a port, in place of an old one.
    ///
    /// # Errors
    ///
    /// When the port is taken, or there are too many open files.
    pub(crate) fn open(&mut self, port: RelayPort) -> Result<&TrainSocket, BindError> {
        let none = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let ip = self.binds[index(port.family)];
        let address = SocketAddr::new(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])), port.number);
        let system = |error| BindError::System { address, error };
        let offset = port.number.checked_sub(self.first).map(usize::from);
        let place = offset
            .filter(|_| ip.is_some())
            .and_then(|offset| self.sockets[index(port.family)].get_mut(offset));
        let place = place.ok_or_else(|| system(none()))?;
        let config = Config { receive_buffer: PORT_BUFFER, send_buffer: PORT_BUFFER, ..Config::new(address) };
        let socket = TrainSocket::bind(&config)?;
        self.open += usize::from(place.is_none());
        Ok(place.insert(socket))
    }

    /// Closes a port.
    pub(crate) fn close(&mut self, port: RelayPort) {
        let offset = port.number.checked_sub(self.first).map(usize::from);
        let place = offset.and_then(|offset| self.sockets[index(port.family)].get_mut(offset));
        self.open -= usize::from(place.is_some_and(|place| place.take().is_some()));
    }

    /// The socket of a port.
    pub(crate) fn get(&self, port: RelayPort) -> Option<&TrainSocket> {
        let offset = usize::from(port.number.checked_sub(self.first)?);
        self.sockets[index(port.family)].get(offset)?.as_ref()
    }

    /// How many ports are open.
    pub(crate) fn open_ports(&self) -> usize {
        self.open
    }
}

/// All UDP sockets of a shard.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) listeners: Listeners,
    pub(crate) lent: LentPorts,
}

impl Sockets {
    /// The socket that data leaves by; a connection is none.
    pub(crate) fn for_data(&self, socket: Socket) -> Option<&TrainSocket> {
        match socket {
            Socket::Listener(family) => self.listeners.get(family, Role::Data),
            Socket::Relay(port) => self.lent.get(port),
            Socket::Stream(_) => None,
        }
    }
}

pub(crate) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
