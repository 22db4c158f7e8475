//! TUN offload and several queues against the real kernel.
//!
//! A host that a test talks to is the test's own: packets for it are read from the device, their addresses exchanged,
//! and written back. So both ends of a connection are sockets of this kernel, and all between them crosses the device.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_packet::offload::{Coalescer, Segmentation, SuperPacket, Verdict, VirtioHeader};
use adit_packet::{PacketView, Rewrite};
use adit_platform::tun::{Config, Offload, Tun, TunError};
use namespace::{ip, isolated, set_sysctl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// Room for the largest super-packet and its header.
const ROOM: usize = VirtioHeader::LENGTH + 65_535;

const TIMEOUT: Duration = Duration::from_secs(5);

fn create(name: &str, has_offload: bool) -> Result<Tun, TunError> {
    let offload = if has_offload { Offload::TcpAndUdp } else { Offload::None };
    Tun::create(&Config { name: name.to_owned(), mtu: 1_420, offload })
}

/// A device with offload that is up and owns 10.9.0.1 and fd09::1.
fn device() -> Tun {
    let tun = create("adit0", true).expect("creates");
    set_sysctl("net/ipv6/conf/adit0/accept_dad", "0");
    ip("address add 10.9.0.1/24 dev adit0");
    ip("address add fd09::1/64 dev adit0 nodad");
    ip("link set adit0 up");
    // The kernel puts the IPv6 address into use a moment later, and drops what comes before.
    await_true(|| ip("-6 route show table local").contains("local fd09::1"));
    tun
}

fn await_true(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never becomes true");
}

/// Waits for a packet as an epoll loop would; `None` after a second without one.
fn next_packet(tun: &Tun, buffer: &mut [u8]) -> Option<usize> {
    loop {
        let mut wait = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wait, PollTimeout::from(1_000u16)).expect("polls") == 0 {
            return None;
        }
        match tun.read(buffer) {
            Ok(length) => return Some(length),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

/// What a reflected device has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Kinds and numbers of segments of the super-packets read.
    super_packets: Vec<(Segmentation, usize)>,
    /// Packets merged into one write.
    merged: Vec<usize>,
}

/// The hosts at the far end of the device: each answers with what it gets.
///
/// Packets are cut after they were read, and merged again before they are written: all that the data plane does, but
/// for the tunnel in between.
struct Mirror {
    tun: Tun,
    seen: Seen,
}

impl Mirror {
    /// Runs until nothing has come for a second.
    fn start(tun: Tun) -> JoinHandle<Seen> {
        std::thread::spawn(move || {
            let mut mirror = Self { tun, seen: Seen::default() };
            let mut buffer = vec![0; ROOM];
            while let Some(length) = next_packet(&mirror.tun, &mut buffer) {
                let header = VirtioHeader::parse(&buffer).expect("a header");
                mirror.reflect(header, &mut buffer[VirtioHeader::LENGTH..length]);
            }
            mirror.seen
        })
    }

    fn reflect(&mut self, header: VirtioHeader, packet: &mut [u8]) {
        let mut packet = SuperPacket::new(header, packet).expect("the kernel tells the truth");
        let view = *packet.view();
        // The kernel's own chatter (router solicitations and the like).
        if view.flow().is_none() {
            return;
        }
        if packet.is_segmented() {
            self.seen.super_packets.push((header.segmentation, packet.segment_count()));
        }
        let swap =
            Rewrite { source: Some(view.destination()), destination: Some(view.source()), ..Rewrite::NONE };
        packet.rewrite(&swap).expect("one family");
        let segments = packet.segments();
        let mut packets: Vec<Vec<u8>> =
            (0..segments.count()).map(|at| vec![0; segments.length(at)]).collect();
        for (index, out) in packets.iter_mut().enumerate() {
            assert_eq!(segments.write(index, out), out.len());
        }
        self.write_merged(&mut packets);
    }

    fn write_merged(&mut self, packets: &mut [Vec<u8>]) {
        let mut coalescer = Coalescer::new(self.tun.offload());
        let mut batch: Vec<&mut [u8]> = Vec::new();
        for packet in packets {
            let mut verdict = coalescer.push(packet);
            if verdict == Verdict::FlushFirst {
                self.flush(&mut coalescer, &mut batch);
                verdict = coalescer.push(packet);
            }
            match verdict {
                Verdict::Started => batch.push(packet),
                Verdict::Appended { payload } => batch.push(&mut packet[payload]),
                Verdict::Alone => self.tun.write(packet).expect("writes"),
                Verdict::FlushFirst => panic!("asked for twice"),
            }
        }
        if coalescer.is_open() {
            self.flush(&mut coalescer, &mut batch);
        }
    }

    fn flush(&mut self, coalescer: &mut Coalescer, batch: &mut Vec<&mut [u8]>) {
        let header = coalescer.finish(batch[0]).to_bytes();
        self.seen.merged.push(batch.len());
        let mut parts = vec![IoSlice::new(&header)];
        parts.extend(batch.iter().map(|part| IoSlice::new(part)));
        self.tun.write_parts(&parts).expect("writes");
        batch.clear();
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7) as u8).collect()
}

/// Connects to itself through the mirror, and checks that a megabyte arrives as it was.
fn transfer_over_tcp(mirrored: &str, own: &str) {
    let listener = TcpListener::bind((own, 4_000)).expect("binds");
    let content = pattern(1 << 20);
    let expected = content.clone();
    let address = mirrored.to_owned();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect((address.as_str(), 4_000)).expect("connects");
        stream.write_all(&content).expect("writes");
    });
    let (mut stream, _) = listener.accept().expect("accepts");
    stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("reads");
    sender.join().expect("sends");
    assert_eq!(received.len(), expected.len());
    assert!(received == expected, "one stream, in order");
}

#[test]
fn a_tcp_connection_crosses_in_super_packets() {
    isolated(|| async {
        for (mirrored, own, segmentation) in
            [("10.9.0.2", "10.9.0.1", Segmentation::TcpV4), ("fd09::2", "fd09::1", Segmentation::TcpV6)]
        {
            let tun = device();
            assert!(tun.offload() >= Offload::Tcp);
            let mirror = Mirror::start(tun);
            transfer_over_tcp(mirrored, own);
            let seen = mirror.join().expect("mirrors");
            let large = |&(kind, count): &(Segmentation, usize)| kind == segmentation && count > 10;
            assert!(seen.super_packets.iter().any(large), "{seen:?}");
            assert!(seen.merged.iter().any(|count| *count > 10), "{seen:?}");
        }
    });
}

#[test]
fn datagrams_cross_in_super_packets() {
    isolated(|| async {
        let tun = device();
        if tun.offload() != Offload::TcpAndUdp {
            eprintln!("skipped: this kernel has no UDP segmentation for TUN devices (Linux 6.2)");
            return;
        }
        let mirror = Mirror::start(tun);
        for (mirrored, own) in [("10.9.0.2:4000", "10.9.0.1:4000"), ("[fd09::2]:4000", "[fd09::1]:4000")] {
            let socket = UdpSocket::bind(own).expect("binds");
            socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            setsockopt(&socket, sockopt::UdpGsoSegment, &1_000).expect("sets");
            let content = pattern(9_500);
            socket.send_to(&content, mirrored).expect("sends");
            let mut buffer = [0; 2_000];
            let mut received = Vec::new();
            while received.len() < content.len() {
                let (length, from) = socket.recv_from(&mut buffer).expect("receives");
                assert_eq!(from, mirrored.parse().expect("address"));
                assert_eq!(length, (content.len() - received.len()).min(1_000));
                received.extend_from_slice(&buffer[..length]);
            }
            assert!(received == content);
        }
        let seen = mirror.join().expect("mirrors");
        assert_eq!(seen.super_packets, [(Segmentation::Udp, 10); 2]);
        assert_eq!(seen.merged, [10, 10]);
    });
}

#[test]
fn a_partial_checksum_is_left_to_the_reader() {
    isolated(|| async {
        let tun = device();
        let socket = UdpSocket::bind("10.9.0.1:4000").expect("binds");
        socket.send_to(b"unfinished", "10.9.0.2:5000").expect("sends");
        let mut buffer = vec![0; ROOM];
        loop {
            let length = next_packet(&tun, &mut buffer).expect("comes");
            let header = VirtioHeader::parse(&buffer).expect("a header");
            let packet = &mut buffer[VirtioHeader::LENGTH..length];
            if packet[0] >> 4 != 4 {
                continue;
            }
            assert!(header.needs_checksum);
            assert!(adit_packet::checksum::verify(packet).is_err());
            let packet = SuperPacket::new(header, packet).expect("completes");
            assert_eq!(adit_packet::checksum::verify(packet.packet()), Ok(()));
            break;
        }
    });
}

#[test]
fn a_virtio_header_that_lies_is_refused() {
    isolated(|| async {
        let tun = device();
        let packet = adit_packet::build::udp(
            "10.9.0.2:1".parse().expect("address"),
            "10.9.0.1:2".parse().expect("address"),
            &[0; 3_000],
        )
        .expect("fits");
        let lie = VirtioHeader {
            needs_checksum: true,
            segmentation: Segmentation::TcpV4,
            segment_size: 1_000,
            checksum_start: 20,
            checksum_offset: 6,
            ..VirtioHeader::NONE
        };
        let parts = [&lie.to_bytes()[..], &packet[..]].map(|part| part.to_vec());
        let error = tun.write_parts(&[IoSlice::new(&parts[0]), IoSlice::new(&parts[1])]).expect_err("a lie");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL));
        tun.write(&packet).expect("an ordinary packet");
    });
}

#[test]
fn without_offload_packets_are_cut_and_finished_by_the_kernel() {
    isolated(|| async {
        let tun = create("adit0", false).expect("creates");
        assert_eq!(tun.offload(), Offload::None);
        assert_segments_of_one_datagram(&tun);
    });
}

/// Sends with segmentation through a device without offload: complete packets of one segment each must come.
fn assert_segments_of_one_datagram(tun: &Tun) {
    ip("address replace 10.9.0.1/24 dev adit0");
    ip("link set adit0 up");
    let socket = UdpSocket::bind("10.9.0.1:4000").expect("binds");
    setsockopt(&socket, sockopt::UdpGsoSegment, &1_000).expect("sets");
    socket.send_to(&[7; 2_500], "10.9.0.2:5000").expect("sends");
    let mut buffer = vec![0; ROOM];
    let mut lengths = Vec::new();
    while lengths.len() < 3 {
        let length = next_packet(tun, &mut buffer).expect("comes");
        if buffer[0] >> 4 == 4 {
            assert_eq!(adit_packet::checksum::verify(&buffer[..length]), Ok(()));
            lengths.push(length - 28);
        }
    }
    assert_eq!(lengths, [1_000, 1_000, 500]);
}

/// The queue that answers to `peer` come out of; a packet from there is written to `written` first.
fn queue_of(queues: &[Tun], written: usize, socket: &UdpSocket, peer: SocketAddr) -> usize {
    let own = socket.local_addr().expect("address");
    let packet = adit_packet::build::udp(peer, own, b"hello").expect("fits");
    queues[written].write(&packet).expect("writes");
    let mut content = [0; 16];
    assert_eq!(socket.recv_from(&mut content).expect("receives"), (5, peer));
    socket.send_to(b"answer", peer).expect("sends");
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = vec![0; ROOM];
    while Instant::now() < deadline {
        for (index, queue) in queues.iter().enumerate() {
            while let Ok(length) = queue.read(&mut buffer) {
                let view = PacketView::parse(&buffer[VirtioHeader::LENGTH..length]).expect("valid");
                if view.destination_port() == Some(peer.port()) {
                    return index;
                }
            }
        }
    }
    panic!("no answer came out");
}

#[test]
fn a_flow_stays_on_one_queue_whichever_is_written_to() {
    isolated(|| async {
        let first = device();
        ip("addr add fd00:9::1/64 dev adit0 nodad");
        let queues = [first.add_queue().expect("another queue"), first.add_queue().expect("a third"), first];
        assert!(queues.iter().all(|queue| queue.offload() == queues[0].offload() && queue.name() == "adit0"));
        for ends in [("10.9.0.1:4000", "10.9.0.2:0"), ("[fd00:9::1]:4000", "[fd00:9::2]:0")] {
            let socket = UdpSocket::bind(ends.0).expect("binds");
            socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            let mut peer: SocketAddr = ends.1.parse().expect("address");
            let mut flows = [0; 3];
            for port in 5_000..5_060 {
                peer.set_port(port);
                let seen = [0, 1, 2].map(|written| queue_of(&queues, written, &socket, peer));
                assert_eq!(seen, [seen[0]; 3], "{peer}");
                flows[seen[0]] += 1;
            }
            assert!(flows.iter().all(|count| *count >= 8), "{peer}: {flows:?}");
        }
    });
}

/// All fragments of a packet, by the queue that they come out of.
#[test]
fn the_fragments_of_a_packet_stay_together() {
    isolated(|| async {
        let first = device();
        let queues = [first.add_queue().expect("another queue"), first];
        let mut buffer = vec![0; ROOM];
        let mut used = [false; 2];
        for last in 2..40 {
            let socket = UdpSocket::bind("10.9.0.1:0").expect("binds");
            socket.send_to(&[7; 3_000], SocketAddr::from(([10, 9, 0, last], 9))).expect("sends");
            let (mut found, deadline) = ([0, 0], Instant::now() + TIMEOUT);
            while found != [3, 0] && found != [0, 3] {
                for (queue, found) in queues.iter().zip(&mut found) {
                    while let Ok(length) = queue.read(&mut buffer) {
                        let packet = &buffer[VirtioHeader::LENGTH..length];
                        *found += usize::from(packet[0] >> 4 == 4 && packet[19] == last);
                    }
                }
                assert!(found.contains(&0) && Instant::now() < deadline, "{found:?}");
            }
            used[usize::from(found[1] > 0)] = true;
        }
        assert_eq!(used, [true; 2]);
    });
}

#[test]
fn a_device_with_several_queues_is_still_held_by_one_process() {
    isolated(|| async {
        let first = create("adit0", true).expect("creates");
        let second = first.add_queue().expect("another queue");
        for offload in [false, true] {
            assert!(matches!(create("adit0", offload), Err(TunError::NameTaken(_))));
        }
        drop(first);
        assert!(matches!(create("adit0", true), Err(TunError::NameTaken(_))), "a queue is left");
        second.add_queue().expect("the device lives on");
    });
}

#[test]
fn a_successor_takes_over_a_persistent_device_with_or_without_offload() {
    isolated(|| async {
        for (before, after) in [(false, false), (true, true), (false, true), (true, false)] {
            let predecessor = create("adit0", before).expect("creates");
            ip("address replace 10.9.0.1/24 dev adit0");
            let other_queue = predecessor.add_queue().expect("another queue");
            predecessor.set_persistent(true).expect("persists");
            assert!(matches!(create("adit0", after), Err(TunError::NameTaken(_))), "still held");
            let index = predecessor.index();
            drop((predecessor, other_queue));
            assert!(ip("address show adit0").contains("10.9.0.1"), "outlives its owner");
            let successor = take_over(after);
            assert_eq!(successor.index(), index, "the same device");
            assert!(matches!(create("adit0", after), Err(TunError::NameTaken(_))));
            if after {
                assert!(successor.offload() >= Offload::Tcp);
            } else {
                assert_segments_of_one_datagram(&successor);
            }
            successor.add_queue().expect("and more queues");
            successor.set_persistent(false).expect("owns it");
            drop(successor);
            await_true(|| !ip("link show").contains("adit0"));
        }
    });
}

#[test]
fn a_device_made_for_one_queue_is_used_with_one() {
    isolated(|| async {
        ip("tuntap add mode tun name adit0");
        for offload in [false, true] {
            let tun = take_over(offload);
            assert!(matches!(create("adit0", offload), Err(TunError::NameTaken(_))));
            assert!(matches!(tun.add_queue(), Err(TunError::NotTun(_))));
            if !offload {
                assert_segments_of_one_datagram(&tun);
            }
        }
    });
}

/// A program that another test is just starting may hold the old descriptors for a moment.
fn take_over(offload: bool) -> Tun {
    for _ in 0..200 {
        match create("adit0", offload) {
            Err(TunError::NameTaken(_)) => std::thread::sleep(Duration::from_millis(10)),
            other => return other.expect("takes over"),
        }
    }
    panic!("the device is never free");
}
