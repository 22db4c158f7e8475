//! The data path: no allocation of memory, one lookup per datagram that comes by a channel.

use super::channels::BATCH;
use super::endpoint::Endpoint;
use super::peer_policy::Verdict;
use super::users::Direction;
use super::{Client, DropReason, Forward, RelayPort, Server, Socket};
use crate::Family;
use crate::channel_data;
use crate::stun::{AttributeKind, HEADER, MAGIC_COOKIE, Message, TransactionId};
use rand::RngCore as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

/// Room that [`Server::handle_peer`] needs in front of the payload: the header of a Data indication
/// with an IPv6 peer address.
pub const HEADROOM: usize = HEADER + 24 + 4;
/// Room that [`Server::handle_peer`] needs behind the payload: padding.
pub const TAILROOM: usize = 3;

/// Type of a Data indication.
const DATA_INDICATION: u16 = 0x0017;
/// Longest payload: wrapped up, it must not overflow the length field of a STUN message.
const LONGEST_PAYLOAD: usize = u16::MAX as usize - HEADROOM - TAILROOM;

impl Server {
    /// Data on a channel, from client to peer (RFC 8656, section 12.6). It refreshes neither the
    /// channel nor the permission.
    pub(super) fn forward_channel_data(
        &mut self,
        now: Instant,
        client: Client,
        datagram: &[u8],
    ) -> Result<Forward, DropReason> {
        // Too short for the length it claims: discarded.
        let (number, range) = channel_data::split(datagram).ok_or(DropReason::Garbage)?;
        // Not bound, which includes every reserved number: discarded.
        let channel = self.tables.channels.for_client(client.into(), number);
        let channel = channel.ok_or(DropReason::UnknownChannel)?;
        if channel.only_if_lent && !self.ports.is_lent(channel.peer_port()) {
            return Err(DropReason::Forbidden);
        }
        if !self.tables.users.take(now, channel.user, Direction::ToPeer, range.len()) {
            return Err(DropReason::OverQuota);
        }
        count(&mut self.counters.to_peers, range.len());
        // Without data too, there is a datagram to send.
        Ok(Forward { source: Socket::Relay(channel.port()), destination: channel.peer.into(), range })
    }

    /// Data in a Send indication (RFC 8656, section 11.2). It never refreshes the permission.
    pub(super) fn forward_send(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
    ) -> Result<Forward, DropReason> {
        let peer = message.xor_address(AttributeKind::XOR_PEER_ADDRESS);
        let data = message.find(AttributeKind::DATA);
        let (Some(peer), Some(data)) = (peer, data) else {
            return Err(DropReason::Unexpected);
        };
        let key = self.tables.allocations.find(client.into()).ok_or(DropReason::NoPermission)?;
        if !self.tables.permissions.allows(key, peer.ip().into()) {
            return Err(DropReason::NoPermission);
        }
        if !self.may_send_to(peer) {
            return Err(DropReason::Forbidden);
        }
        let allocation = self.tables.allocations.get(key).ok_or(DropReason::NoPermission)?;
        let port = allocation.port(Family::of(peer.ip())).ok_or(DropReason::NoPermission)?;
        if !self.tables.users.take(now, allocation.user, Direction::ToPeer, data.len()) {
            return Err(DropReason::OverQuota);
        }
        count(&mut self.counters.to_peers, data.len());
        let start = data.as_ptr() as usize - message.bytes().as_ptr() as usize;
        Ok(Forward { source: Socket::Relay(port), destination: peer, range: start..start + data.len() })
    }

    fn may_send_to(&self, peer: SocketAddr) -> bool {
        match self.peer_policy.judge(peer) {
            Verdict::Allowed => true,
            Verdict::OnlyIfLent(port) => self.ports.is_lent(port),
            Verdict::Denied => false,
        }
    }

    /// Says which datagrams [`handle_client`](Self::handle_client) will get next, in order, 64 at most: what
    /// they need is fetched from memory for all of them at a time. That is worth while for datagrams of
    /// different clients that came together; of a train, the first is enough. Nothing else changes.
    pub fn expect_from_clients<'a>(&mut self, datagrams: impl Iterator<Item = (Client, &'a [u8])>) {
        let (mut hashes, mut length) = ([0; BATCH], 0);
        for (client, datagram) in datagrams.take(BATCH) {
            if let Some((number, _)) = channel_data::split(datagram) {
                hashes[length] = self.tables.channels.client_hash(client.into(), number);
                length += 1;
            }
        }
        self.tables.expect(Direction::ToPeer, &hashes[..length]);
    }

    /// Says which datagrams [`handle_peer`](Self::handle_peer) will get next, as
    /// [`expect_from_clients`](Self::expect_from_clients) does.
    pub fn expect_from_peers(&mut self, datagrams: impl Iterator<Item = (RelayPort, SocketAddr)>) {
        let (mut hashes, mut length) = ([0; BATCH], 0);
        for (port, peer) in datagrams.take(BATCH) {
            hashes[length] = self.tables.channels.peer_hash(port, Endpoint::of_peer(peer));
            length += 1;
        }
        self.tables.expect(Direction::ToClient, &hashes[..length]);
    }

    /// Wraps a datagram that a relayed port received from `peer`, in place: as ChannelData if the
    /// peer has a channel, else as a Data indication.
    ///
    /// `payload` is where the datagram lies in `buffer`, with [`HEADROOM`] bytes in front of it and
    /// [`TAILROOM`] behind. Returns what to send to the client, `None` if it may not have it; for a
    /// connection that is a whole message, padded as it must be.
    pub fn handle_peer(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Option<Forward> {
        let outcome = self.forward_peer(now, port, peer, buffer, payload);
        self.count_drop(outcome)
    }

    fn forward_peer(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Forward, DropReason> {
        if payload.start < HEADROOM || payload.end + TAILROOM > buffer.len() {
            return Err(DropReason::NoHeadroom);
        }
        let length = payload.len();
        if length > LONGEST_PAYLOAD {
            return Err(DropReason::TooLong);
        }
        let Some(channel) = self.tables.channels.for_peer(port, Endpoint::of_peer(peer)) else {
            return self.forward_indication(now, port, peer, buffer, payload);
        };
        // RFC 8656, section 9: without permission, silently discarded.
        if !channel.is_permitted {
            return Err(DropReason::NoPermission);
        }
        if !self.tables.users.take(now, channel.user, Direction::ToClient, length) {
            return Err(DropReason::OverQuota);
        }
        // RFC 8656, section 12.5: where a channel is bound, it must be used.
        let start = payload.start - channel_data::HEADER;
        let header = channel_data::header(channel.number, length as u16);
        buffer[start..payload.start].copy_from_slice(&header);
        let mut end = payload.end;
        if channel.is_stream() {
            // The same section: over TCP and TLS, where the next message follows, it must be padded.
            end = payload.start + length.next_multiple_of(4);
            buffer[payload.end..end].fill(0);
        }
        let client = channel.client();
        count(&mut self.counters.to_clients, length);
        Ok(Forward { source: client.socket(), destination: client.address, range: start..end })
    }

    /// Data of a peer that has a permission but no channel (RFC 8656, section 11.3).
    fn forward_indication(
        &mut self,
        now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Forward, DropReason> {
        let key = self.ports.holder(port).ok_or(DropReason::UnknownPort)?;
        if !self.tables.permissions.allows(key, peer.ip().into()) {
            return Err(DropReason::NoPermission);
        }
        let allocation = self.tables.allocations.get(key).ok_or(DropReason::UnknownPort)?;
        let client = Client::from(allocation.client);
        if !self.tables.users.take(now, allocation.user, Direction::ToClient, payload.len()) {
            return Err(DropReason::OverQuota);
        }
        count(&mut self.counters.to_clients, payload.len());
        let mut id = [0; 12];
        self.random.fill_bytes(&mut id);
        let range = write_data_indication(TransactionId(id), peer, buffer, payload);
        Ok(Forward { source: client.socket(), destination: client.address, range })
    }
}

fn count((packets, bytes): &mut (u64, u64), length: usize) {
    *packets += 1;
    *bytes += length as u64;
}
/// Writes a Data indication around a payload and returns where it lies.
fn write_data_indication(
    id: TransactionId,
    peer: SocketAddr,
    buffer: &mut [u8],
    payload: Range<usize>,
) -> Range<usize> {
    let address_length = if peer.is_ipv4() { 8 } else { 20 };
    let headers = HEADER + 4 + address_length + 4;
    let start = payload.start - headers;
    let end = payload.start + payload.len().next_multiple_of(4);
    buffer[payload.end..end].fill(0);
    let body = (end - start - HEADER) as u16;
    let header = &mut buffer[start..payload.start];
    header[..2].copy_from_slice(&DATA_INDICATION.to_be_bytes());
    header[2..4].copy_from_slice(&body.to_be_bytes());
    header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    header[8..20].copy_from_slice(&id.0);
    let (address, data) = header[HEADER..].split_at_mut(4 + address_length);
    address[..2].copy_from_slice(&AttributeKind::XOR_PEER_ADDRESS.0.to_be_bytes());
    address[2..4].copy_from_slice(&(address_length as u16).to_be_bytes());
    write_xor_address(id, peer, &mut address[4..]);
    data[..2].copy_from_slice(&AttributeKind::DATA.0.to_be_bytes());
    data[2..].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    start..end
}

/// The masked address in place; [`crate::stun::encode_xor_address`] writes to a vector.
fn write_xor_address(id: TransactionId, peer: SocketAddr, out: &mut [u8]) {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let port = peer.port().to_be_bytes();
    out[0] = 0;
    out[1] = Family::of(peer.ip()).code();
    out[2] = port[0] ^ cookie[0];
    out[3] = port[1] ^ cookie[1];
    let mask = cookie.into_iter().chain(id.0);
    let v4;
    let v6;
    let octets: &[u8] = match peer.ip() {
        IpAddr::V4(ip) => {
            v4 = ip.octets();
            &v4
        }
        IpAddr::V6(ip) => {
            v6 = ip.octets();
            &v6
        }
    };
    for ((out, octet), mask) in out[4..].iter_mut().zip(octets).zip(mask) {
        *out = octet ^ mask;
    }
}
