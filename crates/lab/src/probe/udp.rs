//! Numbered datagrams and their echoes: when did the first answer come, when the last, and what was lost.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Stop, thread, wait_readable};
use crate::world::Host;

/// Sends back what it receives; stops when dropped.
#[derive(Debug)]
pub struct EchoServer {
    state: Arc<EchoState>,
    _stop: Stop,
}

#[derive(Debug, Default)]
struct EchoState {
    received: AtomicU64,
    last: Mutex<Option<(Instant, SocketAddr)>>,
}

impl EchoServer {
    /// Listens on `port` of `host`, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        Self::start_at(host, (Ipv6Addr::UNSPECIFIED, port).into())
    }

    /// Listens on one address of `host` alone, and answers from it.
    ///
    /// # Errors
    /// When the address is not the host's, or the port is taken.
    pub fn start_at(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind(address))??;
        socket.set_nonblocking(true)?;
        let (state, stop) = (Arc::new(EchoState::default()), Stop::default());
        let (for_thread, flag) = (Arc::clone(&state), stop.flag());
        thread("udp-echo", move || {
            while wait_readable(&socket, &flag) {
                echo_waiting(&socket, &for_thread);
            }
        })?;
        Ok(Self { state, _stop: stop })
    }

    /// Datagrams received so far.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// When the last datagram came, and from where.
    pub fn last_received(&self) -> Option<(Instant, SocketAddr)> {
        *self.state.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn echo_waiting(socket: &UdpSocket, state: &EchoState) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        state.received.fetch_add(1, Ordering::Relaxed);
        *state.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), from));
        // A lost echo is what the other end measures.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// A running series of numbered datagrams.
#[derive(Debug)]
pub struct Probe {
    state: Arc<Mutex<Series>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Times of each datagram, by number.
#[derive(Debug, Default)]
struct Series {
    sent: Vec<Instant>,
    received: Vec<Option<Instant>>,
    duplicates: u64,
}

/// What a series gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// Datagrams sent.
    pub sent: usize,
    /// Datagrams whose echo came.
    pub received: usize,
    /// Echoes that came again.
    pub duplicates: u64,
    /// From the first send to the first echo of any datagram.
    pub first_reply: Option<Duration>,
    /// When the last echo came.
    pub last_received: Option<Instant>,
    /// Longest time without an echo between two echoes.
    pub longest_gap: Duration,
    /// Median round trip.
    pub median_round_trip: Option<Duration>,
}

impl Report {
    /// Share of datagrams without an echo, 0.0 to 1.0.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - self.received as f64 / self.sent as f64 }
    }
}

impl Probe {
    /// Sends `per_second` datagrams of `size` bytes (at least 8) from `host` to the echo server `target`.
    ///
    /// # Errors
    /// When the socket cannot be opened, or there is no route to `target`.
    pub fn start(host: &Host, target: SocketAddr, per_second: u32, size: usize) -> Result<Self> {
        let socket = host.enter(|| connected(target))??;
        socket.set_read_timeout(Some(super::LOOK_EVERY))?;
        let receiver = socket.try_clone()?;
        let state = Arc::new(Mutex::new(Series::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs(1) / per_second.max(1);
        let (to_send, to_receive) =
            ((Arc::clone(&state), Arc::clone(&stop)), (Arc::clone(&state), Arc::clone(&stop)));
        let threads = vec![
            std::thread::spawn(move || send_series(&socket, interval, size.max(8), &to_send.0, &to_send.1)),
            std::thread::spawn(move || receive_series(&receiver, &to_receive.0, &to_receive.1)),
        ];
        Ok(Self { state, stop, threads })
    }

    /// What came so far.
    pub fn report(&self) -> Report {
        lock(&self.state).report()
    }

    /// Waits for an echo that arrives after `since`, and returns the time between the two.
    ///
    /// # Errors
    /// When none came within `limit` of `since`.
    pub fn wait_for_reply_after(&self, since: Instant, limit: Duration) -> Result<Duration> {
        loop {
            if let Some(arrival) = lock(&self.state).first_arrival_after(since) {
                return Ok(arrival - since);
            }
            if since.elapsed() > limit {
                bail!("no reply within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the echo of a datagram **sent** after `since`; returns the time from `since` to its arrival.
    ///
    /// # Errors
    /// When none came within `limit` of `since`.
    pub fn wait_for_round_trip_after(&self, since: Instant, limit: Duration) -> Result<Duration> {
        loop {
            if let Some(arrival) = lock(&self.state).first_round_trip_after(since) {
                return Ok(arrival - since);
            }
            if since.elapsed() > limit {
                bail!("no round trip within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing has arrived for `quiet`; returns when the last echo came.
    ///
    /// # Errors
    /// When echoes still come after `limit`.
    pub fn wait_for_silence(&self, quiet: Duration, limit: Duration) -> Result<Option<Instant>> {
        let begin = Instant::now();
        loop {
            let last = self.report().last_received;
            if last.unwrap_or(begin).max(begin).elapsed() >= quiet {
                return Ok(last);
            }
            if begin.elapsed() > limit {
                bail!("replies still come after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many datagrams that were sent after `since` have no echo; those of the last `grace` may still be on their way
    /// and do not count.
    pub fn lost_after(&self, since: Instant, grace: Duration) -> usize {
        let until = Instant::now().checked_sub(grace).unwrap_or(since);
        lock(&self.state).lost_between(since, until)
    }

    /// Stops sending, waits `grace` for echoes on their way, and reports.
    pub fn stop(mut self, grace: Duration) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        std::thread::sleep(grace);
        self.join();
        self.report()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panicking thread has printed its reason already.
            let _ = thread.join();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.join();
    }
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if target.is_ipv4() { ([0; 4], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

fn send_series(
    socket: &UdpSocket,
    interval: Duration,
    size: usize,
    state: &Mutex<Series>,
    stop: &AtomicBool,
) {
    let mut datagram = vec![0; size];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = lock(state).next_number();
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // No route or an ICMP error of an earlier datagram: this one counts as lost.
        let _ = socket.send(&datagram);
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Ends one read timeout after the stop, so that echoes on their way still count.
fn receive_series(socket: &UdpSocket, state: &Mutex<Series>, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        match socket.recv(&mut buffer) {
            Ok(length) => lock(state).note(&buffer[..length], Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && stopping => return,
            Err(_) => {}
        }
    }
}

fn lock(state: &Mutex<Series>) -> std::sync::MutexGuard<'_, Series> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Series {
    fn next_number(&mut self) -> u64 {
        self.sent.push(Instant::now());
        self.received.push(None);
        self.sent.len() as u64 - 1
    }

    fn note(&mut self, datagram: &[u8], now: Instant) {
        let number = datagram.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        let index = number.and_then(|number| usize::try_from(number).ok());
        match index.and_then(|index| self.received.get_mut(index)) {
            Some(slot @ None) => *slot = Some(now),
            Some(Some(_)) => self.duplicates += 1,
            None => {}
        }
    }

    fn first_arrival_after(&self, since: Instant) -> Option<Instant> {
        self.received.iter().flatten().filter(|arrival| **arrival > since).min().copied()
    }

    fn first_round_trip_after(&self, since: Instant) -> Option<Instant> {
        let pairs = self.sent.iter().zip(&self.received).filter(|(sent, _)| **sent > since);
        pairs.filter_map(|(_, received)| *received).min()
    }

    fn lost_between(&self, since: Instant, until: Instant) -> usize {
        let pairs = self.sent.iter().zip(&self.received);
        pairs.filter(|(sent, received)| **sent > since && **sent <= until && received.is_none()).count()
    }

    fn report(&self) -> Report {
        let mut arrivals: Vec<Instant> = self.received.iter().flatten().copied().collect();
        arrivals.sort_unstable();
        let answered = self.sent.iter().zip(&self.received);
        let mut round_trips: Vec<Duration> = answered
            .filter_map(|(sent, received)| Some(received.as_ref()?.saturating_duration_since(*sent)))
            .collect();
        round_trips.sort_unstable();
        Report {
            sent: self.sent.len(),
            received: arrivals.len(),
            duplicates: self.duplicates,
            first_reply: self.sent.first().zip(arrivals.first()).map(|(sent, arrival)| *arrival - *sent),
            last_received: arrivals.last().copied(),
            longest_gap: arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default(),
            median_round_trip: round_trips.get(round_trips.len() / 2).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_losses_gaps_and_duplicates() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut series =
            Series { sent: vec![at(0), at(10), at(20), at(30)], received: vec![None; 4], duplicates: 0 };
        for (number, arrival) in [(0u64, 5), (3, 36), (3, 37), (1, 14), (9, 40)] {
            series.note(&number.to_be_bytes(), at(arrival));
        }
        series.note(b"short", at(41));
        let report = series.report();
        assert_eq!((report.sent, report.received, report.duplicates), (4, 3, 1));
        assert_eq!(report.first_reply, Some(Duration::from_millis(5)));
        assert_eq!(report.longest_gap, Duration::from_millis(22));
        assert_eq!(report.median_round_trip, Some(Duration::from_millis(5)));
        assert_eq!(series.first_arrival_after(at(6)), Some(at(14)));
        assert_eq!(series.first_round_trip_after(at(10)), Some(at(36)));
        assert_eq!([(9, 30), (9, 19), (20, 30)].map(|(a, b)| series.lost_between(at(a), at(b))), [1, 0, 0]);
        assert!((report.loss() - 0.25).abs() < 1e-9);
    }
}
