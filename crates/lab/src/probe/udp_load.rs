//! A load of numbered datagrams in one direction: what arrives, in which order, and how late.
//!
//! Sender and receiver are threads of the lab, whose sockets live in the hosts' networks. Both read one clock, so the
//! one-way delay is exact.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};

use crate::world::Host;

/// Datagrams handed to the kernel, or taken from it, in one call.
const BATCH: usize = 64;

/// Largest datagram.
const LARGEST: usize = 2048;

/// Load, number and time of sending.
const HEADER: usize = 24;

/// Loads sent by this process so far; tells a load's datagrams from what an earlier one left in some queue.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Socket buffers: a receiver that is not scheduled for some milliseconds is not a lossy tunnel.
const BUFFER: usize = 8 << 20;

/// Pause of a sender that is ahead of its schedule.
const PAUSE: Duration = Duration::from_micros(50);

/// Time for the last datagrams to arrive.
const GRACE: Duration = Duration::from_millis(200);

/// Longest wait of the receiver before it looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Datagrams a second.
    pub per_second: f64,
    /// For how long.
    pub duration: Duration,
    /// Bytes of payload, 24 to 2048.
    pub size: usize,
}

/// What became of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrivals {
    /// Datagrams sent, those that the sender's kernel refused included.
    pub sent: u64,
    /// Datagrams that were sent each second.
    pub offered: f64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived each second.
    pub rate: f64,
    /// Datagrams that arrived after a later one.
    pub reordered: u64,
    /// Datagrams of an earlier load that arrived only now; they count as nothing else.
    pub stale: u64,
    /// Median one-way delay.
    pub median_delay: Duration,
}

impl Arrivals {
    /// Share of datagrams that did not arrive, 0.0 to 1.0.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - self.received as f64 / self.sent as f64 }
    }
}

/// Sends a load from one host to `target`, whose port must be free on the other, and counts what arrives there.
///
/// # Errors
/// When a socket cannot be opened, or there is no route to `target`.
pub fn run(from: &Host, to: &Host, target: SocketAddr, load: &Load) -> Result<Arrivals> {
    let receiver = to.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, target.port())))??;
    receiver.set_read_timeout(Some(LOOK_EVERY))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)?;
    let sender = from.enter(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(target)?;
        Ok(socket)
    })??;
    setsockopt(&sender, sockopt::SndBufForce, &BUFFER)?;
    let (clock, stop) = (Clock::start(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let received = scope.spawn(|| receive(&receiver, clock, &stop));
        let sent = send(&sender, clock, load);
        std::thread::sleep(GRACE);
        stop.store(true, Ordering::Relaxed);
        let mut tally = received.join().map_err(|_| anyhow!("the receiver panicked"))?;
        Ok(tally.arrivals(sent, load))
    })
}

/// What sender and receiver of a load have in common.
#[derive(Clone, Copy, Debug)]
struct Clock {
    load: u64,
    epoch: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { load: LOADS.fetch_add(1, Ordering::Relaxed), epoch: Instant::now() }
    }
}

/// Keeps to the schedule, in batches when it is late; returns how many datagrams were due.
fn send(socket: &UdpSocket, clock: Clock, load: &Load) -> u64 {
    let size = load.size.clamp(HEADER, LARGEST);
    let mut memory = vec![0; BATCH * size];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let (start, mut number) = (Instant::now(), 0_u64);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= load.duration {
            return number;
        }
        // Truncation is meant: a datagram is due when its whole turn has come.
        let due = (elapsed.as_secs_f64() * load.per_second) as u64;
        let count = usize::try_from(due.saturating_sub(number)).unwrap_or(BATCH).min(BATCH);
        if count == 0 {
            std::thread::sleep(PAUSE);
            continue;
        }
        let now = nanoseconds(clock.epoch.elapsed());
        for (datagram, number) in memory.chunks_exact_mut(size).take(count).zip(number..) {
            for (field, value) in datagram.as_chunks_mut::<8>().0.iter_mut().zip([clock.load, number, now]) {
                *field = value.to_be_bytes();
            }
        }
        number += send_batch(socket, &memory, size, count, &mut headers);
    }
}

/// Hands datagrams to the kernel. One that it refuses counts as sent and lost: the load offered is what was asked for.
fn send_batch(
    socket: &UdpSocket,
    memory: &[u8],
    size: usize,
    count: usize,
    headers: &mut MultiHeaders<SockaddrStorage>,
) -> u64 {
    let slices: Vec<[IoSlice<'_>; 1]> =
        memory.chunks_exact(size).take(count).map(|datagram| [IoSlice::new(datagram)]).collect();
    let addresses = [None; BATCH];
    let sent = sendmmsg(socket.as_raw_fd(), headers, &slices, &addresses[..count], [], MsgFlags::empty());
    sent.map_or(1, |results| results.count().max(1) as u64)
}

/// What the receiver has seen.
#[derive(Debug, Default)]
struct Tally {
    load: u64,
    first: Option<Duration>,
    last: Duration,
    /// The latest number plus one.
    expected: u64,
    reordered: u64,
    stale: u64,
    /// One-way delays in nanoseconds.
    delays: Vec<u64>,
}

fn receive(socket: &UdpSocket, clock: Clock, stop: &AtomicBool) -> Tally {
    let mut tally = Tally { load: clock.load, ..Tally::default() };
    let mut memory = vec![0; BATCH * LARGEST];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    while !stop.load(Ordering::Relaxed) {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            memory.chunks_exact_mut(LARGEST).map(|datagram| [IoSliceMut::new(datagram)]).collect();
        let wait_for_one = MsgFlags::MSG_WAITFORONE;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, wait_for_one, None);
        // Nothing within the time limit, or an ICMP error of no concern to a receiver.
        let Ok(received) = received else { continue };
        let now = clock.epoch.elapsed();
        for message in received {
            if let Some(datagram) = message.iovs().next() {
                tally.note(datagram, now);
            }
        }
    }
    tally
}

impl Tally {
    fn note(&mut self, datagram: &[u8], now: Duration) {
        let Some(fields) = datagram.first_chunk::<HEADER>() else { return };
        let field =
            |index: usize| fields.as_chunks().0.get(index).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let (number, sent) = (field(1), field(2));
        if field(0) != self.load {
            self.stale += 1;
            return;
        }
        self.first.get_or_insert(now);
        self.last = now;
        if number < self.expected {
            self.reordered += 1;
        } else {
            self.expected = number + 1;
        }
        self.delays.push(nanoseconds(now).saturating_sub(sent));
    }

    fn arrivals(&mut self, sent: u64, load: &Load) -> Arrivals {
        self.delays.sort_unstable();
        let median = self.delays.get(self.delays.len() / 2).copied().unwrap_or_default();
        let received = self.delays.len() as u64;
        // What stands in queues at the end arrives later and must not count as if it had come in time.
        let took = (self.last - self.first.unwrap_or(self.last)).max(load.duration);
        Arrivals {
            sent,
            offered: sent as f64 / load.duration.as_secs_f64(),
            received,
            rate: received as f64 / took.as_secs_f64(),
            reordered: self.reordered,
            stale: self.stale,
            median_delay: Duration::from_nanos(median),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(load: u64, number: u64, sent: u64) -> Vec<u8> {
        [load, number, sent].map(u64::to_be_bytes).concat()
    }

    #[test]
    fn losses_reordering_and_delays_are_told_apart() {
        let mut tally = Tally { load: 7, ..Tally::default() };
        tally.note(&datagram(6, 900, 5), Duration::from_nanos(9));
        for (number, sent, received) in [(0, 0, 10), (2, 20, 50), (1, 10, 51), (4, 40, 60)] {
            tally.note(&datagram(7, number, sent), Duration::from_nanos(received));
        }
        tally.note(b"short", Duration::from_nanos(70));
        let load = Load { per_second: 5.0, duration: Duration::from_secs(1), size: 64 };
        let arrivals = tally.arrivals(5, &load);
        let expected = Arrivals {
            sent: 5,
            offered: 5.0,
            received: 4,
            rate: 4.0,
            reordered: 1,
            stale: 1,
            median_delay: Duration::from_nanos(30),
        };
        assert_eq!(arrivals, expected);
        assert!((arrivals.loss() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_load_over_the_loopback_arrives_whole_and_in_order() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        receiver.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let load = Load { per_second: 1_000.0, duration: Duration::from_millis(50), size: 64 };
        let (clock, stop) = (Clock::start(), AtomicBool::new(false));
        let (sent, tally) = std::thread::scope(|scope| {
            let received = scope.spawn(|| receive(&receiver, clock, &stop));
            let sent = send(&sender, clock, &load);
            std::thread::sleep(GRACE);
            stop.store(true, Ordering::Relaxed);
            (sent, received.join().unwrap())
        });
        assert!((1..=50).contains(&sent), "{sent}");
        assert_eq!((tally.delays.len() as u64, tally.reordered), (sent, 0));
    }
}
