//! From the TUN device to the socket: cut super-packets, seal, and send the pieces in one call.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::read;

use super::aead::Aead;
use super::checksum::{fold, pseudo_header, set_ipv4, sum};
use super::socket::{send, wait};
use super::tun::OFFLOAD_HEADER;
use super::{DATA, HEADER, TAG};

/// Most datagrams that the kernel cuts from one send.
const MOST: usize = 64;

/// Most bytes of one send.
const LONGEST: usize = 65_000;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

/// `VIRTIO_NET_HDR_GSO_TCPV4`; everything else that is cut is UDP.
const GSO_TCPV4: u8 = 1;

/// FIN and PSH: they belong to the last piece alone.
const LAST_ONLY: u8 = 0x09;

pub(super) fn run(tun: &OwnedFd, socket: &UdpSocket, aead: &Aead) -> io::Result<()> {
    let mut buffer = vec![0; OFFLOAD_HEADER + (1 << 16)];
    let mut batch = Batch::new(socket, aead);
    loop {
        match read(tun, &mut buffer) {
            Ok(length) if length > OFFLOAD_HEADER => {
                let (offload, packet) = buffer[..length].split_at_mut(OFFLOAD_HEADER);
                carry(&Offload::parse(offload), packet, &mut batch)?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                batch.flush()?;
                wait(tun, PollFlags::POLLIN)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The fields of `virtio_net_hdr`.
struct Offload {
    needs_checksum: bool,
    is_tcp: bool,
    /// Payload of each piece; 0 when the packet is not to be cut.
    segment: usize,
    /// Where TCP or UDP starts, and where its checksum is from there.
    start: usize,
    offset: usize,
}

impl Offload {
    fn parse(header: &[u8]) -> Self {
        let number = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        let kind = header[1] & 0x7f;
        Self {
            needs_checksum: header[0] & NEEDS_CHECKSUM != 0,
            is_tcp: kind == GSO_TCPV4,
            segment: if kind == 0 { 0 } else { number(4) },
            start: number(6),
            offset: number(8),
        }
    }
}

fn carry(offload: &Offload, packet: &mut [u8], batch: &mut Batch<'_>) -> io::Result<()> {
    if packet[0] >> 4 != 4 {
        return Ok(());
    }
    if offload.segment > 0 {
        return cut(offload, packet, batch);
    }
    if offload.needs_checksum {
        // The field already holds the sum of the pseudo-header.
        let checksum = !fold(sum(0, &packet[offload.start..]));
        let field = offload.start + offload.offset;
        packet[field..field + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
    batch.push(packet.len(), |place| place.copy_from_slice(packet))
}

fn cut(offload: &Offload, packet: &[u8], batch: &mut Batch<'_>) -> io::Result<()> {
    let start = offload.start;
    let header = if offload.is_tcp { start + usize::from(packet[start + 12] >> 4) * 4 } else { start + 8 };
    let (headers, payload) = packet.split_at(header);
    let count = payload.len().div_ceil(offload.segment);
    for (index, piece) in payload.chunks(offload.segment).enumerate() {
        batch.push(header + piece.len(), |place| {
            place[..header].copy_from_slice(headers);
            place[header..].copy_from_slice(piece);
            fit_headers(place, offload, index, index + 1 == count);
        })?;
    }
    Ok(())
}

/// Makes copied headers true for piece number `index`.
fn fit_headers(piece: &mut [u8], offload: &Offload, index: usize, is_last: bool) {
    let (length, start) = (piece.len(), offload.start);
    piece[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let identification = u16::from_be_bytes([piece[4], piece[5]]).wrapping_add(index as u16);
    piece[4..6].copy_from_slice(&identification.to_be_bytes());
    set_ipv4(piece, start);
    if offload.is_tcp {
        let field = start + 4..start + 8;
        let bytes = [piece[start + 4], piece[start + 5], piece[start + 6], piece[start + 7]];
        let sequence = u32::from_be_bytes(bytes).wrapping_add((index * offload.segment) as u32);
        piece[field].copy_from_slice(&sequence.to_be_bytes());
        if !is_last {
            piece[start + 13] &= !LAST_ONLY;
        }
    } else {
        piece[start + 4..start + 6].copy_from_slice(&((length - start) as u16).to_be_bytes());
    }
    let field = start + offload.offset;
    piece[field..field + 2].fill(0);
    let checksum = !fold(pseudo_header(piece, piece[9], length - start) + sum(0, &piece[start..]));
    piece[field..field + 2].copy_from_slice(&checksum.to_ne_bytes());
}

/// Datagrams of equal length that leave in one call; a shorter one closes the batch.
struct Batch<'a> {
    socket: &'a UdpSocket,
    aead: &'a Aead,
    buffer: Vec<u8>,
    length: usize,
    segment: usize,
    count: usize,
    is_closed: bool,
    counter: u64,
}

impl<'a> Batch<'a> {
    fn new(socket: &'a UdpSocket, aead: &'a Aead) -> Self {
        let buffer = vec![0; LONGEST];
        Self { socket, aead, buffer, length: 0, segment: 0, count: 0, is_closed: false, counter: 0 }
    }

    /// Adds a packet of this length, which `fill` writes, and seals it.
    fn push(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let total = HEADER + length + TAG;
        if total > LONGEST {
            return Ok(());
        }
        let is_full = self.count == MOST || self.length + total > LONGEST;
        if self.count > 0 && (self.is_closed || total > self.segment || is_full) {
            self.flush()?;
        }
        if self.count == 0 {
            self.segment = total;
        }
        self.is_closed = total < self.segment;
        let place = &mut self.buffer[self.length..self.length + total];
        let (header, body) = place.split_at_mut(HEADER);
        header[..4].copy_from_slice(&DATA);
        header[4..8].copy_from_slice(&7_u32.to_le_bytes());
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
        fill(&mut body[..length]);
        self.aead.seal(self.counter, body);
        self.counter += 1;
        self.length += total;
        self.count += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.count > 0 {
            send(self.socket, &self.buffer[..self.length], self.segment as u16)?;
        }
        (self.length, self.count, self.is_closed) = (0, 0, false);
        Ok(())
    }
}
