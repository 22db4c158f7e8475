//! A look at one interface: datagrams that come in, kept with their frames so that they can be sent again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::socket::FrameSocket;
use crate::world::Host;

/// Largest frame: the largest IP packet in Ethernet.
const LARGEST_FRAME: usize = 65_535 + 14;

/// What the kernel keeps for us between two looks is bounded; so is what one look takes.
const MOST_RECORDS: usize = 100_000;

const UDP: u8 = 17;

/// A datagram seen on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The whole Ethernet frame.
    pub frame: Vec<u8>,
    /// Who sent it, as seen here.
    pub source: SocketAddr,
    /// Where it went, as seen here.
    pub destination: SocketAddr,
    /// What it held.
    pub payload: Vec<u8>,
}

/// An interface that is watched from now on. Frames that its own machine sends are not seen.
#[derive(Debug)]
pub struct Tap {
    socket: FrameSocket,
}

impl Tap {
    /// Watches an interface of a host.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        Ok(Self { socket: host.enter(|| FrameSocket::open(interface))?? })
    }

    /// The datagrams that came in since the last call; fragments and everything that is not UDP are left out.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn take(&self) -> Result<Vec<Record>> {
        let mut buffer = vec![0; LARGEST_FRAME];
        let mut records = Vec::new();
        while records.len() < MOST_RECORDS {
            match self.socket.receive(&mut buffer) {
                Ok(Some(length)) => records.extend(Record::read(&buffer[..length])),
                Ok(None) => break,
                Err(error) => bail!("reading frames: {error}"),
            }
        }
        Ok(records)
    }

    /// Sends a frame out of the interface exactly as it is.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        self.socket.send(frame)
    }
}

impl Record {
    /// The datagram in a frame, if it holds a whole one.
    fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (source, destination, udp) = match frame.get(12..14)? {
            [0x08, 0x00] => v4(packet)?,
            [0x86, 0xdd] => v6(packet)?,
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
        let payload = udp.get(8..port(4)?.into())?.to_vec();
        let (source, destination) =
            (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
        Some(Self { frame: frame.to_vec(), source, destination, payload })
    }
}

/// Addresses and the UDP part of a packet that is not a fragment.
fn v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0;
    if *packet.get(9)? != UDP || is_fragment {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    Some((address(12)?, address(16)?, packet.get(header..)?))
}

fn v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    if *packet.get(6)? != UDP {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    Some((address(8)?, address(24)?, packet.get(40..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 and UDP from 192.0.2.1:7 to 192.0.2.2:9 with the payload `hi`.
    const FRAME: [u8; 44] = [
        0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1,
        192, 0, 2, 2, 0, 7, 0, 9, 0, 10, 0, 0, b'h', b'i',
    ];

    #[test]
    fn a_datagram_is_read_and_a_torn_one_is_not() {
        let record = Record::read(&FRAME).unwrap();
        assert_eq!(record.source, "192.0.2.1:7".parse().unwrap());
        assert_eq!(record.destination, "192.0.2.2:9".parse().unwrap());
        assert_eq!(record.payload, b"hi");
        for length in 0..FRAME.len() {
            assert_eq!(Record::read(&FRAME[..length]), None, "{length}");
        }
    }

    #[test]
    fn fragments_and_other_protocols_are_left_out() {
        let mut fragment = FRAME;
        fragment[20] = 0x20;
        assert_eq!(Record::read(&fragment), None);
        let mut tcp = FRAME;
        tcp[23] = 6;
        assert_eq!(Record::read(&tcp), None);
    }
}
