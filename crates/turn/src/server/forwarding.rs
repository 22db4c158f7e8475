//! The data path: no allocation of memory, one or two lookups per datagram.

use super::peer_policy::Verdict;
use super::{Client, DropReason, Forward, RelayPort, Server, Socket, Transport};
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

impl Server {
    /// Data on a channel, from client to peer.
    pub(super) fn forward_channel_data(&mut self, client: Client, datagram: &[u8]) -> Option<Forward> {
        let Some((number, range)) = channel_data::split(datagram) else {
            return self.drop(DropReason::Garbage);
        };
        let Some(route) = self.allocations.peer_route(client, number) else {
            return self.drop(DropReason::UnknownChannel);
        };
        let (port, destination) = (route.port, route.peer);
        if route.only_if_lent.is_some_and(|peer| self.ports.holder(peer).is_none()) {
            return self.drop(DropReason::Forbidden);
        }
        count(&mut self.counters.to_peers, range.len());
        Some(Forward { source: Socket::Relay(port), destination, range })
    }

    /// Data in a Send indication (RFC 8656, section 11.2).
    pub(super) fn forward_send(&mut self, client: Client, message: &Message<'_>) -> Option<Forward> {
        let peer = message.xor_address(AttributeKind::XOR_PEER_ADDRESS);
        let data = message.find(AttributeKind::DATA);
        let wants_df = message.find(AttributeKind::DONT_FRAGMENT).is_some();
        let (Some(peer), Some(data), false) = (peer, data, wants_df) else {
            return self.drop(DropReason::Unexpected);
        };
        let Some(key) = self.allocations.key_of(client) else {
            return self.drop(DropReason::NoPermission);
        };
        if !self.allocations.has_permission(key, peer.ip()) {
            return self.drop(DropReason::NoPermission);
        }
        let allowed = match self.peer_policy.judge(peer) {
            Verdict::Allowed => true,
            Verdict::OnlyIfLent(port) => self.ports.holder(port).is_some(),
            Verdict::Denied => false,
        };
        let port = self.allocations.get(key).and_then(|allocation| allocation.port(Family::of(peer.ip())));
        let (true, Some(port)) = (allowed, port) else {
            return self.drop(DropReason::Forbidden);
        };
        count(&mut self.counters.to_peers, data.len());
        let start = data.as_ptr() as usize - message.bytes().as_ptr() as usize;
        Some(Forward { source: Socket::Relay(port), destination: peer, range: start..start + data.len() })
    }

    /// Wraps a datagram that a relayed port received from `peer`, in place: as ChannelData if the
    /// peer has a channel, else as a Data indication.
    ///
    /// `payload` is where the datagram lies in `buffer`, with [`HEADROOM`] bytes in front of it and
    /// [`TAILROOM`] behind. Returns what to send to the client, `None` if it may not have it; for a
    /// connection that is a whole message, padded as it must be.
    pub fn handle_peer(
        &mut self,
        _now: Instant,
        port: RelayPort,
        peer: SocketAddr,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Option<Forward> {
        let Some(key) = self.ports.holder(port) else {
            return self.drop(DropReason::UnknownPort);
        };
        if !self.allocations.has_permission(key, peer.ip()) {
            return self.drop(DropReason::NoPermission);
        }
        if payload.start < HEADROOM || payload.end + TAILROOM > buffer.len() {
            return self.drop(DropReason::NoHeadroom);
        }
        let Some(client) = self.allocations.get(key).map(|allocation| allocation.client) else {
            return self.drop(DropReason::UnknownPort);
        };
        let length = payload.len();
        let range = match self.allocations.channel_of(port, peer) {
            Some(number) => {
                let start = payload.start - channel_data::HEADER;
                let header = channel_data::header(number, length as u16);
                buffer[start..payload.start].copy_from_slice(&header);
                // RFC 8656, section 12.5: padded over TCP and TLS, where the next message follows.
                let padded = match client.transport {
                    Transport::Udp => payload.end,
                    Transport::Stream(_) => payload.start + length.next_multiple_of(4),
                };
                buffer[payload.end..padded].fill(0);
                start..padded
            }
            None => {
                let mut id = [0; 12];
                self.random.fill_bytes(&mut id);
                write_data_indication(TransactionId(id), peer, buffer, payload)
            }
        };
        count(&mut self.counters.to_clients, length);
        Some(Forward { source: client.socket(), destination: client.address, range })
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
