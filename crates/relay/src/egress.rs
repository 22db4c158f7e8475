//! Datagrams on their way out, gathered per flow so that a train of them costs one system call.
//!
//! Tunnel traffic comes in trains of equal size. Within one batch of received datagrams, those that leave by the same socket to the same
//! destination are sent together (`UDP_SEGMENT`); the last one may be shorter. They are not copied: the kernel gathers them from the
//! buffers that they were received in. Nothing waits: after each batch everything goes out.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

use adit_platform::udp::train::{MAX_BYTES, MAX_DATAGRAMS, ReceiveBatch, Segmentation, Train};
use adit_turn::server::Socket;

use crate::sockets::Sockets;

/// How many of the newest runs are searched for the one that a datagram belongs to.
const SEARCHED: usize = 16;

/// No part.
const NONE: u32 = u32::MAX;

/// Where bytes lie.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a slot of the batch.
    Slot(u32),
    /// In bytes of our own.
    Aside,
}

/// A piece of a datagram.
#[derive(Clone, Copy, Debug)]
struct Part {
    place: Place,
    start: u32,
    end: u32,
    /// The next one of the same run.
    next: u32,
}

/// Datagrams of one flow.
#[derive(Debug)]
struct Run {
    source: Socket,
    destination: SocketAddr,
    segment: usize,
    datagrams: usize,
    bytes: usize,
    parts_per_datagram: usize,
    first: u32,
    last: u32,
    /// Set by a datagram shorter than the others: nothing may follow it.
    is_complete: bool,
}

/// How sending went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Datagrams handed to the kernel.
    pub(crate) datagrams: u64,
    /// Trains, which take a system call each.
    pub(crate) trains: u64,
    /// Datagrams lost because a send buffer was full.
    pub(crate) full: u64,
    /// Datagrams lost for any other reason.
    pub(crate) failed: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.trains += other.trains;
        self.full += other.full;
        self.failed += other.failed;
    }
}

/// The gathered datagrams. Its memory is bounded by what one batch can hold.
#[derive(Debug)]
pub(crate) struct Egress {
    segmentation: Segmentation,
    runs: Vec<Run>,
    parts: Vec<Part>,
    aside: Vec<u8>,
    sent: Sent,
}

impl Egress {
    pub(crate) fn new() -> Self {
        let (runs, parts, aside) = (Vec::new(), Vec::new(), Vec::new());
        Self { segmentation: Segmentation::detect(), runs, parts, aside, sent: Sent::default() }
    }

    /// Adds a datagram that lies in a slot of the batch, behind a header that is copied and may be empty.
    pub(crate) fn push(
        &mut self,
        (source, destination): (Socket, SocketAddr),
        header: &[u8],
        slot: usize,
        range: Range<usize>,
    ) {
        let length = header.len() + range.len();
        let parts_per_datagram = if header.is_empty() { 1 } else { 2 };
        let body = Part {
            place: Place::Slot(slot as u32),
            start: range.start as u32,
            end: range.end as u32,
            next: NONE,
        };
        let run = self.run(source, destination, length, parts_per_datagram);
        if !header.is_empty() {
            let header = self.set_aside(header);
            self.append(run, header);
        }
        self.append(run, body);
    }

    /// Adds a datagram that is copied.
    pub(crate) fn push_copy(&mut self, (source, destination): (Socket, SocketAddr), datagram: &[u8]) {
        let run = self.run(source, destination, datagram.len(), 1);
        let part = self.set_aside(datagram);
        self.append(run, part);
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, sockets: &Sockets, batch: &ReceiveBatch) {
        for run in &self.runs {
            // A flow of single datagrams should not pay for the room of a train.
            match run.datagrams * run.parts_per_datagram {
                0..=4 => self.sent.add(self.send::<4>(run, sockets, batch)),
                _ => self.sent.add(self.send::<{ 2 * MAX_DATAGRAMS }>(run, sockets, batch)),
            }
        }
        self.runs.clear();
        self.parts.clear();
        self.aside.clear();
    }

    /// How sending went since the start.
    pub(crate) fn sent(&self) -> Sent {
        self.sent
    }

    /// The run that takes a datagram of this length: the newest of its flow, else a new one. Older ones get nothing more, so a flow
    /// stays in order.
    fn run(
        &mut self,
        source: Socket,
        destination: SocketAddr,
        length: usize,
        parts_per_datagram: usize,
    ) -> usize {
        let recent = self.runs.iter_mut().enumerate().rev().take(SEARCHED);
        let mut same = recent.filter(|(_, run)| run.destination == destination && run.source == source);
        if let Some((index, run)) = same.next()
            && run.takes(length, parts_per_datagram)
        {
            run.datagrams += 1;
            run.bytes += length;
            run.is_complete = length < run.segment;
            return index;
        }
        self.runs.push(Run {
            source,
            destination,
            segment: length,
            datagrams: 1,
            bytes: length,
            parts_per_datagram,
            first: NONE,
            last: NONE,
            // An empty datagram has no size to repeat.
            is_complete: length == 0,
        });
        self.runs.len() - 1
    }

    fn set_aside(&mut self, bytes: &[u8]) -> Part {
        let start = self.aside.len() as u32;
        self.aside.extend_from_slice(bytes);
        Part { place: Place::Aside, start, end: self.aside.len() as u32, next: NONE }
    }

    fn append(&mut self, run: usize, part: Part) {
        let new = self.parts.len() as u32;
        self.parts.push(part);
        let Some(run) = self.runs.get_mut(run) else { return };
        match self.parts.get_mut(run.last as usize) {
            Some(last) => last.next = new,
            None => run.first = new,
        }
        run.last = new;
    }

    fn send<const ROOM: usize>(&self, run: &Run, sockets: &Sockets, batch: &ReceiveBatch) -> Sent {
        let mut slices = [IoSlice::new(&[]); ROOM];
        let mut next = run.first;
        let mut count = 0;
        while let (Some(part), Some(slice)) = (self.parts.get(next as usize), slices.get_mut(count)) {
            let bytes = match part.place {
                Place::Slot(slot) => batch.buffer(slot as usize),
                Place::Aside => &self.aside,
            };
            *slice = IoSlice::new(bytes.get(part.start as usize..part.end as usize).unwrap_or_default());
            (next, count) = (part.next, count + 1);
        }
        let train = Train {
            destination: run.destination,
            parts: &slices[..count],
            parts_per_datagram: run.parts_per_datagram,
            segment: run.segment,
        };
        let all = run.datagrams as u64;
        let Some(socket) = sockets.for_data(run.source) else {
            return Sent { failed: all, ..Sent::default() }; // the port was released in this very batch
        };
        let (sent, error) = socket.send(&self.segmentation, &train);
        let (sent, lost) = (sent as u64, all - sent as u64);
        let is_full = error.is_some_and(|error| {
            error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(nix::libc::ENOBUFS)
        });
        let (full, failed) = if is_full { (lost, 0) } else { (0, lost) };
        Sent { datagrams: sent, trains: 1, full, failed }
    }
}

impl Run {
    fn takes(&self, length: usize, parts_per_datagram: usize) -> bool {
        !self.is_complete
            && length > 0
            && length <= self.segment
            && self.datagrams < MAX_DATAGRAMS
            && self.bytes + length <= MAX_BYTES
            && self.parts_per_datagram == parts_per_datagram
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use adit_turn::Family;
    use adit_turn::server::RelayPort;
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;
    use crate::settings::Place;
    use crate::sockets::{LentPorts, Listeners};

    fn open() -> (Sockets, ReceiveBatch) {
        let port =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let port = port.to_string();
        let line =
            ["adit-relay", "--static-secret", "12345678", "--public-ipv4", "127.0.0.1", "--port", &port];
        let line = line.into_iter().chain(["--min-port", "1024", "--max-port", "1024"]);
        let place = Place::new(&Arguments::parse_from(line)).expect("sound");
        let listeners = Listeners::open(&place, 1, [1, 2, 3]).expect("opens").pop().expect("one shard");
        let lent = LentPorts::new(&place, &place.ports);
        (Sockets { listeners, lent }, ReceiveBatch::new(2, 48, 3))
    }

    fn receiver() -> (UdpSocket, SocketAddr) {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
        let address = receiver.local_addr().expect("address");
        (receiver, address)
    }

    const SOURCE: Socket = Socket::Listener(Family::V4);

    #[test]
    fn trains_leave_together_and_in_order() {
        let (sockets, batch) = open();
        let (receiver, destination) = receiver();
        let mut egress = Egress::new();
        let sizes = [1200, 1200, 1200, 400, 1200, 1300, 0, 5];
        for (index, size) in sizes.into_iter().enumerate() {
            egress.push_copy((SOURCE, destination), &vec![index as u8; size]);
        }
        egress.flush(&sockets, &batch);
        let mut buffer = [0; 2000];
        for (index, size) in sizes.into_iter().enumerate() {
            let length = receiver.recv(&mut buffer).expect("arrives");
            assert_eq!(length, size);
            assert!(buffer[..length].iter().all(|&byte| byte == index as u8));
        }
        // 1200 ×3 + 400 | 1200 | 1300 | empty | 5
        assert_eq!(egress.sent(), Sent { datagrams: 8, trains: 5, full: 0, failed: 0 });
    }

    #[test]
    fn datagrams_are_gathered_from_the_batch_with_their_headers() {
        let (sockets, mut batch) = open();
        let (receiver, destination) = receiver();
        let (other, elsewhere) = self::receiver();
        // What comes in by a listener lies in a slot.
        let target = sockets.for_data(SOURCE).expect("a listener").local_addr().expect("address");
        for number in 0x40..0x43_u8 {
            other.send_to(&[number; 100], target).expect("sends");
        }
        let listener = sockets.for_data(SOURCE).expect("a listener");
        let mut egress = Egress::new();
        let mut count = 0;
        let deadline = Instant::now() + Duration::from_secs(5);
        while count < 3 {
            assert!(Instant::now() < deadline, "{count} of 3 arrive");
            let filled = listener.receive(&mut batch, 2).expect("works");
            for slot in 0..filled {
                egress.push((SOURCE, destination), &[0x40, 0, 0, 100], slot, 48..148);
                egress.push((SOURCE, elsewhere), &[], slot, 50..148);
                count += 1;
            }
            egress.flush(&sockets, &batch);
        }
        let mut buffer = [0; 2000];
        for number in 0x40..0x43_u8 {
            assert_eq!(receiver.recv(&mut buffer).expect("arrives"), 104);
            assert_eq!((&buffer[..4], &buffer[4..104]), (&[0x40, 0, 0, 100][..], &[number; 100][..]));
            assert_eq!(other.recv(&mut buffer).expect("arrives"), 98);
            assert_eq!(buffer[..98], [number; 98]);
        }
        assert_eq!(egress.sent().failed, 0);
    }

    #[test]
    fn many_flows_and_closed_ports_lose_nothing_else() {
        let (sockets, batch) = open();
        let (_receiver, destination) = receiver();
        let mut egress = Egress::new();
        for number in 1..=40 {
            let port = RelayPort { family: Family::V4, number };
            egress.push_copy((Socket::Relay(port), destination), b"nowhere");
            egress.push_copy((SOURCE, destination), b"somewhere");
        }
        egress.flush(&sockets, &batch);
        let sent = egress.sent();
        assert_eq!((sent.datagrams, sent.failed), (40, 40));
        assert!(egress.runs.is_empty() && egress.parts.is_empty() && egress.aside.is_empty());
    }
}
