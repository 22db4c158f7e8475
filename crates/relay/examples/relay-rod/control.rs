//! As much of TURN as it takes to get data flowing: Binding, Allocate, ChannelBind and Refresh, all of them granted.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use adit_turn::stun::{AttributeKind, Class, Message, Method, Writer};
use anyhow::Result;

use crate::socket;

/// Seconds that are promised; nothing ever expires.
const LIFETIME: u32 = 600;

/// A client with its port.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) client: SocketAddrV4,
    pub(crate) socket: UdpSocket,
    pub(crate) peer: SocketAddrV4,
    pub(crate) channel: u16,
}

/// What to send back.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) payload: Vec<u8>,
    /// A port that was opened for it.
    pub(crate) opened: Option<(u64, &'a UdpSocket)>,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Allocations {
    ip: Ipv4Addr,
    /// By the number of the relayed port.
    by_port: HashMap<u64, Allocation>,
    ports: HashMap<SocketAddrV4, u64>,
}

impl Allocations {
    pub(crate) fn new(ip: Ipv4Addr) -> Self {
        Self { ip, by_port: HashMap::new(), ports: HashMap::new() }
    }

    pub(crate) fn of_client(&self, client: SocketAddrV4) -> Option<&Allocation> {
        self.of_port(*self.ports.get(&client)?)
    }

    pub(crate) fn of_port(&self, port: u64) -> Option<&Allocation> {
        self.by_port.get(&port)
    }

    /// Grants a request; `None` for what is none.
    pub(crate) fn answer(&mut self, client: SocketAddrV4, datagram: &[u8]) -> Result<Option<Answer<'_>>> {
        let Ok(request) = Message::parse(datagram) else { return Ok(None) };
        if request.class() != Class::Request {
            return Ok(None);
        }
        let mapped = SocketAddr::V4(client);
        let success = Writer::new(request.method(), Class::Success, request.transaction())
            .xor_address(AttributeKind::XOR_MAPPED_ADDRESS, mapped)
            .number(AttributeKind::LIFETIME, LIFETIME);
        let (success, opened) = match request.method() {
            Method::ALLOCATE => {
                let port = self.allocate(client)?;
                let relayed = SocketAddrV4::new(self.ip, u16::try_from(port)?);
                (success.xor_address(AttributeKind::XOR_RELAYED_ADDRESS, relayed.into()), Some(port))
            }
            Method::CHANNEL_BIND => (success, self.bind(client, &request).and(None)),
            Method::REFRESH if request.number(AttributeKind::LIFETIME) == Some(0) => {
                self.end(client);
                (success, None)
            }
            _ => (success, None),
        };
        let opened = opened.and_then(|port| Some((port, &self.by_port.get(&port)?.socket)));
        Ok(Some(Answer { payload: success.finish(), opened }))
    }

    fn allocate(&mut self, client: SocketAddrV4) -> Result<u64> {
        self.end(client);
        let socket = socket::open(SocketAddrV4::new(self.ip, 0))?;
        let port = u64::from(socket.local_addr()?.port());
        self.by_port.insert(port, Allocation { client, socket, peer: client, channel: 0 });
        self.ports.insert(client, port);
        Ok(port)
    }

    fn bind(&mut self, client: SocketAddrV4, request: &Message<'_>) -> Option<u64> {
        let port = *self.ports.get(&client)?;
        let allocation = self.by_port.get_mut(&port)?;
        let &[high, low, ..] = request.find(AttributeKind::CHANNEL_NUMBER)? else { return None };
        let SocketAddr::V4(peer) = request.xor_address(AttributeKind::XOR_PEER_ADDRESS)? else { return None };
        (allocation.channel, allocation.peer) = (u16::from_be_bytes([high, low]), peer);
        Some(port)
    }

    fn end(&mut self, client: SocketAddrV4) {
        if let Some(port) = self.ports.remove(&client) {
            self.by_port.remove(&port);
        }
    }
}
