//! What lies in the program's tables, byte by byte, as `program/tables.h` has it.
//!
//! Numbers are in the machine's order unless they stand for something in a frame, which is in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a route's name in the table.
pub(crate) const KEY: usize = 24;
/// Bytes of what a route says.
pub(crate) const VALUE: usize = 48;
/// Bytes of the program's settings.
pub(crate) const SETTINGS: usize = 40;

/// A route's name in the table.
pub(crate) type Key = [u8; KEY];
/// What a route says.
pub(crate) type Value = [u8; VALUE];

const FAMILY_IPV4: u16 = 2;
const FAMILY_IPV6: u16 = 10;
const WITHIN_RELAY: u8 = 1;

/// From where a packet of a route comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Origin {
    Client = 0,
    Peer = 1,
}

/// What becomes of the packets of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direction {
    pub(crate) destination: SocketAddr,
    pub(crate) source_port: u16,
    /// Number of the channel to wrap data in; none towards peers.
    pub(crate) channel: Option<u16>,
    pub(crate) is_within_relay: bool,
    /// Place of the relayed port among the generations, and its generation.
    pub(crate) port: (u32, u32),
    pub(crate) next_hop: u16,
    /// Parts of the old frame's checksum: addresses and protocol, ports and channel.
    pub(crate) old_sums: (u16, u16),
    /// All of them of the new frame.
    pub(crate) new_sum: u16,
    pub(crate) name: u64,
}

/// The program's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) local_v4: Option<Ipv4Addr>,
    pub(crate) local_v6: Option<Ipv6Addr>,
    pub(crate) listener_port: u16,
    pub(crate) first_port: u16,
    pub(crate) last_port: u16,
    pub(crate) ticks_per_second: u16,
}

/// The bytes of [`Settings`].
pub(crate) fn settings(settings: &Settings) -> [u8; SETTINGS] {
    let mut bytes = [0; SETTINGS];
    let mut writer = Writer(&mut bytes);
    writer.put(&settings.local_v4.map_or([0; 16], |ip| mapped(ip.into())));
    writer.put(&settings.local_v6.map_or([0; 16], |ip| mapped(ip.into())));
    writer.put(&settings.listener_port.to_be_bytes());
    writer.put(&settings.first_port.to_ne_bytes());
    writer.put(&settings.last_port.to_ne_bytes());
    writer.put(&settings.ticks_per_second.to_ne_bytes());
    bytes
}

/// The name of packets that `remote` sends. `selector` is the channel, or the relayed port.
pub(crate) fn key(remote: SocketAddr, selector: u16, origin: Origin) -> Key {
    let mut bytes = [0; KEY];
    let mut writer = Writer(&mut bytes);
    writer.put(&mapped(remote.ip()));
    writer.put(&remote.port().to_be_bytes());
    writer.put(&selector.to_be_bytes());
    writer.put(&(origin as u16).to_ne_bytes());
    writer.put(&family(remote.ip()).to_ne_bytes());
    bytes
}

/// The bytes of a [`Direction`].
pub(crate) fn value(direction: &Direction) -> Value {
    let mut bytes = [0; VALUE];
    let mut writer = Writer(&mut bytes);
    writer.put(&mapped(direction.destination.ip()));
    writer.put(&direction.destination.port().to_be_bytes());
    writer.put(&direction.source_port.to_be_bytes());
    writer.put(&direction.channel.unwrap_or(0).to_be_bytes());
    let flags = if direction.is_within_relay { WITHIN_RELAY } else { 0 };
    writer.put(&[family(direction.destination.ip()) as u8, flags]);
    writer.put(&direction.port.0.to_ne_bytes());
    writer.put(&direction.port.1.to_ne_bytes());
    writer.put(&direction.next_hop.to_ne_bytes());
    writer.put(&direction.old_sums.0.to_be_bytes());
    writer.put(&direction.old_sums.1.to_be_bytes());
    writer.put(&direction.new_sum.to_be_bytes());
    writer.put(&direction.name.to_ne_bytes());
    bytes
}

/// The name that a route in the table bears.
pub(crate) fn name(value: &Value) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&value[VALUE - 8..]);
    u64::from_ne_bytes(bytes)
}

/// An address in its canonical 16 bytes.
pub(crate) fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => Ipv6Addr::octets(&ip),
    }
}

fn family(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }
}

/// Writes from the front; the layouts are constant, so a piece too many is a defect that the tests show.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, piece: &[u8]) {
        let (front, rest) = std::mem::take(&mut self.0).split_at_mut(piece.len());
        front.copy_from_slice(piece);
        self.0 = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_program_reads_them() {
        let bytes = key("192.0.2.7:258".parse().expect("address"), 0x4003, Origin::Peer);
        assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7]);
        assert_eq!(bytes[16..20], [1, 2, 0x40, 3]);
        assert_eq!(bytes[20..], [1_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
        let bytes = value(&Direction {
            destination: "[2001:db8::9]:772".parse().expect("address"),
            source_port: 0x0506,
            channel: Some(0x4102),
            is_within_relay: true,
            port: (7, 8),
            next_hop: 9,
            old_sums: (0x0a0b, 0x0c0d),
            new_sum: 0x0e0f,
            name: 0x0102_0304_0506_0708,
        });
        assert_eq!(bytes[..4], [0x20, 1, 0x0d, 0xb8]);
        assert_eq!(bytes[15..24], [9, 3, 4, 5, 6, 0x41, 2, 10, 1]);
        assert_eq!(bytes[24..28], 7_u32.to_ne_bytes());
        assert_eq!(bytes[28..32], 8_u32.to_ne_bytes());
        assert_eq!(bytes[32..40], [&9_u16.to_ne_bytes()[..], &[10, 11, 12, 13, 14, 15]].concat());
        assert_eq!(name(&bytes), 0x0102_0304_0506_0708);
        let bytes = settings(&Settings {
            local_v4: Some([192, 0, 2, 7].into()),
            local_v6: None,
            listener_port: 0x0102,
            first_port: 3,
            last_port: 4,
            ticks_per_second: 5,
        });
        assert_eq!(bytes[10..18], [255, 255, 192, 0, 2, 7, 0, 0]);
        assert_eq!(bytes[32..34], [1, 2]);
        assert_eq!(bytes[34..], [3_u16, 4, 5].map(u16::to_ne_bytes).concat());
    }

    #[test]
    fn the_families_differ_even_where_the_addresses_do_not() {
        let v4 = key("192.0.2.7:5".parse().expect("address"), 1024, Origin::Peer);
        let v6 = key("[::ffff:192.0.2.7]:5".parse().expect("address"), 1024, Origin::Peer);
        assert_ne!(v4, v6);
    }
}
