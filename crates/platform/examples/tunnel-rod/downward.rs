//! From the socket to the TUN device: open, and hand neighbouring pieces of a TCP stream over as one super-packet.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::uio::writev;

use super::aead::Aead;
use super::checksum::{fold, pseudo_header, set_ipv4};
use super::socket::{Message, Receiver, wait};
use super::tun::OFFLOAD_HEADER;
use super::{DATA, HEADER, TAG};

/// Length of an IPv4 header without options; others are not joined.
const IPV4: usize = 20;

/// Most pieces of one super-packet, and most bytes.
const MOST: usize = 64;
const LONGEST: usize = 65_500;

/// TCP's PSH flag, which ends a super-packet, and ACK.
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

pub(super) fn run(tun: &OwnedFd, socket: &UdpSocket, aead: &Aead) -> io::Result<()> {
    let mut receiver = Receiver::new();
    let mut messages = Vec::new();
    let mut joiner = Joiner { tun, run: None };
    loop {
        receiver.receive(socket, &mut messages)?;
        if messages.is_empty() {
            wait(socket, PollFlags::POLLIN)?;
        }
        for message in &messages {
            open(message, &mut receiver.memory, aead, &mut joiner)?;
        }
        // The memory is used again: everything must be out.
        joiner.flush(&mut receiver.memory)?;
    }
}

/// Opens every datagram of a message and hands over the packets.
fn open(message: &Message, memory: &mut [u8], aead: &Aead, joiner: &mut Joiner<'_>) -> io::Result<()> {
    let (mut start, end) = (message.start, message.start + message.length);
    while start < end {
        let datagram = start..end.min(start + message.segment);
        start = datagram.end;
        let bytes = &mut memory[datagram.clone()];
        if bytes.len() <= HEADER + TAG + IPV4 || bytes[..4] != DATA {
            continue;
        }
        let (header, body) = bytes.split_at_mut(HEADER);
        let counter = header.last_chunk().map_or(0, |counter| u64::from_le_bytes(*counter));
        if aead.open(counter, body) {
            joiner.push(memory, datagram.start + HEADER..datagram.end - TAG)?;
        }
    }
    Ok(())
}

/// Pieces of one TCP stream that follow each other, described where they lie.
struct Run {
    /// The first packet.
    first: Range<usize>,
    /// Payloads of the others.
    rest: Vec<Range<usize>>,
    /// Bytes of IPv4 and TCP headers.
    header: usize,
    /// Payload of the first packet.
    segment: usize,
    /// Sequence number that comes next.
    next: u32,
    /// Bytes of the super-packet.
    total: usize,
    is_closed: bool,
}

/// What matters of a TCP packet with payload and no flag but ACK and PSH.
struct Piece {
    header: usize,
    payload: usize,
    sequence: u32,
    is_pushed: bool,
}

impl Piece {
    fn parse(packet: &[u8]) -> Option<Self> {
        let is_plain = packet[0] == 0x45 && packet[9] == 6 && packet[6] & 0x3f == 0 && packet[7] == 0;
        if !is_plain || packet.len() <= 2 * IPV4 || packet[33] & !(ACK | PSH) != 0 {
            return None;
        }
        let header = IPV4 + usize::from(packet[32] >> 4) * 4;
        let payload = packet.len().checked_sub(header).filter(|payload| *payload > 0)?;
        let sequence = u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]);
        Some(Self { header, payload, sequence, is_pushed: packet[33] & PSH != 0 })
    }
}

struct Joiner<'a> {
    tun: &'a OwnedFd,
    run: Option<Run>,
}

impl Joiner<'_> {
    fn push(&mut self, memory: &mut [u8], packet: Range<usize>) -> io::Result<()> {
        let Some(piece) = Piece::parse(&memory[packet.clone()]) else {
            self.flush(memory)?;
            return self.write(&[IoSlice::new(&[0; OFFLOAD_HEADER]), IoSlice::new(&memory[packet])]);
        };
        if let Some(run) = self.run.as_mut().filter(|run| run.continues_with(&piece, memory, &packet)) {
            run.append(&piece, memory, packet);
            return Ok(());
        }
        self.flush(memory)?;
        self.run = Some(Run {
            header: piece.header,
            segment: piece.payload,
            next: piece.sequence.wrapping_add(piece.payload as u32),
            total: packet.len(),
            is_closed: piece.is_pushed,
            rest: Vec::with_capacity(MOST),
            first: packet,
        });
        Ok(())
    }

    fn flush(&mut self, memory: &mut [u8]) -> io::Result<()> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let offload = run.describe(&mut memory[run.first.clone()]);
        let mut slices = Vec::with_capacity(MOST + 2);
        slices.push(IoSlice::new(&offload));
        slices.push(IoSlice::new(&memory[run.first]));
        slices.extend(run.rest.iter().map(|payload| IoSlice::new(&memory[payload.clone()])));
        self.write(&slices)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        match writev(self.tun, slices) {
            // A device that is down, a full queue or what is no packet: a tunnel loses what it cannot deliver.
            Ok(_) | Err(Errno::EIO | Errno::EAGAIN | Errno::EINVAL | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Run {
    /// Same stream, same acknowledgement and options, next in sequence, and no longer than the first.
    fn continues_with(&self, piece: &Piece, memory: &[u8], packet: &Range<usize>) -> bool {
        let has_room = self.total + piece.payload < LONGEST && self.rest.len() + 1 < MOST;
        let follows = piece.sequence == self.next && piece.payload <= self.segment;
        if self.is_closed || !has_room || !follows || piece.header != self.header {
            return false;
        }
        let (first, other) = (&memory[self.first.clone()], &memory[packet.clone()]);
        let same = |range: Range<usize>| first[range.clone()] == other[range];
        same(12..24) && same(28..32) && same(34..36) && same(40..self.header)
    }

    fn append(&mut self, piece: &Piece, memory: &mut [u8], packet: Range<usize>) {
        self.total += piece.payload;
        self.next = self.next.wrapping_add(piece.payload as u32);
        if piece.is_pushed {
            memory[self.first.start + 33] |= PSH;
        }
        self.is_closed = piece.is_pushed || piece.payload < self.segment;
        self.rest.push(packet.start + self.header..packet.end);
    }

    /// Makes the first packet's header true for all of it, and says how to cut it.
    fn describe(&self, first: &mut [u8]) -> [u8; OFFLOAD_HEADER] {
        let mut offload = [0; OFFLOAD_HEADER];
        if self.rest.is_empty() {
            return offload;
        }
        first[2..4].copy_from_slice(&(self.total as u16).to_be_bytes());
        set_ipv4(first, IPV4);
        let partial = fold(pseudo_header(first, 6, self.total - IPV4));
        first[36..38].copy_from_slice(&partial.to_ne_bytes());
        // NEEDS_CSUM: the payload is authentic, nobody has to sum it again.
        offload[..2].copy_from_slice(&[1, 1]);
        let numbers = [self.header, self.segment, IPV4, 16];
        for (field, number) in offload[2..].as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
            *field = (number as u16).to_ne_bytes();
        }
        offload
    }
}
