//! Channels (RFC 8656, section 12), and with them the data path.
//!
//! What a datagram in either direction needs to know of its channel lies in one cache line. Two hash
//! tables of numbers lead to it: by client and channel number, and by relayed port and peer. They
//! hold no keys, since the line itself tells whether it is the right one. Nor is it looked for where
//! the last datagram already found it: datagrams come in trains.

use super::allocations::AllocationKey;
use super::endpoint::{ClientKey, Endpoint, HashKey};
use super::links::{Linked, Links};
use super::users::UserId;
use super::wheel::TimerId;
use super::{Client, RelayPort, StreamId};
use crate::Family;
use hashbrown::HashTable;
use slab::Slab;

/// What the data path reads: one cache line.
#[derive(Copy, Clone, Debug)]
#[repr(align(64))]
pub(super) struct Channel {
    client: Endpoint,
    pub(super) peer: Endpoint,
    stream: u32,
    pub(super) user: UserId,
    /// Zero, which is no channel number, if the entry is free.
    pub(super) number: u16,
    port: u16,
    is_stream: bool,
    /// The peer's host may send to the client.
    pub(super) is_permitted: bool,
    /// The peer is a relayed address of this relay: it must be lent at the moment of sending.
    pub(super) only_if_lent: bool,
}

const _: () = assert!(size_of::<Channel>() == 64);

impl Channel {
    const FREE: Self = Self {
        client: Endpoint::NONE,
        peer: Endpoint::NONE,
        stream: 0,
        user: UserId(0),
        number: 0,
        port: 0,
        is_stream: false,
        is_permitted: false,
        only_if_lent: false,
    };

    fn client_key(&self) -> ClientKey {
        ClientKey { endpoint: self.client, stream: self.is_stream.then_some(StreamId(self.stream)) }
    }

    pub(super) fn client(&self) -> Client {
        self.client_key().into()
    }

    pub(super) fn is_stream(&self) -> bool {
        self.is_stream
    }

    pub(super) fn family(&self) -> Family {
        self.peer.family()
    }

    /// The relayed port that the peer knows.
    pub(super) fn port(&self) -> RelayPort {
        RelayPort { family: self.family(), number: self.port }
    }

    /// The peer as a relayed port of this relay.
    pub(super) fn peer_port(&self) -> RelayPort {
        RelayPort { family: self.family(), number: self.peer.port }
    }

    fn is_from(&self, client: ClientKey, number: u16) -> bool {
        self.number == number && self.client_key() == client
    }

    fn is_to(&self, port: RelayPort, peer: Endpoint) -> bool {
        self.port == port.number && self.peer == peer && self.number != 0
    }
}

/// What only the control path needs.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) key: AllocationKey,
    pub(super) permission: u32,
    /// Ends the channel; none once it is over.
    pub(super) timer: Option<TimerId>,
    /// The generation of the route that the caller was told of.
    pub(super) route: Option<u64>,
    links: Links,
}

impl Linked for Binding {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// A channel to be bound.
#[derive(Copy, Clone, Debug)]
pub(super) struct NewChannel {
    pub(super) number: u16,
    pub(super) peer: Endpoint,
    pub(super) port: RelayPort,
    pub(super) only_if_lent: bool,
}

/// All channels.
#[derive(Debug)]
pub(super) struct Channels {
    lines: Vec<Channel>,
    /// Under the same numbers as `lines`.
    pub(super) bindings: Slab<Binding>,
    by_client: HashTable<u32>,
    by_peer: HashTable<u32>,
    keys: [HashKey; 2],
    /// Where the last datagram of each direction found its channel.
    latest: [usize; 2],
}

impl Channels {
    pub(super) fn new(keys: [HashKey; 2]) -> Self {
        Self {
            lines: Vec::new(),
            bindings: Slab::new(),
            by_client: HashTable::new(),
            by_peer: HashTable::new(),
            keys,
            latest: [0; 2],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Channel> {
        self.lines.get(index as usize)
    }

    /// The channel that a client's ChannelData names.
    pub(super) fn from_client(&mut self, client: ClientKey, number: u16) -> Option<&Channel> {
        if !self.lines.get(self.latest[0]).is_some_and(|line| line.is_from(client, number)) {
            self.latest[0] = self.find_by_client(client, number)? as usize;
        }
        self.lines.get(self.latest[0])
    }

    /// The channel of a peer that sends to a relayed port.
    pub(super) fn from_peer(&mut self, port: RelayPort, peer: Endpoint) -> Option<&Channel> {
        if !self.lines.get(self.latest[1]).is_some_and(|line| line.is_to(port, peer)) {
            self.latest[1] = self.find_by_peer(port, peer)? as usize;
        }
        self.lines.get(self.latest[1])
    }

    pub(super) fn find_by_client(&self, client: ClientKey, number: u16) -> Option<u32> {
        let is = |&index: &u32| self.lines[index as usize].is_from(client, number);
        self.by_client.find(client.hash(self.keys[0], number), is).copied()
    }

    pub(super) fn find_by_peer(&self, port: RelayPort, peer: Endpoint) -> Option<u32> {
        let is = |&index: &u32| self.lines[index as usize].is_to(port, peer);
        self.by_peer.find(peer.hash(self.keys[1], port.number, None), is).copied()
    }

    /// The channel behind this one on its permission's list, which may be none; `None` if there is no
    /// such channel.
    pub(super) fn next(&self, index: u32) -> Option<u32> {
        self.bindings.get(index as usize).map(|binding| binding.links.next)
    }

    /// Makes a channel that is on no list; both its number and its peer must be free.
    pub(super) fn insert(
        &mut self,
        key: AllocationKey,
        client: ClientKey,
        user: UserId,
        permission: u32,
        new: NewChannel,
    ) -> u32 {
        let binding = Binding { key, permission, timer: None, route: None, links: Links::NONE };
        let index = self.bindings.insert(binding);
        if self.lines.len() <= index {
            self.lines.resize(index + 1, Channel::FREE);
        }
        self.lines[index] = Channel {
            client: client.endpoint,
            peer: new.peer,
            stream: client.stream.map_or(0, |StreamId(id)| id),
            user,
            number: new.number,
            port: new.port.number,
            is_stream: client.stream.is_some(),
            is_permitted: true,
            only_if_lent: new.only_if_lent,
        };
        let (lines, [by_client, by_peer]) = (&self.lines, self.keys);
        let client_hash = |line: &Channel| line.client_key().hash(by_client, line.number);
        let peer_hash = |line: &Channel| line.peer.hash(by_peer, line.port, None);
        let (line, index) = (&lines[index], index as u32);
        self.by_client.insert_unique(client_hash(line), index, |&other| client_hash(&lines[other as usize]));
        self.by_peer.insert_unique(peer_hash(line), index, |&other| peer_hash(&lines[other as usize]));
        index
    }

    /// Says whether the peer's host may send to the client.
    pub(super) fn permit(&mut self, index: u32, is_permitted: bool) {
        if let Some(line) = self.lines.get_mut(index as usize) {
            line.is_permitted = is_permitted;
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(line) = self.lines.get_mut(index as usize) else { return };
        let line = std::mem::replace(line, Channel::FREE);
        let client_hash = line.client_key().hash(self.keys[0], line.number);
        let peer_hash = line.peer.hash(self.keys[1], line.port, None);
        if let Ok(entry) = self.by_client.find_entry(client_hash, |other| *other == index) {
            entry.remove();
        }
        if let Ok(entry) = self.by_peer.find_entry(peer_hash, |other| *other == index) {
            entry.remove();
        }
        self.bindings.try_remove(index as usize);
    }
}
