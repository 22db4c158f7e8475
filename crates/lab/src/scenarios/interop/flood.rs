//! Load on one side: a handshake initiation that was recorded on the wire, sent again and again.
//!
//! A copy has a valid MAC1, so it counts as a handshake until the receiver asks for cookies, and nobody needs to know
//! any key to make it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::world::Host;

/// Length and type of a handshake initiation.
const INITIATION_LENGTH: usize = 148;
const INITIATION_TYPE: u8 = 1;

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
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends `burst` copies ten times a second.
    pub(super) fn start(host: &Host, target: SocketAddr, datagram: Vec<u8>, burst: usize) -> Result<Self> {
        let local: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = host.enter(|| UdpSocket::bind(local))??;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                for _ in 0..burst {
                    // What does not fit a buffer on the way is one copy less.
                    let _ = socket.send_to(&datagram, target);
                }
                thread::sleep(PAUSE);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no reason to panic, and the flood is over either way.
            let _ = thread.join();
        }
    }
}
