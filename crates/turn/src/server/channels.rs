//! Channels (RFC 8656, section 12), and with them the data path.
//!
//! What a datagram in either direction needs to know of its channel lies in one cache line. Two hash
//! tables of numbers lead to it: by client and channel number, and by relayed port and peer. They
//! hold no keys, since the line itself tells whether it is the right one. Nor is it looked for where
//! the last datagram already found it, since datagrams come in trains, or where it is expected. An
//! expectation that is wrong costs a lookup and nothing else.

use super::allocations::AllocationKey;
use super::endpoint::{ClientKey, Endpoint, HashKey};
use super::index::Index;
use super::links::{Linked, Links};
use super::users::{Direction, UserId};
use super::wheel::TimerId;
use super::{Client, RelayPort, StreamId};
use crate::Family;
use slab::Slab;
use std::hint::black_box;

/// So many datagrams can be expected.
pub(super) const BATCH: usize = 64;

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
    by_client: Index,
    by_peer: Index,
    keys: [HashKey; 2],
    /// From clients, and from peers.
    expected: [Expected; 2],
}

/// Where datagrams to come will probably find their channels.
#[derive(Debug)]
struct Expected {
    /// Where the last one did.
    latest: u32,
    indices: [u32; BATCH],
    next: usize,
    length: usize,
}

impl Expected {
    fn new() -> Self {
        Self { latest: 0, indices: [0; BATCH], next: 0, length: 0 }
    }

    fn clear(&mut self) {
        (self.next, self.length) = (0, 0);
    }

    fn push(&mut self, index: u32) {
        let is_new = self.indices[..self.length].last() != Some(&index);
        if is_new && self.length < BATCH {
            self.indices[self.length] = index;
            self.length += 1;
        }
    }

    /// The channel that the last datagram had, or the one that is expected now, if it `is` the right one.
    fn take(&mut self, lines: &[Channel], is: impl Fn(&Channel) -> bool) -> Option<u32> {
        let expected = self.indices[..self.length].get(self.next).copied();
        if lines.get(self.latest as usize).is_some_and(&is) {
            self.next += usize::from(expected == Some(self.latest));
            return Some(self.latest);
        }
        let expected = expected.filter(|index| lines.get(*index as usize).is_some_and(&is))?;
        self.next += 1;
        Some(expected)
    }
}

impl Channels {
    pub(super) fn new(keys: [HashKey; 2]) -> Self {
        Self {
            lines: Vec::new(),
            bindings: Slab::new(),
            by_client: Index::new(),
            by_peer: Index::new(),
            keys,
            expected: [Expected::new(), Expected::new()],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Channel> {
        self.lines.get(index as usize)
    }

    /// The channel that a client's ChannelData names.
    pub(super) fn for_client(&mut self, client: ClientKey, number: u16) -> Option<&Channel> {
        let is = |line: &Channel| line.is_from(client, number);
        let known = self.expected[0].take(&self.lines, is);
        let index = known.or_else(|| self.find_by_client(client, number))?;
        self.expected[0].latest = index;
        self.lines.get(index as usize)
    }

    /// The channel of a peer that sends to a relayed port.
    pub(super) fn for_peer(&mut self, port: RelayPort, peer: Endpoint) -> Option<&Channel> {
        let is = |line: &Channel| line.is_to(port, peer);
        let known = self.expected[1].take(&self.lines, is);
        let index = known.or_else(|| self.find_by_peer(port, peer))?;
        self.expected[1].latest = index;
        self.lines.get(index as usize)
    }

    pub(super) fn find_by_client(&self, client: ClientKey, number: u16) -> Option<u32> {
        let is = |index: u32| self.lines[index as usize].is_from(client, number);
        self.by_client.find(self.client_hash(client, number), is)
    }

    pub(super) fn find_by_peer(&self, port: RelayPort, peer: Endpoint) -> Option<u32> {
        let is = |index: u32| self.lines[index as usize].is_to(port, peer);
        self.by_peer.find(self.peer_hash(port, peer), is)
    }

    pub(super) fn client_hash(&self, client: ClientKey, number: u16) -> u64 {
        client.hash(self.keys[0], number)
    }

    pub(super) fn peer_hash(&self, port: RelayPort, peer: Endpoint) -> u64 {
        peer.hash(self.keys[1], port.number, None)
    }

    /// Finds the channels of datagrams to come, by the hashes of both tables, and says whose they are.
    /// One step is done for all of them before the next, so that the processor waits for memory once
    /// and not for each.
    pub(super) fn expect(&mut self, direction: Direction, hashes: &[u64]) -> impl Iterator<Item = UserId> {
        let (table, expected) = match direction {
            Direction::ToPeer => (&self.by_client, &mut self.expected[0]),
            Direction::ToClient => (&self.by_peer, &mut self.expected[1]),
        };
        black_box(hashes.iter().fold(0, |sum, hash| sum ^ table.touch(*hash)));
        expected.clear();
        hashes.iter().filter_map(|hash| table.guess(*hash)).for_each(|index| expected.push(index));
        let indices = expected.indices[..expected.length].iter();
        indices.filter_map(|index| self.lines.get(*index as usize)).map(|line| line.user)
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
        let index = index as u32;
        self.by_client.insert(self.client_hash(client, new.number), index);
        self.by_peer.insert(self.peer_hash(new.port, new.peer), index);
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
        self.by_client.remove(self.client_hash(line.client_key(), line.number), index);
        self.by_peer.remove(self.peer_hash(line.port(), line.peer), index);
        self.bindings.try_remove(index as usize);
    }
}
