//! Load on one side: a handshake initiation that was recorded on the wire, sent again and again.
//!
//! A copy has a valid MAC1, so it counts as a handshake until the receiver asks for cookies, and nobody needs to know
//! any key to make it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::world::Host;

/// Length and type of a handshake initiation.
const INITIATION_LENGTH: usize = 148;
const INITIATION_TYPE: u8 = 1;

/// Length and type of a cookie reply.
const COOKIE_REPLY_LENGTH: usize = 64;
const COOKIE_REPLY_TYPE: u8 = 3;

/// Time between two bursts.
const PAUSE: Duration = Duration::from_millis(100);

/// A place to which a side sends its initiation.
#[derive(Debug)]
pub(super) struct Recorder {
    socket: UdpSocket,
}

impl Recorder {
    pub(super) fn open(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { socket })
    }

    /// Waits for an initiation.
    pub(super) fn initiation(self, limit: Duration) -> Result<Vec<u8>> {
        let begin = Instant::now();
        let mut buffer = [0; 2048];
        while begin.elapsed() < limit {
            let length = self.socket.recv(&mut buffer).unwrap_or(0);
            if length == INITIATION_LENGTH && buffer[0] == INITIATION_TYPE {
                return Ok(buffer[..length].to_vec());
            }
        }
        bail!("no initiation within {limit:?}")
    }
}

/// A flood that lasts until it is dropped.
#[derive(Debug)]
pub(super) struct Flood {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    cookies: AtomicU64,
}

impl Flood {
    /// Sends `burst` copies ten times a second, or more at once after it was kept waiting.
    pub(super) fn start(host: &Host, target: SocketAddr, datagram: Vec<u8>, burst: u64) -> Result<Self> {
        let local: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = host.enter(|| UdpSocket::bind(local))??;
        socket.set_nonblocking(true)?;
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let body = move || send_until_stopped(&socket, target, &datagram, burst, &shared);
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(body)?;
        Ok(Self { counts, thread: Some(thread) })
    }

    /// Waits until the target answers with cookies: it is under load.
    pub(super) fn wait_for_load(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.cookies() == 0 {
            ensure!(begin.elapsed() < limit, "no cookies after {} initiations", self.sent());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Copies sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    /// Cookies that came for them.
    pub(super) fn cookies(&self) -> u64 {
        self.counts.cookies.load(Ordering::Relaxed)
    }
}

fn send_until_stopped(socket: &UdpSocket, target: SocketAddr, datagram: &[u8], burst: u64, counts: &Counts) {
    let begin = Instant::now();
    let mut buffer = [0; 256];
    let mut due = 0;
    while !counts.stop.load(Ordering::Relaxed) {
        let bursts = u64::try_from(begin.elapsed().as_millis() / PAUSE.as_millis()).unwrap_or(u64::MAX);
        while due <= bursts.saturating_mul(burst) {
            // What does not fit a buffer on the way is one copy less.
            let sent = socket.send_to(datagram, target).is_ok();
            counts.sent.fetch_add(u64::from(sent), Ordering::Relaxed);
            due += 1;
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            let is_cookie = length == COOKIE_REPLY_LENGTH && buffer[0] == COOKIE_REPLY_TYPE;
            counts.cookies.fetch_add(u64::from(is_cookie), Ordering::Relaxed);
        }
        thread::sleep(PAUSE / 4);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no reason to panic, and the flood is over either way.
            let _ = thread.join();
        }
    }
}
