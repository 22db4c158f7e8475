//! One connection: bytes in, messages out; messages in, bytes out.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use rustls::ServerConnection;

use super::admission::Permit;
use super::{End, Security};

/// The longest that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest message of a client without an allocation: a request with all its attributes.
const STRANGERS_MESSAGE: usize = 1000;
/// Bytes that may wait to be written before data is dropped.
const DATA_ROOM: usize = 256 << 10;
/// Further bytes for answers.
const CONTROL_ROOM: usize = 16 << 10;
/// Bytes of a TLS record.
const RECORD: usize = 16 << 10;
/// Reads of one turn, about 4 KiB each over TLS.
const TLS_READS: usize = 16;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Box<ServerConnection>>,
    splitter: Splitter,
    /// What waits to be written, not yet encrypted.
    queue: VecDeque<u8>,
    opened_at: Instant,
    /// Since when it has no allocation; `None` while it has one.
    idle_since: Option<Instant>,
    is_watched_writable: bool,
    is_closed: bool,
    _permit: Permit,
}

impl Connection {
    pub(super) fn new(
        now: Instant,
        socket: TcpStream,
        address: SocketAddr,
        tls: Option<Box<ServerConnection>>,
        permit: Permit,
    ) -> Self {
        Self {
            socket,
            address,
            tls,
            splitter: Splitter::new(STRANGERS_MESSAGE),
            queue: VecDeque::new(),
            opened_at: now,
            idle_since: Some(now),
            is_watched_writable: false,
            is_closed: false,
            _permit: permit,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn security(&self) -> Security {
        if self.tls.is_some() { Security::Tls } else { Security::Plain }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub(super) fn set_allocated(&mut self, now: Instant, allocated: bool) {
        self.idle_since = (!allocated).then_some(now);
        self.splitter.set_limit(if allocated { LONGEST_MESSAGE } else { STRANGERS_MESSAGE });
    }

    /// Why its time is over, if it is: `limit` bounds how long it may be without an allocation.
    pub(super) fn is_late(&self, now: Instant, limit: Duration) -> Option<End> {
        if self.is_handshaking() {
            let is_late = now.saturating_duration_since(self.opened_at) > limit.min(HANDSHAKE_TIMEOUT);
            return is_late.then_some(End::HandshakeTimeout);
        }
        let idle = self.idle_since.map(|since| now.saturating_duration_since(since));
        idle.is_some_and(|idle| idle > limit).then_some(End::Idle)
    }

    /// Reads what has come, within a turn's bounds, and hands out whole messages.
    pub(super) fn read(&mut self, scratch: &mut [u8], mut deliver: impl FnMut(&[u8])) -> Result<(), End> {
        if self.is_closed {
            return Ok(());
        }
        let Some(tls) = &mut self.tls else {
            return match read_some(&mut self.socket, scratch)? {
                Some(length) => split(&mut self.splitter, &scratch[..length], &mut deliver),
                None => Ok(()),
            };
        };
        for _ in 0..TLS_READS {
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {}
                Err(error) if is_passing(&error) => return Ok(()),
                Err(_) => return Err(End::Broken),
            }
            if let Err(error) = tls.process_new_packets() {
                tracing::debug!(client = %self.address, %error, "TLS fails");
                let _ = tls.write_tls(&mut self.socket); // the alert, if it fits
                return Err(End::Tls);
            }
            while let Some(length) = read_some(&mut tls.reader(), scratch)? {
                split(&mut self.splitter, &scratch[..length], &mut deliver)?;
            }
        }
        Ok(())
    }

    /// Takes a message to write; false if there is no room.
    pub(super) fn queue(&mut self, message: &[u8], is_control: bool) -> bool {
        let room = if is_control { DATA_ROOM + CONTROL_ROOM } else { DATA_ROOM };
        if self.is_closed || self.queue.len() + message.len() > room {
            return false;
        }
        self.queue.extend(message);
        true
    }

    /// True if something waits to be written.
    pub(super) fn wants_write(&self) -> bool {
        !self.queue.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what the socket takes; true if it took not all.
    pub(super) fn write(&mut self) -> Result<bool, End> {
        if self.is_closed {
            return Ok(false);
        }
        let written = match &mut self.tls {
            None => write_queue(&mut self.socket, &mut self.queue),
            Some(tls) => write_encrypted(&mut self.socket, tls, &mut self.queue),
        };
        if self.queue.is_empty() && self.queue.capacity() > RECORD {
            self.queue = VecDeque::new(); // most connections are idle most of the time
        }
        match written {
            Ok(()) => Ok(false),
            Err(error) if is_passing(&error) => Ok(true),
            Err(_) => Err(End::Broken),
        }
    }

    /// Notes whether the kernel should say when there is room; `Some` if that is new.
    pub(super) fn watch_writable(&mut self, writable: bool) -> Option<()> {
        (std::mem::replace(&mut self.is_watched_writable, writable) != writable).then_some(())
    }

    /// Says goodbye; false if that was done already.
    pub(super) fn close(&mut self) -> bool {
        if std::mem::replace(&mut self.is_closed, true) {
            return false;
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
        self.queue = VecDeque::new();
        true
    }
}

/// Reads once; `None` when nothing is there.
fn read_some(source: &mut impl io::Read, scratch: &mut [u8]) -> Result<Option<usize>, End> {
    match source.read(scratch) {
        Ok(0) => Err(End::Closed),
        Ok(length) => Ok(Some(length)),
        Err(error) if is_passing(&error) => Ok(None),
        // TLS without a proper end.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(End::Closed),
        Err(_) => Err(End::Broken),
    }
}

fn split(splitter: &mut Splitter, mut bytes: &[u8], deliver: &mut impl FnMut(&[u8])) -> Result<(), End> {
    while !bytes.is_empty() {
        let space = splitter.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        splitter.filled(count);
        bytes = &bytes[count..];
        while let Some(message) = splitter.next_message().map_err(|_| End::Framing)? {
            deliver(message);
        }
    }
    Ok(())
}

/// Writes until the queue is empty, or the socket full (`WouldBlock`).
fn write_queue(socket: &mut TcpStream, queue: &mut VecDeque<u8>) -> io::Result<()> {
    while !queue.is_empty() {
        let (front, back) = queue.as_slices();
        let count = socket.write_vectored(&[IoSlice::new(front), IoSlice::new(back)])?;
        queue.drain(..count);
    }
    Ok(())
}

/// The same through TLS, which holds one record at a time.
fn write_encrypted(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    queue: &mut VecDeque<u8>,
) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            tls.write_tls(socket)?;
        }
        if queue.is_empty() || tls.is_handshaking() {
            return Ok(());
        }
        let (front, _) = queue.as_slices();
        let count = tls.writer().write(&front[..front.len().min(RECORD)])?;
        queue.drain(..count);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
