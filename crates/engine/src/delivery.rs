//! Packets on their way to the TUN device, gathered so that the kernel handles many as one.

use std::io::{self, IoSlice};

use adit_packet::offload::{Coalescer, Offload, Verdict};
use adit_platform::tun::Tun;
use metrics::counter;

/// The most pieces of one write: a virtio header, and the packets of a batch.
const MOST_PIECES: usize = 1 + 128;

/// The packets of one turn. They stay in the buffers in which they were received.
pub(crate) struct Delivery<'a> {
    tun: &'a Tun,
    coalescer: Coalescer,
    /// The first packet of the open batch.
    first: Option<&'a mut [u8]>,
    /// What the others add to it.
    others: [&'a [u8]; MOST_PIECES - 2],
    count: usize,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(tun: &'a Tun) -> Self {
        let coalescer = Coalescer::new(tun.offload());
        Self { tun, coalescer, first: None, others: [&[]; MOST_PIECES - 2], count: 0 }
    }

    /// Takes one packet.
    pub(crate) fn push(&mut self, packet: &'a mut [u8]) {
        if self.tun.offload() == Offload::None {
            return write(self.tun, packet);
        }
        loop {
            match self.coalescer.push(packet) {
                Verdict::Started => self.first = Some(packet),
                Verdict::Appended { payload } => {
                    self.others[self.count] = &packet[payload];
                    self.count += 1;
                    if self.count == self.others.len() {
                        self.flush();
                    }
                }
                Verdict::Alone => write(self.tun, packet),
                Verdict::FlushFirst => {
                    self.flush();
                    continue;
                }
            }
            return;
        }
    }

    /// Writes what is left.
    pub(crate) fn flush(&mut self) {
        let Some(first) = self.first.take() else { return };
        let header = self.coalescer.finish(first).to_bytes();
        let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
        pieces[0] = IoSlice::new(&header);
        pieces[1] = IoSlice::new(first);
        for (piece, other) in pieces[2..].iter_mut().zip(&self.others[..self.count]) {
            *piece = IoSlice::new(other);
        }
        note(self.tun.write_parts(&pieces[..2 + self.count]));
        self.count = 0;
    }
}

/// Hands a packet to the kernel; one that it does not take is dropped and counted.
pub(crate) fn write(tun: &Tun, packet: &[u8]) {
    note(tun.write(packet));
}

fn note(written: io::Result<()>) {
    if let Err(error) = written {
        let reason = if error.kind() == io::ErrorKind::WouldBlock { "full" } else { "refused" };
        counter!("adit_tun_write_dropped_total", "reason" => reason).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use adit_packet::build;
    use adit_packet::offload::{Segmentation, VirtioHeader};

    use super::*;

    fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
        let source = ([10, 0, 0, 1], port).into();
        build::udp(source, ([10, 0, 0, 2], 53).into(), payload).unwrap()
    }

    /// What comes out at the other end: virtio header, and length of the packet.
    fn delivered(offload: Offload, mut packets: Vec<Vec<u8>>) -> Vec<(VirtioHeader, usize)> {
        let (tun, kernel) = Tun::pair(offload).unwrap();
        let mut delivery = Delivery::new(&tun);
        packets.iter_mut().for_each(|packet| delivery.push(packet));
        delivery.flush();
        let mut buffer = vec![0; 70_000];
        let read = || {
            let length = kernel.read(&mut buffer).ok()?;
            Some(match offload {
                Offload::None => (VirtioHeader::NONE, length),
                _ => (VirtioHeader::parse(&buffer).unwrap(), length - VirtioHeader::LENGTH),
            })
        };
        std::iter::from_fn(read).collect()
    }

    #[test]
    fn packets_of_one_flow_are_written_as_one() {
        let packets: Vec<_> = (0..70).map(|_| datagram(1000, &[7; 500])).collect();
        let writes = delivered(Offload::TcpAndUdp, packets);
        assert_eq!(writes.iter().map(|(_, length)| (length - 28) / 500).collect::<Vec<_>>(), [64, 6]);
        assert!(writes.iter().all(|(header, _)| header.segmentation == Segmentation::Udp));
        assert!(writes.iter().all(|(header, _)| header.segment_size == 500));
    }

    #[test]
    fn packets_of_other_flows_and_sizes_keep_their_place() {
        let packets =
            vec![datagram(1, &[1; 90]), datagram(1, &[2; 90]), datagram(2, &[3; 90]), datagram(1, &[4; 91])];
        let lengths: Vec<_> =
            delivered(Offload::TcpAndUdp, packets.clone()).iter().map(|(_, length)| *length).collect();
        assert_eq!(lengths, [28 + 180, 28 + 90, 28 + 91]);
        let single = delivered(Offload::None, packets);
        assert_eq!(single.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [118, 118, 118, 119]);
    }
}
