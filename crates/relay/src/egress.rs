//! Datagrams on their way out, gathered per flow so that a train of them costs one system call.
//!
//! Tunnel traffic comes in trains of equal size. Within one batch of received datagrams, those that leave by the same socket to the same
//! destination are put side by side and sent together (`UDP_SEGMENT`); the last one may be shorter. Nothing waits: after each batch
//! everything goes out.

use std::io;
use std::net::SocketAddr;

use adit_turn::server::Socket;

use crate::sockets::Sockets;
use crate::udp::{MAX_SEGMENTS, MAX_TOGETHER};

/// Flows gathered at a time; one more sends the oldest.
const MAX_RUNS: usize = 16;

/// Datagrams of one flow, side by side.
#[derive(Debug)]
struct Run {
    source: Socket,
    destination: SocketAddr,
    segment: usize,
    count: usize,
    /// Set by a datagram shorter than the others: nothing may follow it.
    is_complete: bool,
    bytes: Vec<u8>,
}

/// How sending went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Datagrams handed to the kernel.
    pub(crate) datagrams: u64,
    /// System calls that took.
    pub(crate) calls: u64,
    /// Datagrams lost because a send buffer was full.
    pub(crate) full: u64,
    /// Datagrams lost for any other reason.
    pub(crate) failed: u64,
}

/// The gathered datagrams.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    runs: Vec<Run>,
    spare: Vec<Vec<u8>>,
    sent: Sent,
}

impl Egress {
    /// Adds a datagram; may send earlier ones.
    pub(crate) fn push(
        &mut self,
        sockets: &Sockets,
        source: Socket,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        let same = |run: &Run| run.source == source && run.destination == destination;
        let position = self.runs.iter().position(same);
        if let Some(run) = position.and_then(|position| self.runs.get_mut(position))
            && run.takes(datagram.len())
        {
            run.bytes.extend_from_slice(datagram);
            run.count += 1;
            run.is_complete = datagram.len() < run.segment;
            return;
        }
        if let Some(position) = position.or((self.runs.len() >= MAX_RUNS).then_some(0)) {
            let run = self.runs.remove(position);
            self.send(sockets, run);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(datagram);
        let segment = datagram.len();
        // An empty datagram has no size to repeat.
        self.runs.push(Run { source, destination, segment, count: 1, is_complete: segment == 0, bytes });
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, sockets: &Sockets) {
        for run in std::mem::take(&mut self.runs) {
            self.send(sockets, run);
        }
    }

    /// How sending went since the start.
    pub(crate) fn sent(&self) -> Sent {
        self.sent
    }

    fn send(&mut self, sockets: &Sockets, mut run: Run) {
        self.sent.calls += 1;
        let count = run.count as u64;
        let socket = sockets.get(run.source);
        match socket.map(|socket| socket.send(run.destination, &run.bytes, run.segment)) {
            Some(Ok(())) => self.sent.datagrams += count,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.sent.full += count,
            Some(Err(error)) => {
                tracing::trace!(%error, "datagrams not sent");
                self.sent.failed += count;
            }
            None => self.sent.failed += count, // the port was released in this very batch
        }
        run.bytes.clear();
        self.spare.push(run.bytes);
    }
}

impl Run {
    fn takes(&self, length: usize) -> bool {
        !self.is_complete
            && length > 0
            && length <= self.segment
            && self.count < MAX_SEGMENTS
            && self.bytes.len() + length <= MAX_TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use adit_turn::Family;
    use clap::Parser as _;
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::arguments::Arguments;
    use crate::settings::Settings;

    fn open() -> Sockets {
        let port =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let port = port.to_string();
        let line =
            ["adit-relay", "--static-secret", "12345678", "--public-ipv4", "127.0.0.1", "--port", &port];
        let line = line.into_iter().chain(["--min-port", "1024", "--max-port", "1024"]);
        let settings = Settings::new(Arguments::parse_from(line)).expect("sound");
        Sockets::open(&settings).expect("opens")
    }

    #[tokio::test]
    async fn trains_leave_together_and_in_order() {
        let sockets = open();
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
        let destination = receiver.local_addr().expect("address");
        let source = Socket::Listener(Family::V4);
        let mut egress = Egress::default();
        let sizes = [1200, 1200, 1200, 400, 1200, 1300, 0, 5];
        for (index, size) in sizes.into_iter().enumerate() {
            egress.push(&sockets, source, destination, &vec![index as u8; size]);
        }
        egress.flush(&sockets);
        let mut buffer = [0; 2000];
        for (index, size) in sizes.into_iter().enumerate() {
            let length = receiver.recv(&mut buffer).expect("arrives");
            assert_eq!(length, size);
            assert!(buffer[..length].iter().all(|&byte| byte == index as u8));
        }
        // 1200 ×3 + 400 | 1200 | 1300 | empty | 5
        assert_eq!(egress.sent(), Sent { datagrams: 8, calls: 5, full: 0, failed: 0 });
    }

    #[tokio::test]
    async fn many_flows_and_closed_ports_lose_nothing_else() {
        let sockets = open();
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let destination = receiver.local_addr().expect("address");
        let mut egress = Egress::default();
        for number in 1..=40 {
            let port = adit_turn::server::RelayPort { family: Family::V4, number };
            egress.push(&sockets, Socket::Relay(port), destination, b"nowhere");
            egress.push(&sockets, Socket::Listener(Family::V4), destination, b"somewhere");
        }
        egress.flush(&sockets);
        let sent = egress.sent();
        assert_eq!((sent.datagrams, sent.failed), (40, 40));
        assert!(egress.runs.is_empty() && egress.spare.len() <= MAX_RUNS + 1);
    }
}
