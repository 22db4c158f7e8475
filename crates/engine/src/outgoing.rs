//! Datagrams on their way out, gathered so that one system call sends many.
//!
//! The worker seals straight into [`Outgoing::room`]; what goes the same way as what waits already, and is cut the
//! same, leaves together with it. Nothing is moved: what cannot leave together leaves first, from where it lies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use adit_dataplane::Datagrams;
use adit_packet::offload::MAXIMUM_SEGMENTS;

use crate::sockets::Sockets;

/// The most bytes that one system call takes (the largest UDP payload over IPv4).
const MOST_BYTES: usize = 65_507;

/// The most datagrams that one system call takes (the kernel's `UDP_MAX_SEGMENTS` of old).
const MOST_DATAGRAMS: usize = 64;

/// Room that a packet of the TUN device may need: 64 KiB in as many segments as it may have. Pages that are never
/// used take no memory.
const MOST_ROOM: usize = adit_dataplane::room(65_535, MAXIMUM_SEGMENTS);

/// How many datagrams of `segment` bytes leave in one call.
pub(crate) fn together(segment: usize) -> usize {
    (MOST_BYTES / segment.max(1)).clamp(1, MOST_DATAGRAMS)
}

/// Consecutive datagrams of one size between the same two addresses; the last may be shorter.
#[derive(Debug)]
pub(crate) struct Outgoing {
    source: IpAddr,
    destination: SocketAddr,
    segment: usize,
    /// What waits.
    waiting: Range<usize>,
    contents: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            source: nowhere,
            destination: SocketAddr::new(nowhere, 0),
            segment: 0,
            waiting: 0..0,
            contents: vec![0; 2 * MOST_ROOM],
        }
    }

    /// Where to put the next datagrams, side by side; enough for any packet of the TUN device. Call [`push`](Self::push) then.
    pub(crate) fn room(&mut self, sockets: &Sockets) -> &mut [u8] {
        if self.contents.len() - self.waiting.end < MOST_ROOM {
            self.flush(sockets);
        }
        &mut self.contents[self.waiting.end..]
    }

    /// What was put at the start of [`room`](Self::room), for a way out that is no socket.
    pub(crate) fn sealed(&self, length: usize) -> &[u8] {
        &self.contents[self.waiting.end..][..length]
    }

    /// Takes the datagrams that were put at the start of [`room`](Self::room); sends what can wait no longer.
    pub(crate) fn push(
        &mut self,
        sockets: &Sockets,
        source: IpAddr,
        destination: SocketAddr,
        datagrams: Datagrams,
    ) {
        let Datagrams { segment, length } = datagrams;
        let start = self.waiting.end;
        if (self.source, self.destination, self.segment) != (source, destination, segment) {
            self.send(sockets);
            (self.source, self.destination, self.segment) = (source, destination, segment);
            self.waiting.start = start;
        }
        self.waiting.end = start + length;
        let together = together(segment) * segment;
        while self.waiting.len() >= together.max(1) {
            let first = self.waiting.start..self.waiting.start + together;
            self.waiting.start = first.end;
            self.send_range(sockets, first);
        }
        if !length.is_multiple_of(segment.max(1)) {
            // Nothing may follow a shorter one.
            self.flush(sockets);
        }
    }

    /// Sends all that waits.
    pub(crate) fn flush(&mut self, sockets: &Sockets) {
        self.send(sockets);
        self.waiting = 0..0;
    }

    fn send(&mut self, sockets: &Sockets) {
        let range = self.waiting.clone();
        self.waiting.start = range.end;
        if !range.is_empty() {
            self.send_range(sockets, range);
        }
    }

    fn send_range(&self, sockets: &Sockets, range: Range<usize>) {
        let segment = (range.len() > self.segment).then_some(self.segment);
        sockets.send(self.source, self.destination, &self.contents[range], segment);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::offloads::Offloads;

    /// Puts datagrams of these sizes in, each run in one go, and returns what arrived: size and first byte.
    fn carried(runs: &[&[usize]]) -> Vec<(usize, u8)> {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        let sockets = Sockets::bind(0, None, Offloads::default()).unwrap();
        let mut outgoing = Outgoing::new();
        let mut number = 0;
        for run in runs {
            let room = outgoing.room(&sockets);
            let mut length = 0;
            for size in *run {
                room[length..length + size].fill(number);
                (length, number) = (length + size, number + 1);
            }
            outgoing.push(&sockets, to.ip(), to, Datagrams { segment: run[0], length });
        }
        outgoing.flush(&sockets);
        let mut buffer = [0; 2048];
        let mut receive = || receiver.recv(&mut buffer).map(|length| (length, buffer[0])).unwrap();
        (0..number).map(|_| receive()).collect()
    }

    #[test]
    fn datagrams_keep_their_order_and_their_borders() {
        let runs: [&[usize]; 7] = [&[100], &[100], &[40], &[40], &[300, 300, 300, 299], &[300, 300], &[1]];
        let expected: Vec<usize> = runs.concat();
        let (sizes, numbers): (Vec<_>, Vec<_>) = carried(&runs).into_iter().unzip();
        assert_eq!(sizes, expected);
        assert!(numbers.iter().enumerate().all(|(at, number)| at == usize::from(*number)));
    }

    #[test]
    fn more_than_one_call_takes_is_sent_in_several() {
        assert_eq!(carried(&[&[1_400; 50]]).len(), 50, "more bytes than one call takes");
        assert_eq!(carried(&[&[200; 100]]).len(), 100, "more datagrams than the kernel takes at once");
    }
}
