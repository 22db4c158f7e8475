//! Datagrams on their way out, gathered so that one system call sends many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::sockets::Sockets;

/// The most bytes that one system call takes (the largest UDP payload over IPv4).
const MOST_BYTES: usize = 65_507;

/// The most datagrams that one system call takes (the kernel's `UDP_MAX_SEGMENTS` of old).
const MOST_DATAGRAMS: usize = 64;

/// Consecutive datagrams of one size between the same two addresses; the last may be shorter.
#[derive(Debug)]
pub(crate) struct Outgoing {
    source: IpAddr,
    destination: SocketAddr,
    segment: usize,
    count: usize,
    contents: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            source: nowhere,
            destination: SocketAddr::new(nowhere, 0),
            segment: 0,
            count: 0,
            contents: Vec::with_capacity(MOST_BYTES),
        }
    }

    /// Adds a datagram; sends what was gathered first if the two do not go together.
    pub(crate) fn push(
        &mut self,
        sockets: &Sockets,
        source: IpAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        if self.count > 0 && !self.takes(source, destination, datagram.len()) {
            self.flush(sockets);
        }
        if self.count == 0 {
            (self.source, self.destination, self.segment) = (source, destination, datagram.len());
        }
        self.contents.extend_from_slice(datagram);
        self.count += 1;
        if datagram.len() < self.segment {
            self.flush(sockets);
        }
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self, sockets: &Sockets) {
        if self.count > 0 {
            let segment = (self.count > 1).then_some(self.segment);
            sockets.send(self.source, self.destination, &self.contents, segment);
            self.contents.clear();
            self.count = 0;
        }
    }

    fn takes(&self, source: IpAddr, destination: SocketAddr, length: usize) -> bool {
        self.source == source
            && self.destination == destination
            && length <= self.segment
            && self.count < MOST_DATAGRAMS
            && self.contents.len() + length <= MOST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_keep_their_order_and_their_borders() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        let sockets = Sockets::bind(0, None).unwrap();
        let mut outgoing = Outgoing::new();
        let sizes = [100, 100, 40, 40, 300, 300, 300, 299, 1];
        for (number, size) in (0_u8..).zip(sizes) {
            outgoing.push(&sockets, to.ip(), to, &vec![number; size]);
        }
        outgoing.flush(&sockets);
        let mut buffer = [0; 2048];
        for (number, size) in (0_u8..).zip(sizes) {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!((length, buffer[0]), (size, number));
        }
    }
}
