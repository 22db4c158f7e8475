//! More data than the relay can carry costs data, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_turn::{Family, channel_data};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::driver::Program;
use crate::requester::Requester;

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(4);
/// Bytes of a datagram's data.
const SIZE: usize = 1000;
/// Datagrams that leave in one call: so the sender needs far less time for them than the relay does.
const TRAIN: usize = 60;

/// Sends trains of ChannelData until told to stop; returns how many datagrams.
fn flood(socket: &UdpSocket, server: SocketAddr, is_over: &AtomicBool) -> u64 {
    let datagram = [&channel_data::header(0x4001, SIZE as u16)[..], &[5; SIZE]].concat();
    let train = datagram.repeat(TRAIN);
    let address = nix::sys::socket::SockaddrStorage::from(server);
    let segment = datagram.len() as u16;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let parts = [std::io::IoSlice::new(&train)];
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        if sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&address)).is_ok() {
            sent += TRAIN as u64;
        }
    }
    sent
}

/// Ends the flood also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_flood_of_data_loses_data_and_neither_requests_nor_memory() {
    let program = Program::alone(&["--shards", "1", "--max-unauthenticated-replies", "100000"]);
    let server = program.address(Family::V4);
    // The flooding client's peer does read, so that the relay has something to do.
    let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
    peer.set_read_timeout(Some(Duration::from_millis(100))).expect("sets");
    let peer_address = peer.local_addr().expect("address");
    let mut flooder = Requester::udp(server);
    flooder.allocate();
    assert_eq!(flooder.bind(0x4001, peer_address), 0);
    let mut settled = Requester::udp(server);
    settled.allocate();
    let before = program.resident_bytes();
    let (is_over, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut requests, mut repeated, mut slowest) = (0, 0, Duration::ZERO);
    let sent = std::thread::scope(|scope| {
        let floods: Vec<_> = (0..2)
            .map(|_| {
                let socket = flooder.socket();
                let is_over = &is_over;
                scope.spawn(move || flood(&socket, server, is_over))
            })
            .collect();
        scope.spawn(|| {
            let mut buffer = [0; 2000];
            while !is_over.load(Ordering::Relaxed) {
                received.fetch_add(u64::from(peer.recv(&mut buffer).is_ok()), Ordering::Relaxed);
            }
        });
        let over = Over(&is_over);
        let start = Instant::now();
        while start.elapsed() < FLOOD {
            let asked = Instant::now();
            assert_eq!(settled.refresh(600), 0);
            let mut newcomer = Requester::udp(server);
            newcomer.allocate();
            assert_eq!(newcomer.refresh(0), 0);
            (requests, repeated) = (requests + 3, repeated + newcomer.repeated);
            slowest = slowest.max(asked.elapsed());
        }
        drop(over);
        floods.into_iter().map(|flood| flood.join().expect("no panic")).sum::<u64>()
    });
    let forwarded =
        program.next_metric("adit_relay_forwarded_packets_total{direction=\"to_peer\",path=\"udp\"}");
    // A machine that is busy with other things too answers late, and a late answer is asked for again. Of the data most is
    // lost at the same time.
    repeated += settled.repeated;
    assert!(requests >= 15 && repeated * 10 <= requests, "{repeated} of {requests} requests were repeated");
    let overflows =
        |queue: &str| program.metric(&format!("adit_relay_queue_overflows_total{{queue=\"{queue}\"}}"));
    assert_eq!(overflows("requests"), Some(0.0), "the kernel dropped requests");
    assert!(overflows("data").is_some_and(|dropped| dropped > 0.0), "the kernel dropped no data");
    assert!(forwarded > 10_000.0, "the relay still works: {forwarded}");
    assert!(sent as f64 > 1.5 * forwarded, "no overload: {sent} sent, {forwarded} forwarded");
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    let after = program.resident_bytes();
    assert!(after < before + (8 << 20), "{before} -> {after} bytes");
}
